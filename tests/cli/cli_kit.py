"""The command line as a person uses it: in this process for what ends, as processes for what serves."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import click

from cloister.cli import app
from cloister.cli.terminal import run
from cloister.custodian.vaults.vault_file import Kdf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

READY_S = 40


@dataclass(frozen=True)
class Said:
    """What one command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Return the one JSON document on stdout."""
        return json.loads(self.out)


class Shell:
    """Runs commands in a folder of their own, with an environment of their own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        self.variables = {
            "CLOISTER_CUSTODIAN_HOME": str(folder / "home"),
            "CLOISTER_CUSTODIAN_KEY_FILE": str(folder / "vault.key"),
        }
        for name, value in self.variables.items():
            monkeypatch.setenv(name, value)
        for name in ("CLOISTER_TOKEN", "CLOISTER_TRUST"):
            monkeypatch.delenv(name, raising=False)
        # Vaults made here open cheaply, in processes too: the file has the costs (the real ones are in test_vaults.py).
        monkeypatch.setattr(Kdf.__init__, "__kwdefaults__", {"memory_kib": 64, "passes": 1, "lanes": 1})
        monkeypatch.chdir(folder)

    def __call__(self, *words: str | Path) -> Said:
        """Run a command to its end."""
        self._capsys.readouterr()
        code = run(app, [str(word) for word in words])
        captured = self._capsys.readouterr()
        return Said(code, captured.out, captured.err)

    def ok(self, *words: str | Path) -> Any:
        """Run a command that must succeed, with ``--json``."""
        said = self(*words, "--json")
        assert said.code == 0, (words, said)
        return said.json

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a process: nothing but what it needs."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
        return {**kept, "HOME": str(self.folder), **self.variables, **more}

    def process(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run a command as a process to its end."""
        environment = options.pop("env", None) or self.environment()
        return subprocess.run(  # noqa: S603 - our own command line
            [sys.executable, "-m", "cloister", *map(str, words)],
            cwd=self.folder,
            env=environment,
            capture_output=options.pop("capture_output", True),
            timeout=60,
            check=False,
            **options,
        )

    def start(self, *words: str | Path, **more: str) -> Server:
        """Start a command that serves."""
        return Server(self, [str(word) for word in words], self.environment(**more))


def ended(*words: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command to its end in this process, with streams of its own: a second quicker than a process is."""
    out, err = io.BytesIO(), io.BytesIO()
    given, streams = io.TextIOWrapper(io.BytesIO(stdin.encode())), [io.TextIOWrapper(raw) for raw in (out, err)]
    before, sys.stdin = sys.stdin, given
    try:
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            code = run(app, [str(word) for word in words])
    finally:
        sys.stdin = before
    for stream in streams:
        stream.flush()
    return subprocess.CompletedProcess(words, code, out.getvalue().decode(), err.getvalue().decode())


class Server:
    """A process in the background; ended with its block."""

    def __init__(self, shell: Shell, words: list[str], environment: dict[str, str]) -> None:
        self.log = shell.folder / f"{'-'.join(words[:2])}.log"
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(  # noqa: S603 - our own command line
                [sys.executable, "-m", "cloister", *words],
                cwd=shell.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=10)

    def until(self, ready: Any) -> None:
        """Wait until ``ready()``."""
        end = time.monotonic() + READY_S
        while not ready():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)

    def until_port(self, port: int) -> None:
        """Wait until something listens there."""
        self.until(lambda: listens(port))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=20)


def listens(port: int) -> bool:
    """Tell whether something listens on a loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5):
            return True
    except OSError:
        return False


def commands(
    command: click.Command = app, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with its words, groups included."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, (*path, name))


ESCAPE = re.compile("\x1b")
