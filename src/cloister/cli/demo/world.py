"""The demo's world: a folder for each party, real processes, and the commands a person would type.

Every step of the demo is a ``cloister`` command in a process of its own, with an environment that holds
nothing but what that party has. Processes are ended by id, whatever happens.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from cloister.cli.demo.stage import DemoFailed

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

__all__ = ["TRANSCRIPT", "Outcome", "Running", "World"]

TRANSCRIPT = "commands.log"
"""File in each party's folder: what it typed, and what it was told."""

_COMMAND_S = 40  # seconds one command may take
_POLL_S = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a command came to: exit code, stdout parsed as JSON, stderr."""

    code: int
    value: Any
    words: str

    @property
    def error(self) -> dict[str, Any]:
        """The error it printed, empty where there was none."""
        found = self.value.get("error", {}) if isinstance(self.value, dict) else {}
        return dict(found)


class Running:
    """A server or a waiting command in the background; its output goes to ``log``."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Watch ``process``."""
        self.process = process
        self.log = log

    def stop(self, number: int = signal.SIGTERM, *, within_s: float = 15) -> int:
        """Send a signal and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait(within_s=within_s)

    def wait(self, *, within_s: float) -> int:
        """Return the exit code once it has ended by itself."""
        try:
            return self.process.wait(timeout=within_s)
        except subprocess.TimeoutExpired as exc:
            msg = f"demo: {self.log.stem} did not end within {within_s:g} s"
            raise DemoFailed(msg) from exc

    def said(self) -> str:
        """Return what it printed so far."""
        return self.log.read_text(errors="replace")


class World:
    """Folders, environment, processes. Use it in a ``with`` block: it ends every process it started."""

    ready_within_s: float = 20
    """Seconds until a server must answer."""

    def __init__(self, root: Path) -> None:
        """Make the parties' folders below ``root``."""
        self.root = root
        self.custodian = root / "custodian"
        self.borrower = root / "borrower"
        self.consumer = root / "consumer"
        for folder in (self.custodian, self.borrower, self.consumer):
            folder.mkdir(mode=0o700, parents=True)
        self.variables: dict[Path, dict[str, str]] = {
            self.custodian: {
                "CLOISTER_CUSTODIAN_HOME": str(self.custodian / "home"),
                "CLOISTER_CUSTODIAN_KEY_FILE": str(self.custodian / "vault.key"),
            },
            self.borrower: {},
            self.consumer: {},
        }
        self._running: list[Running] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        for running in reversed(self._running):
            if running.process.poll() is None:
                running.process.kill()
            running.process.wait(timeout=10)

    def environment(self, party: Path, package: Path | None = None) -> dict[str, str]:
        """Return the environment of one party's processes; ``package`` puts another source tree in front."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        environment = {**kept, "HOME": str(party), "PYTHONDONTWRITEBYTECODE": "1", **self.variables[party]}
        return environment | ({"PYTHONPATH": str(package)} if package else {})

    def command(self, *words: str) -> list[str]:
        """Return the command line that runs ``cloister`` with these words."""
        return [sys.executable, "-m", "cloister", *words]

    def run(self, party: Path, *words: str, expect: int | None = 0, package: Path | None = None) -> Outcome:
        """Run a command of one party to its end, with ``--json``.

        Raises ``DemoFailed`` where it does not exit with ``expect`` (None: any).
        """
        done = self._end_of(party, words, package)
        value = json.loads(done.stdout) if done.stdout.strip() else {}
        outcome = Outcome(code=done.returncode, value=value, words=done.stderr)
        if expect is not None and done.returncode != expect:
            msg = f"demo: 'cloister {' '.join(words[:3])}' exited with {done.returncode}, want {expect}"
            raise DemoFailed(msg, hint=outcome.error.get("message") or done.stderr.strip()[-400:] or None)
        return outcome

    def run_lines(self, party: Path, *words: str) -> list[dict[str, Any]]:
        """Run a command that prints one JSON document a line."""
        done = self._end_of(party, words, None)
        if done.returncode:
            msg = f"demo: 'cloister {' '.join(words[:3])}' exited with {done.returncode}, want 0"
            raise DemoFailed(msg, hint=(done.stdout + done.stderr).strip()[-400:])
        return [json.loads(line) for line in done.stdout.splitlines()]

    def _end_of(self, party: Path, words: tuple[str, ...], package: Path | None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and add it to its party's transcript."""
        try:
            done = subprocess.run(  # noqa: S603 - our own command line
                self.command(*words, "--json"),
                cwd=party,
                env=self.environment(party, package),
                capture_output=True,
                text=True,
                timeout=_COMMAND_S,
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            msg = f"demo: 'cloister {' '.join(words[:3])}' did not end within {_COMMAND_S} s"
            raise DemoFailed(msg) from exc
        with (party / TRANSCRIPT).open("a") as file:
            file.write(f"$ cloister {' '.join(words)}\n{done.stdout}{done.stderr}exit {done.returncode}\n")
        return done

    def start(self, party: Path, name: str, *words: str, package: Path | None = None) -> Running:
        """Start a command of one party in the background; its output goes to ``NAME.log`` in the party's folder."""
        return self._start(party, name, self.command(*words), package)

    def start_module(self, party: Path, name: str, module: str, *words: str) -> Running:
        """Start another module of ours in the background, as ``start`` does."""
        return self._start(party, name, [sys.executable, "-m", module, *words], None)

    def _start(self, party: Path, name: str, command: list[str], package: Path | None) -> Running:
        log = party / f"{name}.log"
        with log.open("ab") as sink:
            process = subprocess.Popen(  # noqa: S603 - our own command line
                command,
                cwd=party,
                env=self.environment(party, package),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        running = Running(process, log)
        self._running.append(running)
        return running

    def until_port(self, running: Running, port: int) -> None:
        """Wait until something listens on a loopback port. Raises ``DemoFailed`` where the process ended first."""
        self._until(running, lambda: _listens(port))

    def until_file(self, running: Running, path: Path) -> Any:
        """Wait for a JSON file and return its content."""
        self._until(running, path.exists)
        return json.loads(path.read_text())

    def _until(self, running: Running, ready: Any) -> None:
        end = time.monotonic() + self.ready_within_s
        while not ready():
            if running.process.poll() is not None or time.monotonic() > end:
                msg = f"demo: {running.log.stem} did not come up"
                raise DemoFailed(msg, hint=running.said().strip()[-600:] or None)
            time.sleep(_POLL_S)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.5):
        return True
    return False
