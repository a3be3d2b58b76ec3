"""What a terminal can show: cells of text, bars, sparklines; in plain ASCII where its encoding can do no more.

Text of others becomes one line of printable characters here, before it is cut and padded by the width it takes (T84).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ASCII", "FULL", "Glyphs", "glyphs_for"]

_CHARACTERS_A_CELL = 4  # of one text: marks that take no room could be any number


@dataclass(frozen=True, slots=True, kw_only=True)
class Glyphs:
    """A set of characters to draw with. ``heights`` rise; the first says zero."""

    ascii_only: bool
    full: str
    empty: str
    heights: str
    unknown: str
    cut: str
    odd: str
    rule: str

    def line(self, text: str, *, most: int = 400) -> str:
        """Return a text of others as one line that steers nothing: what cannot be shown is shown as ``odd``."""
        shown = "".join(one if one.isprintable() else self.odd for one in text[:most])
        return shown.encode("ascii", "replace").decode("ascii") if self.ascii_only else shown

    def cell(self, text: str, width: int, *, right: bool = False) -> str:
        """Return a text in exactly ``width`` columns: padded, or cut with a sign that it was."""
        shown = self.line(text, most=max(1, width) * _CHARACTERS_A_CELL + 1)
        if cell_len(shown) > width:
            return set_cell_size(shown, max(0, width - 1)) + self.cut if width > 0 else ""
        pad = " " * (width - cell_len(shown))
        return pad + shown if right else shown + pad

    def bar(self, part: float, width: int) -> str:
        """Return a bar of which ``part`` (0 to 1) is full. Any part shows, and so does any that is missing."""
        filled = round(max(0.0, min(1.0, part)) * width)
        if width > 1 and 0 < part < 1:
            filled = max(1, min(width - 1, filled))
        return self.full * filled + self.empty * (width - filled)

    def spark(self, values: Sequence[float | None], width: int) -> str:
        """Return values as heights below the highest; None is unknown. More than ``width`` are averaged."""
        shown = _averaged(values, width) if len(values) > width else values
        top = max((value for value in shown if value is not None), default=0.0)
        line = "".join(self.unknown if value is None else self._height(value, top) for value in shown)
        return self.unknown * (width - len(shown)) + line

    def _height(self, value: float, top: float) -> str:
        if value <= 0 or top <= 0:
            return self.heights[0]
        return self.heights[max(1, round(value / top * (len(self.heights) - 1)))]


def _averaged(values: Sequence[float | None], width: int) -> list[float | None]:
    """Return ``width`` averages over equal parts of the values, of what is known of each."""
    found: list[float | None] = []
    for number in range(width):
        first, last = number * len(values) // width, (number + 1) * len(values) // width
        known = [value for value in values[first:last] if value is not None]
        found.append(sum(known) / len(known) if known else None)
    return found


FULL = Glyphs(
    ascii_only=False, full="█", empty="░", heights="▁▂▃▄▅▆▇█", unknown=" ", cut="…", odd="\N{REPLACEMENT CHARACTER}",
    rule="─",
)  # fmt: skip
ASCII = Glyphs(
    ascii_only=True, full="#", empty="-", heights="_.:-=+*#", unknown=" ", cut="~", odd="?", rule="-",
)  # fmt: skip


def glyphs_for(encoding: str) -> Glyphs:
    """Return what a terminal of this encoding can show."""
    return FULL if encoding.lower().replace("_", "-").startswith("utf") else ASCII
