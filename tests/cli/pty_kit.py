"""A command on a pseudo-terminal, as a person has it: a size, keys, and a screen to read."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WAIT_S = 40
HOME = b"\x1b[H"
_ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]")
ALT_ON, ALT_OFF, CURSOR_ON = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


class Pty:
    """A command that believes it has a terminal; ended with its block."""

    def __init__(
        self,
        words: list[str],
        *,
        folder: Path,
        environment: dict[str, str],
        columns: int = 80,
        rows: int = 24,
        program: tuple[str, ...] = ("-m", "cloister"),
    ) -> None:
        self._ours, theirs = pty.openpty()
        self.theirs = theirs
        self.resize(columns, rows)
        self.before = termios.tcgetattr(theirs)
        self.process = subprocess.Popen(  # noqa: S603 - our own command line
            [sys.executable, *program, *words], cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs,
            env={"TERM": "xterm-256color", **environment}, start_new_session=True,
        )  # fmt: skip
        self.data = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=10)
        os.close(self._ours)
        os.close(self.theirs)

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: str) -> None:
        """Send keys."""
        os.write(self._ours, keys.encode())

    def read(self, seconds: float = 0.2) -> bytes:
        """Take what was written meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self._ours], [], [], left)[0]:
                try:
                    self.data += os.read(self._ours, 65_536)
                except OSError:
                    break
        return self.data

    @property
    def screen(self) -> str:
        """The newest whole frame, as text."""
        frames = self.data.split(HOME)
        return _ESCAPES.sub(b"", frames[-1]).decode("utf-8", "replace").replace("\r", "")

    def until(self, seen: str | Callable[[str], bool]) -> str:
        """Wait until the screen has this, and return it."""
        end = time.monotonic() + WAIT_S
        holds = seen if callable(seen) else lambda text: seen in text
        while not holds(self.screen):
            assert time.monotonic() < end, f"{seen}\n{self.screen}\n{self.data[-3000:]!r}"
            self.read()
        return self.screen

    def end(self, keys: str = "q", *, number: int | None = None) -> int:
        """Press keys, or send a signal, and return the exit code."""
        if number is None:
            self.press(keys)
        else:
            self.process.send_signal(number)
        code = None
        end = time.monotonic() + WAIT_S
        while code is None and time.monotonic() < end:
            self.read()
            code = self.process.poll()
        self.read()
        assert code is not None
        return code

    def is_restored(self) -> bool:
        """Tell whether the terminal is as it was: its mode, its screen, its cursor."""
        return termios.tcgetattr(self.theirs) == self.before and self.data.count(ALT_ON) == self.data.count(ALT_OFF)


INTERRUPT = signal.SIGINT
