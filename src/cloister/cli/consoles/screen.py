"""Draws a view on a terminal again and again, and gives it keys; what was on the screen before comes back.

Drawn when something was heard, a key was pressed, the size changed, or a second went by: ages grow. Nothing waits for
the network here: feeds hear in threads of their own, and a wake tells of it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn, Protocol

import click
from rich.console import Group
from rich.live import Live

from cloister.cli.consoles.glyphs import glyphs_for
from cloister.cli.consoles.keys import keys_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from rich.text import Text

    from cloister.cli.consoles.glyphs import Glyphs
    from cloister.cli.consoles.keys import Keys
    from cloister.cli.terminal import Terminal

__all__ = ["View", "Wake", "glyphs_of", "is_live", "print_frame", "show"]

_TICK_S = 1.0  # seconds after which a frame is old though nothing was heard
_LOOK_S = 0.25  # seconds between two looks at the size of the window
_WIDTH_PRINTED, _MOST_ROWS_PRINTED = 80, 100_000  # of a frame that is printed


class View(Protocol):
    """What is shown, and what keys do to it."""

    def frame(self, width: int, height: int) -> Sequence[Text]:
        """Return at most ``height`` lines of at most ``width`` columns."""
        ...

    def press(self, key: str) -> bool:
        """Take a key; False ends the console."""
        ...


class Wake:
    """Wakes the screen from another thread."""

    def __init__(self) -> None:
        """Open a pipe to this process itself."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def fileno(self) -> int:
        """Return what ``select`` waits for."""
        return self._read

    def call(self) -> None:
        """Wake it; more than once is once."""
        with contextlib.suppress(OSError):  # full: it is awake
            os.write(self._write, b"!")

    def taken(self) -> None:
        """Forget that it was called."""
        with contextlib.suppress(OSError):
            os.read(self._read, 4096)


def is_live(terminal: Terminal) -> bool:
    """Tell whether there is a terminal to draw on again and again."""
    return sys.stdout.isatty() and not terminal.out.is_dumb_terminal


def glyphs_of(terminal: Terminal) -> Glyphs:
    """Return what this terminal can show."""
    return glyphs_for(terminal.out.encoding)


def print_frame(terminal: Terminal, view: View) -> None:
    """Print one frame as lines: as wide as the terminal, or 80 columns, and as long as it is."""
    width = terminal.out.width if sys.stdout.isatty() else int(os.environ.get("COLUMNS") or _WIDTH_PRINTED)
    for line in view.frame(max(1, width), _MOST_ROWS_PRINTED):
        line.rstrip()
        terminal.out.print(line)


def show(terminal: Terminal, view: View, wake: Wake) -> None:
    """Draw until a key or a signal ends it."""
    descriptor = -1 if sys.stdin is None or sys.stdin.closed else sys.stdin.fileno()
    with _ended_by_signals(), keys_of(descriptor) as keys:
        console = terminal.out
        with Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as it:
            while True:
                size = console.size
                it.update(Group(*view.frame(size.width, size.height)), refresh=True)
                if not _wait(terminal, view, wake, keys):
                    return


def _wait(terminal: Terminal, view: View, wake: Wake, keys: Keys | None) -> bool:
    """Wait for a reason to draw again; False where it ends."""
    size, until = terminal.out.size, time.monotonic() + _TICK_S
    while (left := until - time.monotonic()) > 0 and terminal.out.size == size:
        heard = [wake.fileno()] if keys is None else [wake.fileno(), keys.fileno()]
        ready, _, _ = select.select(heard, [], [], min(_LOOK_S, left))
        if wake.fileno() in ready:
            wake.taken()
        if keys is not None and keys.fileno() in ready:
            pressed = keys.pressed()
            return pressed is not None and all(view.press(key) for key in pressed)
        if ready:
            break
    return True


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as an error does, so that the terminal is put back."""

    def end(number: int, _: FrameType | None) -> NoReturn:
        raise click.exceptions.Exit(128 + number)

    wanted = (signal.SIGTERM, signal.SIGHUP)
    before = [(number, signal.signal(number, end)) for number in wanted]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
