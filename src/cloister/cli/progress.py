"""How far long work has come: a bar with rate and time left, or how long it has taken where no total is known.

On stderr, on a terminal only, and gone when the work is over, failed or interrupted; the cursor comes back. A report
costs the work a look at the clock: the bar takes in ten a second, however many come.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from cloister.cli.rate import Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

__all__ = ["bar", "spinner"]

_EVERY_S = 0.1  # between two reports that are looked at


@contextlib.contextmanager
def bar(console: Console, what: str, *, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar; yields ``report(done, total)``. It goes when all is done, and comes back where work begins anew."""
    sizes: tuple[ProgressColumn, ...] = (DownloadColumn(binary_units=True), TransferSpeedColumn())
    counts: tuple[ProgressColumn, ...] = (MofNCompleteColumn(), Rate(unit))
    columns = (BarColumn(), *(sizes if unit == "bytes" else counts), TimeRemainingColumn())
    with Progress(_named(), *columns, console=console, transient=True) as drawn:
        task, due, over = drawn.add_task(what, total=None), 0.0, False

        def report(done: int, total: int) -> None:
            nonlocal due, over
            now = time.monotonic()
            if now < due and (done >= total) is over:
                return
            due = now + _EVERY_S
            drawn.update(task, completed=done, total=total)
            if (done >= total) is not over:
                over = not over
                (drawn.stop if over else drawn.start)()

        yield report


@contextlib.contextmanager
def spinner(console: Console, what: str) -> Iterator[None]:
    """Show that work goes on, and for how long it has."""
    with Progress(SpinnerColumn("line"), _named(), TimeElapsedColumn(), console=console, transient=True) as drawn:
        drawn.add_task(what, total=None)
        yield


def _named() -> TextColumn:
    return TextColumn("{task.description}", markup=False)
