"""A custodian as a process of its own, and what the kernel says about it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol, Self

_READY_S = 60  # a log of many entries is verified first
_TICKS = os.sysconf("SC_CLK_TCK")


class Home(Protocol):
    """Where a custodian's files lie."""

    @property
    def home(self) -> Path:
        """Its home."""

    @property
    def key_file(self) -> Path:
        """What opens its vault."""

    @property
    def root_file(self) -> Path:
        """The root of the simulated TEE that it believes."""


class Custodian:
    """``cloister custodian serve`` over a home, from its first answer to its end."""

    def __init__(self, house: Home, port: int, number: int = 1) -> None:
        """Serve the house's home on ``port``, as the process ``number`` of several over one database."""
        self.port = port
        self._house, self._number = house, number
        self._said = house.home / f"serve-{number}.log"

    def __enter__(self) -> Self:
        words = ["custodian", "serve", "--insecure-simulated-root", str(self._house.root_file)]
        environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "TMPDIR") if name in os.environ}
        environment |= {
            "CLOISTER_CUSTODIAN_HOME": str(self._house.home),
            "CLOISTER_CUSTODIAN_KEY_FILE": str(self._house.key_file),
            "CLOISTER_CUSTODIAN_PORT": str(self.port),
        }
        if self._number > 1:  # each process that shares a database keeps a checkpoint of its own
            environment["CLOISTER_CUSTODIAN_CHECKPOINT"] = f"checkpoint-{self._number}.json"
        self._log = self._said.open("ab")
        self.process = subprocess.Popen(  # noqa: S603 - our own command line
            [sys.executable, "-m", "cloister", *words], env=environment, stdout=self._log, stderr=self._log
        )
        self._until_up()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()

    def _until_up(self) -> None:
        end = time.monotonic() + _READY_S
        while self.process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        said = self._said.read_text(errors="replace")
        self.__exit__()
        msg = f"custodian did not come up: {said[-2000:]}"
        raise SystemExit(msg)

    def cpu_s(self) -> float:
        """Return the processor seconds it has used."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / _TICKS

    def resident_mib(self) -> float:
        """Return its resident memory."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0
