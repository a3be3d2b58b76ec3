"""An export written record by record, gone on with where it broke off, and read again to be proven.

    OUT.part     while it grows          OUT, OUT.manifest     once it is whole

Nothing of the log is held in memory but the frontier of its tree.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from cloister.cli.log_options import read_capped
from cloister.cli.terminal import write_file
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.lending.exports.manifest import MAX_MANIFEST_BYTES, Manifest, Writing
from cloister.lending.frontier import Frontier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from cloister.lending.tlog.checkpoint import VerifiedCheckpoint

__all__ = ["frontier_since", "manifest_place", "read_manifest", "records_of", "write_export"]

_MAX_RECORD_BYTES = 64 * 1024


def manifest_place(out: Path) -> Path:
    """Return where the manifest of an export stands."""
    return out.with_name(f"{out.name}.manifest")


def read_manifest(path: Path) -> Manifest:
    """Return a manifest. Raises ``UsageError``, ``Malformed``."""
    return Manifest.parse(read_capped(path, cap=MAX_MANIFEST_BYTES))


def records_of(path: Path) -> Iterator[bytes]:
    """Yield every record of a file with its line end; the last may lack it. Raises ``UsageError``, ``Malformed``."""
    try:
        with path.open("rb") as file:
            while record := file.readline(_MAX_RECORD_BYTES + 1):
                if len(record) > _MAX_RECORD_BYTES:
                    msg = f"{path}: a record of more than {_MAX_RECORD_BYTES} bytes"
                    raise Malformed(msg)
                yield record
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc


def write_export(
    out: Path,
    *,
    name: str,
    before: Frontier,
    checkpoint: VerifiedCheckpoint,
    lines: Callable[[int], Iterable[bytes]],
    report: Callable[[int, int], None],
    resume: bool,
    force: bool,
) -> int:
    """Write entries from ``before`` to the checkpoint's size, and the manifest; return how many were fetched.

    ``lines`` yields entries from an index on. Raises ``Rejected`` (``audit_changed``) where they are not the
    checkpoint's; then the file stays ``OUT.part``. Raises ``UsageError``, ``Unavailable``.
    """
    part = out.with_name(f"{out.name}.part")
    if out.exists() and not force:
        msg = f"{out}: is there already"
        raise UsageError(msg, hint="pass --force, or --since its manifest for what is new")
    writing = Writing(name, before)
    kept = _kept(part, writing) if resume and part.exists() else 0
    fetched = checkpoint.size - writing.frontier.size
    with _appending(part, kept) as write:
        for line in lines(writing.frontier.size):
            if writing.frontier.size == checkpoint.size:
                break  # the log grows meanwhile
            write(writing.add(line))
            report(writing.frontier.size, checkpoint.size)
    if (writing.frontier.size, writing.frontier.root()) != (checkpoint.size, checkpoint.root):
        got, want = writing.frontier.root().hex(), checkpoint.root.hex()
        raise Rejected.because("audit_changed", f"log of {checkpoint.size}", got=got, want=want)
    manifest = Manifest(
        format=name, before=before, after=writing.frontier, digest=writing.digest(), checkpoint=checkpoint.note.dump()
    )
    write_file(manifest_place(out), manifest.dump(), force=True)
    part.replace(out)
    return fetched


def _kept(part: Path, writing: Writing) -> int:
    """Take in the whole records of an export that broke off; return how many bytes they are."""
    kept = 0
    for record in records_of(part):
        if not record.endswith(b"\n"):
            break
        writing.again(record)
        kept += len(record)
    return kept


@contextmanager
def _appending(part: Path, kept: int) -> Iterator[Callable[[bytes], object]]:
    """Yield what writes behind the first ``kept`` bytes of a file. Raises ``Unavailable``."""
    try:
        with part.open("r+b" if kept else "wb") as file:
            file.truncate(kept)
            file.seek(kept)
            yield file.write
    except OSError as exc:
        msg = f"{part}: {exc.strerror}"
        raise Unavailable(msg, hint="make room and go on with --resume") from exc


def frontier_since(path: Path | None) -> Frontier:
    """Return where an earlier export ended, None: the beginning of the log."""
    return Frontier() if path is None else read_manifest(path).after
