"""Keys from a terminal, one by one and without waiting: its mode is put back whatever happens.

Ctrl-C stays what it is. Ctrl-Z is switched off: the shell would be left on the screen that a view draws on.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import termios
import tty
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Keys", "keys_of", "named_keys"]

_MOST_BYTES = 256  # read at once
_SUSPEND = 6, termios.VSUSP  # where a terminal's mode has the key that stops a process
_NAMES = {
    "\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left", "\x1bOA": "up", "\x1bOB": "down",
    "\x1b[5~": "pageup", "\x1b[6~": "pagedown", "\x1b[H": "home", "\x1b[F": "end", "\x1b[1~": "home",
    "\x1b[4~": "end", "\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace", "\x1b": "escape",
}  # fmt: skip
_ONE = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Z]|[\s\S]")


def named_keys(text: str) -> list[str]:
    """Return the keys of what a terminal sent: printable characters as they are, others by name; unknown ones not."""
    return [found for one in _ONE.findall(text) if (found := _NAMES.get(one, one)).isprintable()]


class Keys:
    """The keys pressed at one terminal. ``pressed`` never waits."""

    def __init__(self, descriptor: int) -> None:
        """Read from this one."""
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return what ``select`` waits for."""
        return self._descriptor

    def pressed(self) -> list[str] | None:
        """Return the keys pressed since the last call; None where the terminal is gone."""
        if not select.select([self._descriptor], [], [], 0)[0]:
            return []
        try:
            data = os.read(self._descriptor, _MOST_BYTES)
        except OSError:
            return None
        return named_keys(data.decode("utf-8", "ignore")) if data else None


@contextlib.contextmanager
def keys_of(descriptor: int) -> Iterator[Keys | None]:
    """Take keys one by one within the block; None where ``descriptor`` is no terminal."""
    if not os.isatty(descriptor):
        yield None
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        mode = termios.tcgetattr(descriptor)
        mode[_SUSPEND[0]][_SUSPEND[1]] = b"\0"
        termios.tcsetattr(descriptor, termios.TCSANOW, mode)
        yield Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
