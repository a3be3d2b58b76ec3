"""Coverage-guided fuzzing of one parser: ``python tests/fuzz/fuzz.py TARGET [--seconds N]``; ``make fuzz`` runs all.

The corpus under ``tests/fuzz/corpus/TARGET`` is read, and inputs that reach new code are added to it while it is small.
It has no recorded evidence: seeds come from synthetic vendors. A finding is written to ``TARGET-crash-*`` beside this
file and ends the run.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MAX_FILES = 24  # files of one target's corpus
MAX_FILE_BYTES = 4 * 1024  # bytes of one file that is kept
INSTRUMENTED = [
    "cloister.asking",
    "cloister.attest",
    "cloister.channel",
    "cloister.enclave.oip",
    "cloister.enclave.web",
]
INSTRUMENTED += ["cloister.borrowing", "cloister.identity", "cloister.sealed.formats", "cloister.serving.forms"]
INSTRUMENTED += ["cloister.verifier", "cloister.wire"]
INSTRUMENTED += ["h2", "hpack", "hyperframe"]
_HERE = Path(__file__).parent
_SRC = _HERE.parents[1] / "src"


def main() -> int:
    """Fuzz one target in this process, or every target in a process each."""
    options = _options()
    sys.path[:0] = [
        str(_HERE),
        str(_HERE.parent),
        str(_HERE.parent / "enclave" / "web"),
        str(_HERE.parent / "identity"),
        str(_SRC),
    ]
    if options.list:
        from targets import targets  # noqa: PLC0415 - needs the path above

        print("\n".join(sorted(targets())))
        return 0
    if options.target:
        return _fuzz(options.target, options.seconds)
    names = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, __file__, "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    failed = [name for name in names if _child(name, options.seconds)]
    print(f"{len(names)} parsers fuzzed for {options.seconds} s each; findings in: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="?", help="parser to fuzz; every one, where none is named")
    parser.add_argument("--seconds", type=int, default=20, help="how long each")
    parser.add_argument("--list", action="store_true", help="print the targets")
    return parser.parse_args()


def _child(name: str, seconds: int) -> int:
    print(f"== {name}", flush=True)
    return subprocess.run([sys.executable, __file__, name, "--seconds", str(seconds)], check=False).returncode  # noqa: S603


def _fuzz(name: str, seconds: int) -> int:
    """Fuzz; libFuzzer ends the process itself, so what it found is gathered by a parent of ours."""
    import os  # noqa: PLC0415 - for the fork alone

    corpus = _HERE / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        found = Path(work)
        child = os.fork()
        if child == 0:
            _run(name, seconds, corpus, found)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        _keep(found, corpus)
        for crash in found.glob("crash-*"):
            shutil.copy(crash, _HERE / f"{name}-{crash.name}")
    return os.waitstatus_to_exitcode(status)


def _run(name: str, seconds: int, corpus: Path, found: Path) -> None:
    import atheris  # noqa: PLC0415 - only where fuzzing is done

    with atheris.instrument_imports(include=INSTRUMENTED):
        from targets import targets  # noqa: PLC0415 - imported under instrumentation

        parse, seeds = targets()[name]
    from cloister.errors import Malformed, Rejected  # noqa: PLC0415 - after the path was set

    for seed in seeds():
        (found / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)

    def one(data: bytes) -> None:
        with contextlib.suppress(Malformed, Rejected):
            parse(data)

    flags = [
        f"-max_total_time={seconds}",
        "-max_len=65536",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup([name, *flags, f"-artifact_prefix={found}/", str(found), str(corpus)], one)
    atheris.Fuzz()


def _keep(found: Path, corpus: Path) -> None:
    """Add what reached new code, shortest first, while the corpus is small."""
    room = MAX_FILES - sum(1 for _ in corpus.iterdir())
    fresh = [
        path for path in found.iterdir() if not path.name.startswith(("crash-", "slow-", "oom-", "timeout-", "leak-"))
    ]
    for path in sorted(fresh, key=lambda item: item.stat().st_size)[: max(0, room)]:
        data = path.read_bytes()
        if len(data) <= MAX_FILE_BYTES:
            (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


if __name__ == "__main__":
    sys.exit(main())
