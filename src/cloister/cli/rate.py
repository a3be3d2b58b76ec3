"""How fast long work goes, beside its bar."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import ProgressColumn
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Task

__all__ = ["Rate"]


class Rate(ProgressColumn):
    """How many of a unit go by in a second."""

    def __init__(self, unit: str) -> None:
        """Count in ``unit``."""
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """Return the rate; the unit alone before there is one."""
        return Text(f"{task.speed:,.1f} {self._unit}/s" if task.speed else self._unit)
