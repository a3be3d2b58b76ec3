"""A pasted or uploaded table: separated values, with a line of names or without one.

Not done here: which columns a model has (``questionnaire``).
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["read_rows"]

_SEPARATORS = (",", ";", "\t")
_MAX_CELL_CHARS = 64 * 1024


def read_rows(text: str, names: Sequence[str], *, max_rows: int) -> list[list[str]]:
    """Return the cells of each row in the order of ``names``. Raises ``UsageError`` for what does not fit.

    A first line with all of the names puts the columns in any order, and may have more of them; one of numbers alone
    is no line of names. Empty lines count for nothing.
    """
    rows = _cells(text.removeprefix("\N{BYTE ORDER MARK}"), len(names), max_rows)
    if not rows:
        msg = "table: no rows"
        raise UsageError(msg)
    head = [cell.strip() for cell in rows[0]]
    if set(names) <= set(head) and len(set(head)) == len(head) and not all(map(_is_number, head)):
        at = [head.index(name) for name in names]
        rows = [_picked(row, at, len(head), number) for number, row in enumerate(rows[1:], start=2)]
    if not rows:
        msg = "table: names, but no rows"
        raise UsageError(msg)
    if len(rows) > max_rows:
        raise _too_many(max_rows)
    for number, row in enumerate(rows, start=1):
        if len(row) != len(names):
            msg = f"table: row {number} has {len(row)} columns, want {len(names)}"
            raise UsageError(msg, hint="a first line may name the columns: " + ", ".join(names)[:200])
    return rows


def _cells(text: str, width: int, max_rows: int) -> list[list[str]]:
    """Return every line that is not empty, split by the separator that fits its first line best."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = min(_SEPARATORS, key=lambda mark: abs(first.count(mark) + 1 - width))
    found: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True):
            if any(cell.strip() for cell in row):
                found.append([cell.strip() for cell in row])
            if len(found) > max_rows + 1:  # one of them may be names
                raise _too_many(max_rows)
            if any(len(cell) > _MAX_CELL_CHARS for cell in row):
                msg = f"table: a cell of over {_MAX_CELL_CHARS} characters"
                raise UsageError(msg)
    except csv.Error as exc:
        msg = "table: a line that is no separated values"
        raise UsageError(msg, hint="quotation marks come in pairs") from exc
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _picked(row: list[str], at: list[int], width: int, number: int) -> list[str]:
    if len(row) != width:
        msg = f"table: line {number} has {len(row)} columns, the first line {width}"
        raise UsageError(msg)
    return [row[index] for index in at]


def _too_many(max_rows: int) -> UsageError:
    return UsageError(f"table: over {max_rows} rows", hint="ask in parts, or with 'cloister infer --batch'")
