"""How far many questions are, while they are asked: a bar in a notebook, a line on a terminal, nothing elsewhere."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from cloister.client.notebook.receipts import units_text
from cloister.wire.markup import Html, joined, tag

if TYPE_CHECKING:
    from cloister.client.many import Progress

__all__ = ["ProgressBar"]


class ProgressBar:
    """Takes what ``on_progress`` is told: ``client.infer_many(..., on_progress=ProgressBar())``.

    Make it in the cell that asks: its bar stands below that cell.
    """

    def __init__(self) -> None:
        """Find out where it is, and show that nothing is done yet."""
        self._handle = _cell()
        self._line = self._handle is None and sys.stderr.isatty()

    def __call__(self, progress: Progress) -> None:
        """Show how far it is. Safe from any thread, one at a time."""
        if self._handle is not None:
            self._handle.update(_Shown(progress))
        elif self._line:
            sys.stderr.write("\r" + _words(progress) + ("\n" if progress.done == progress.total else ""))
            sys.stderr.flush()


def _cell() -> Any:
    """Return what shows below the running cell; None outside of notebooks. IPython is never the first to import it."""
    if "IPython" not in sys.modules:
        return None
    shell = importlib.import_module("IPython").get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return importlib.import_module("IPython.display").display(_Shown(None), display_id=True)


class _Shown:
    """One state of the bar."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    def __repr__(self) -> str:
        return "asking" if self._progress is None else _words(self._progress)

    def _repr_html_(self) -> str:
        if self._progress is None:
            return tag("div", "asking")
        return bar_html(self._progress)


def bar_html(progress: Progress) -> Html:
    """Return the bar with its numbers beside it."""
    words = _words(progress)
    bar = tag("progress", max=str(progress.total), value=str(progress.done), aria_label=words)
    return tag("div", joined(bar, f" {words}"))


def _words(progress: Progress) -> str:
    left = units_text(progress.remaining)
    return f"{progress.done:,} of {progress.total:,} answered, {units_text(progress.units)} used, {left} remaining"
