"""A plot in the terminal: points on a grid of braille dots, two by four to a character, or of ASCII marks."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloister.cli.consoles.glyphs import Glyphs

__all__ = ["Canvas", "framed"]

_BRAILLE = 0x2800
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # by column and row of a character, from above
_ACROSS, _DOWN = 2, 4
_DASH = 6  # steps of a dash and its gap


class Canvas:
    """A grid of ``width`` by ``height`` characters. Places are parts (0 to 1), from the left and from below."""

    def __init__(self, width: int, height: int, glyphs: Glyphs) -> None:
        """Start empty."""
        self._glyphs = glyphs
        self._across, self._down = (1, 1) if glyphs.ascii_only else (_ACROSS, _DOWN)
        self._width, self._height = max(1, width), max(1, height)
        self._cells = [[0] * self._width for _ in range(self._height)]
        self._marks = [[" "] * self._width for _ in range(self._height)]

    def curve(self, points: Sequence[tuple[float, float]], *, mark: str = "*", dashed: bool = False) -> None:
        """Draw straight lines from point to point; what lies outside is left out."""
        for (left, first), (right, last) in itertools.pairwise(points):
            steps = 2 * max(1, round(abs(right - left) * self._width * self._across), self._rise(first, last))
            for step in range(steps + 1):
                if not dashed or step % _DASH < _DASH // 2:
                    part = step / steps
                    self._set(left + (right - left) * part, first + (last - first) * part, mark)

    def column(self, place: float, mark: str) -> None:
        """Draw a dotted line from below to above."""
        for row in range(0, self._height * self._down, 2):
            self._set(place, row / max(1, self._height * self._down - 1), mark)

    def lines(self) -> list[str]:
        """Return the rows, from above."""
        if self._glyphs.ascii_only:
            return ["".join(row) for row in self._marks]
        return ["".join(chr(_BRAILLE + cell) if cell else " " for cell in row) for row in self._cells]

    def _rise(self, first: float, last: float) -> int:
        return round(abs(last - first) * self._height * self._down)

    def _set(self, across: float, up: float, mark: str) -> None:
        if not (0 <= across <= 1 and 0 <= up <= 1):
            return
        column = min(self._width * self._across - 1, int(across * self._width * self._across))
        row = min(self._height * self._down - 1, int((1 - up) * self._height * self._down))
        x, y = column // self._across, row // self._down
        self._cells[y][x] |= _DOTS[column % self._across][row % self._down] if self._across == _ACROSS else 1
        self._marks[y][x] = mark


def framed(
    canvas: Canvas, *, left: tuple[str, str, str], below: Iterable[tuple[float, str]], width: int, glyphs: Glyphs
) -> list[str]:
    """Return a plot with its axes: words at the top, middle and bottom of the left one, and below at parts of it."""
    rows = canvas.lines()
    margin = max(len(word) for word in left)
    named = {0: left[0], len(rows) // 2: left[1], len(rows) - 1: left[2]}
    upright, corner = ("|", "+") if glyphs.ascii_only else ("│", "└")
    lines = [f"{named.get(number, ''):>{margin}} {upright}{row}" for number, row in enumerate(rows)]
    inside = max(1, width - margin - 2)
    lines.append(f"{'':>{margin}} {corner}{glyphs.rule * inside}")
    axis = [" "] * inside
    for part, word in below:
        start = max(0, min(inside - len(word), round(part * inside) - len(word) // 2))
        if all(one == " " for one in axis[max(0, start - 1) : start + len(word) + 1]):
            axis[start : start + len(word)] = word[: inside - start]
    return [*lines, f"{'':>{margin}}  {''.join(axis)}"]
