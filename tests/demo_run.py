"""One run of ``cloister demo --keep`` for every test that looks at it: story, folders, wire, pages, processes.

The demo runs as a person would run it, as a process, in a folder and with a temporary folder of its own. While
its parties stay, they are asked for every page and error they give; then Ctrl-C ends it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cloister.cli.demo.schemes import simulated_schemes
from cloister.client import Client, Trust
from cloister.errors import CloisterError

if TYPE_CHECKING:
    from collections.abc import Iterator

STAYS = "Ctrl-C ends all three."
LIMIT_S = 120
ENCLAVE_PAGES = (
    "/metrics", "/healthz", "/readyz", "/.well-known/ohttp-gateway", "/.well-known/attested-keyset", "/none",
)  # fmt: skip
CUSTODIAN_PAGES = (
    "/healthz", "/readyz", "/openapi.json", "/v1/custodian", "/v1/loans", "/v1/instances/00/status", "/metrics", "/none"
)  # fmt: skip


@dataclass(frozen=True)
class DemoRun:
    """What one run left: ``base/run`` has the parties' folders, ``base/pages`` what was asked while they stayed."""

    base: Path
    code: int
    seconds: float

    @property
    def root(self) -> Path:
        """The parties' folders."""
        return self.base / "run"

    @property
    def story(self) -> str:
        """What the person saw."""
        return (self.base / "err.txt").read_text()

    @property
    def result(self) -> Any:
        """The JSON document on stdout."""
        return json.loads((self.base / "out.txt").read_text())

    @property
    def answers(self) -> list[Any]:
        """The outputs that the consumer got while the parties stayed."""
        return list(json.loads((self.base / "answers.json").read_text()))


def shared_run(base: Path) -> DemoRun:
    """Return the run in ``base``, made by whoever comes first: workers of one test run share it."""
    base.mkdir(exist_ok=True)
    with _locked(base.with_suffix(".lock")):
        done = base / "done.json"
        if not done.exists():
            done.write_text(json.dumps(_play(base)))
        found = json.loads(done.read_text())
    return DemoRun(base=base, code=found["code"], seconds=found["seconds"])


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _play(base: Path) -> dict[str, float]:
    (base / "tmp").mkdir()
    (base / "pages").mkdir()
    words = [sys.executable, "-m", "cloister", "demo", "--tee", "simulated", "--keep", "--folder", "run", "--json"]
    environment = {**os.environ, "TMPDIR": str(base / "tmp")}
    begun = time.monotonic()
    with (base / "out.txt").open("wb") as out, (base / "err.txt").open("wb") as err:
        process = subprocess.Popen(words, cwd=base, env=environment, stdout=out, stderr=err)  # noqa: S603 - ours
        try:
            stays = _until_it_stays(base, process)
            seconds = time.monotonic() - begun
            if stays:
                _look(base, process.pid)
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(timeout=30)
    return {"code": code, "seconds": seconds}


def _until_it_stays(base: Path, process: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + LIMIT_S
    while STAYS not in (base / "err.txt").read_text():
        if process.poll() is not None or time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _look(base: Path, pid: int) -> None:
    """Ask the staying parties for everything they show, and look at what any user of the machine sees of them."""
    borrower, consumer, pages = base / "run" / "borrower", base / "run" / "consumer", base / "pages"
    found = re.search(r"verify (https://localhost:\d+)", (base / "err.txt").read_text())
    assert found
    trust = Trust.load(consumer / "trust.json")
    image = min(consumer.glob("*.png"))
    with Client.verify(
        found[1], trust, token_file=consumer / "clinic.token", schemes=simulated_schemes(trust)
    ) as client:
        outputs = client.infer("digits", image=image).outputs
        (base / "answers.json").write_text(json.dumps([outputs["probabilities"].tolist()]))
        for number, wrong in enumerate((np.full((1, 9), 0.7312549, "f4"), np.full((1, 64), "no number"))):
            try:
                client.infer("digits", wrong)
            except CloisterError as exc:
                (pages / f"wrong-question-{number}").write_text(f"{exc!r} {exc} {exc.hint}")
    loan = json.loads((borrower / "loan.json").read_bytes())
    ready = json.loads((borrower / "ready.json").read_bytes())
    enclave = ready["url"]
    _get(ready["metrics"], pages / "metrics")
    secure = ssl.create_default_context(cadata=loan["ca_pem"])
    for path in ENCLAVE_PAGES:
        _get(enclave + path, pages / f"enclave{path.replace('/', '-')}")
        _get(enclave + path, pages / f"enclave-post{path.replace('/', '-')}", body=b"\x00not encapsulated")
    for path in CUSTODIAN_PAGES:
        for token in (None, "wrong", loan["token"]):
            name = f"custodian{path.replace('/', '-')}-{'none' if token is None else token[:5]}"
            _get(loan["custodian_url"] + path, pages / name, token=token, secure=secure)
    for child in _children(pid):
        for name in ("cmdline", "environ"):
            (pages / f"process-{child}-{name}").write_bytes(Path(f"/proc/{child}/{name}").read_bytes())


def _get(
    url: str, out: Path, *, body: bytes | None = None, token: str | None = None, secure: ssl.SSLContext | None = None
) -> None:
    """Write status, headers and body of one page to ``out``."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310 - our own parties
    try:
        with urllib.request.urlopen(request, timeout=10, context=secure) as answer:  # noqa: S310 - our own parties
            out.write_bytes(f"{answer.status} {answer.headers}".encode() + answer.read())
    except urllib.error.HTTPError as exc:
        with exc:
            out.write_bytes(f"{exc.code} {exc.headers}".encode() + exc.read())


def _children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
        if parent == pid:
            found.append(int(path.parent.name))
    return found
