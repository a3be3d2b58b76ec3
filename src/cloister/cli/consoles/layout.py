"""Lines of a frame: tables whose columns share the width, a head, a foot. Everything is cut to the width it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloister.cli.consoles.glyphs import Glyphs

__all__ = ["BAD", "FAINT", "GOOD", "HEAD", "STRONG", "WARN", "Cell", "Column", "Table", "cut", "fitted", "split_line"]

STRONG, FAINT, HEAD, GOOD, WARN, BAD = "bold", "dim", "bold underline", "green", "yellow", "bold red"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of ``least`` to ``most`` columns of text. Where there is no room, those of the lowest ``rank`` go."""

    title: str
    least: int
    most: int
    rank: int = 9
    right: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A text in a row. ``drawn`` is ours and takes the width it is given, a bar for one."""

    text: str = ""
    style: str = ""
    part: float | None = None
    """Draw a bar of this part."""
    spark: Sequence[float | None] | None = None
    """Draw these as a sparkline."""


class Table:
    """Columns that were given their widths."""

    def __init__(self, columns: Iterable[Column], width: int, glyphs: Glyphs) -> None:
        """Share ``width`` among the columns, one column of text between two."""
        self._glyphs = glyphs
        self._columns = [*columns]
        kept = sorted(range(len(self._columns)), key=lambda number: (-self._columns[number].rank, number))
        while len(kept) > 1 and sum(self._columns[number].least + 1 for number in kept) - 1 > width:
            kept.pop()
        self._widths = {number: self._columns[number].least for number in sorted(kept)}
        left = width - sum(self._widths.values()) - len(kept) + 1
        while left > 0 and (growing := [one for one, size in self._widths.items() if size < self._columns[one].most]):
            for number in growing[:left]:
                self._widths[number] += 1
            left -= min(left, len(growing))

    def head(self) -> Text:
        """Return the titles."""
        return self.row([Cell(text=column.title, style=HEAD) for column in self._columns])

    def row(self, cells: Sequence[Cell], *, style: str = "") -> Text:
        """Return a row, of one cell for each column."""
        line = Text(style=style, no_wrap=True)
        for number, width in self._widths.items():
            if line.plain:
                line.append(" ")
            cell = cells[number]
            line.append(self._drawn(cell, width, right=self._columns[number].right), style=cell.style)
        return line

    def _drawn(self, cell: Cell, width: int, *, right: bool) -> str:
        if cell.part is not None:
            return self._glyphs.bar(cell.part, width)
        if cell.spark is not None:
            return self._glyphs.spark(cell.spark, width)
        return self._glyphs.cell(cell.text, width, right=right)


def cut(line: Text, width: int) -> Text:
    """Return a line that is no wider than ``width``."""
    line.no_wrap = True
    line.truncate(width, overflow="crop")
    return line


def fitted(lines: Sequence[Text], foot: Text | None, *, width: int, height: int) -> list[Text]:
    """Return the lines cut to a size; with ``foot`` as the last one, below what is left empty."""
    if foot is None:
        return [cut(line, width) for line in lines[:height]]
    kept = [cut(line, width) for line in lines[: height - 1]]
    return [*kept, *(Text("") for _ in range(height - 1 - len(kept))), cut(foot, width)]


def split_line(left: Text, right: Text, width: int) -> Text:
    """Return a line with something at its left and its right end; the left gives way."""
    room = max(0, width - cell_len(right.plain) - 1)
    left.truncate(room, overflow="crop")
    gap = max(1, width - cell_len(left.plain) - cell_len(right.plain))
    return cut(Text.assemble(left, " " * gap, right, no_wrap=True), width)
