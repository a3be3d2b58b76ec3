"""Values of one tensor as a person writes them: nested lists, lines of numbers, lines of text.

Read front to back into one flat list, bounded while it grows: no list within a list is ever made, so deep, ragged and
empty ones cost nothing. A fault names the input, the position, what is there and what is wanted. Not done here: which
shape a model takes (``tensors``).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from cloister.client.datatypes import element_type
from cloister.errors import UsageError

if TYPE_CHECKING:
    from cloister.client.datatypes import Array
    from cloister.client.model_info import TensorInfo

__all__ = ["MAX_RANK", "NAN_HINT", "Reading", "number_lines", "reading", "text_lines", "written"]

MAX_RANK = 16  # dimensions of a tensor, as the enclave's metadata may have
NAN_HINT = "a gap is taken only where 'NaN is meant' is ticked; infinity never is"

_TEXT, _BF16, _BOOL = "BYTES", "BF16", "BOOL"
_MOST_CHARS = 64  # of one number
_SHOWN = 40
_BF16_MOST = float(np.uint32(0x7F7F0000).view(np.float32))
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"[+-]?[0-9]+")
_GAPS = frozenset({"", "na", "nan", "n/a", "null", "none", "missing"})
_TRUTH = {"1": True, "0": False, "true": True, "false": False, "yes": True, "no": False}
_TOKEN = re.compile(r'[ \t\r\n]*(?:([\[\],])|(")|([^\s\[\],"]+))')
# Of a string behind its quotation mark. Bounded, for each repeat is remembered; possessive quantifiers remember none,
# but are broken before Python 3.11.5.
_STRETCH = re.compile(r'[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*){0,4096}')
_NAME = re.compile(r'"? *[^\W\d]')


class NotTaken(Exception):
    """One word is no value: what it is and what is wanted. So that a place is only spelled where it is told."""

    def __init__(self, text: str, want: str, *, hint: str | None = None) -> None:
        """Tell of ``text``."""
        super().__init__(want)
        self.got = repr(text[:_SHOWN]) if text else "nothing"
        self.want, self.hint = want, hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the values of one tensor are read: what each may be, and how many there may be.

    ``low`` and ``high`` bound a number; ``gaps`` tells whether one may be missing (NaN).
    """

    name: str
    datatype: str
    carrier: np.dtype[np.generic]
    low: float
    high: float
    gaps: bool
    most: int

    @property
    def is_text(self) -> bool:
        """Whether values are words."""
        return self.datatype == _TEXT

    @property
    def is_float(self) -> bool:
        """Whether values may have a fraction."""
        return self.carrier.kind == "f"

    def value(self, text: str) -> object:
        """Return what one word of a text says. Raises ``NotTaken``."""
        word = text.lower()
        if self.is_text:
            raise NotTaken(text, "a string in quotation marks")
        if self.datatype == _BOOL:
            if word not in _TRUTH:
                raise NotTaken(text, "true or false")
            return _TRUTH[word]
        if word in _GAPS and self.is_float:
            if not self.gaps:
                raise NotTaken(text, "a number", hint=NAN_HINT)
            return float("nan")
        if len(text) > _MOST_CHARS or not (_NUMBER if self.is_float else _WHOLE).fullmatch(text):
            raise NotTaken(text, "a number, with a point" if self.is_float else "a whole number")
        value = float(text) if self.is_float else int(text)
        if not self.low <= value <= self.high:
            raise NotTaken(text, f"{self.low:g} to {self.high:g}" if self.is_float else self._span())
        return value

    def _span(self) -> str:
        return f"{int(self.low)} to {int(self.high)}"

    def refuse(self, place: str, got: str, want: str, *, hint: str | None = None) -> NoReturn:
        """Refuse what is at ``place``."""
        msg = f"input {self.name[:80]}{place and ', '}{place}: {got}, want {want}"
        raise UsageError(msg, hint=hint)

    def array(self, values: list[object], shape: tuple[int, ...]) -> Array:
        """Return the values as an array that the client takes for this type."""
        found: Array = np.empty(len(values), dtype=self.carrier)
        found[:] = values
        return found.reshape(shape)


def reading(tensor: TensorInfo, *, gaps: bool, most: int) -> Reading:
    """Return how the values of ``tensor`` are read, at most ``most``. 8-bit floats are read as their bits."""
    kind = element_type(tensor.datatype)
    low, high = -float("inf"), float("inf")
    carrier: np.dtype[np.generic] = kind
    if tensor.datatype == _BF16:
        low, high, carrier = -_BF16_MOST, _BF16_MOST, np.dtype(np.float64)
    elif kind.kind == "f":
        low, high, carrier = float(np.finfo(kind).min), float(np.finfo(kind).max), np.dtype(np.float64)
    elif kind.kind in "iu":
        low, high = np.iinfo(kind).min, np.iinfo(kind).max
    return Reading(
        name=tensor.name, datatype=tensor.datatype, carrier=carrier, low=low, high=high, gaps=gaps, most=most
    )


def written(text: str, how: Reading) -> Array:
    """Return nested lists, or one flat list, as an array of their shape. Raises ``UsageError``."""
    lists = _Lists(how)
    at = 0
    while (found := _TOKEN.match(text, at)) is not None:
        mark, quote, word = found.groups()
        end = found.end() if quote is None else _string_end(text, found.end())
        if end is None:
            break
        at = end
        lists.take(mark, None if quote is None else text[found.start(2) : end], word)
    if text[at:].strip(" \t\r\n"):
        how.refuse(lists.place, repr(text[at : at + _SHOWN].strip()), lists.wanted())
    return lists.end()


def _string_end(text: str, at: int) -> int | None:
    """Return where a string ends whose first character is at ``at``, None where it does not."""
    while (found := _STRETCH.match(text, at)) is not None and found.end() > at:
        at = found.end()
    return at + 1 if text.startswith('"', at) else None


class _Lists:
    """Lists within lists while they are read: where one is, and the size that all lists of a depth have."""

    def __init__(self, how: Reading) -> None:
        self._how = how
        self._values: list[object] = []
        self._at: list[int] = []  # the index in each list that is open
        self._sizes: list[int] = []  # of each depth, 0 where none has ended
        self._depth: int | None = None  # of the values
        self._wants_value = True
        self._just_opened = False

    @property
    def place(self) -> str:
        """Where one is, as an index."""
        return "at " + "".join(f"[{index}]" for index in self._at) if self._at else ""

    def take(self, mark: str | None, string: str | None, word: str | None) -> None:
        """Take the next bracket, comma, string or other word."""
        closes_empty = mark == "]" and self._just_opened
        self._just_opened = mark == "["
        if closes_empty:
            self._how.refuse(self._above(), "an empty list", "values")
        if (mark in {",", "]"}) == self._wants_value or (not self._at and not self._wants_value):
            got = mark or string or word or ""
            self._how.refuse(self.place, repr(got[:_SHOWN]), self.wanted())
        match mark:
            case "[":
                self._open()
            case ",":
                self._at[-1] += 1
                self._wants_value = True
            case "]":
                self._close()
            case _:
                self._add(string, word or "")

    def end(self) -> Array:
        """Return the array, once the text is at its end."""
        if self._at or self._wants_value:
            self._how.refuse(self.place, "the end", self.wanted())
        return self._how.array(self._values, tuple(self._sizes))

    def wanted(self) -> str:
        """Return what may come next."""
        if self._wants_value:
            return "a value"
        return "a comma or a bracket" if self._at else "the end"

    def _above(self) -> str:
        return "at " + "".join(f"[{index}]" for index in self._at[:-1]) if self._at[:-1] else ""

    def _open(self) -> None:
        if len(self._at) == self._depth:
            self._how.refuse(self.place, "a list", "a value, as before it")
        if len(self._at) == MAX_RANK:
            self._how.refuse(self.place, "another list", f"lists at most {MAX_RANK} deep")
        self._at.append(0)
        if len(self._at) > len(self._sizes):
            self._sizes.append(0)

    def _close(self) -> None:
        level, size = len(self._at) - 1, self._at[-1] + 1
        if self._sizes[level] not in (0, size):
            self._how.refuse(self._above(), _counted(size), f"{self._sizes[level]}, as in the first list")
        self._sizes[level] = size
        self._at.pop()
        self._wants_value = False

    def _add(self, string: str | None, word: str) -> None:
        if self._depth is None:
            self._depth = len(self._at)
        if len(self._at) != self._depth:
            self._how.refuse(self.place, (string or word)[:_SHOWN], "a list, as before it")
        if len(self._values) == self._how.most:
            self._how.refuse(self.place, "another value", f"at most {self._how.most} in all")
        try:
            self._values.append(self._string(string) if string is not None else self._how.value(word))
        except NotTaken as exc:
            self._how.refuse(self.place, exc.got, exc.want, hint=exc.hint)
        self._wants_value = False

    def _string(self, quoted: str) -> str:
        if not self._how.is_text:
            raise NotTaken(quoted, "a number without quotation marks")
        try:
            return str(json.loads(quoted))
        except ValueError as exc:  # a backslash before what needs none
            raise NotTaken(quoted, "a string of json") from exc


def _counted(size: int) -> str:
    return f"{size} value" if size == 1 else f"{size} values"


def number_lines(text: str, how: Reading) -> Array:
    """Return numbers, a row on each line, by commas, semicolons, tabs or spaces. Raises ``UsageError``.

    One line, or one number on each, is one flat list. A first line of names alone counts for nothing, as empty ones do.
    """
    lines = [(number, line.strip()) for number, line in enumerate(_split(text, how), start=1) if line.strip()]
    if not lines:
        how.refuse("", "nothing", "values")
    mark = next((mark for mark in (";", "\t", ",") if mark in lines[0][1]), None)
    if len(lines) > 1 and all(map(_is_name, _cells(lines[0][1].removeprefix("#"), mark, how.most))):
        del lines[0]
    values: list[object] = []
    width = len(_cells(lines[0][1], mark, how.most))
    for number, line in lines:
        cells = _cells(line, mark, how.most)
        if len(cells) != width:
            how.refuse(f"line {number}", _counted(len(cells)), f"{width}, as on the first line")
        if len(values) + width > how.most:
            how.refuse(f"line {number}", _counted(len(values) + width), f"at most {how.most} in all")
        try:
            for cell in cells:
                values.append(how.value(cell.strip()))  # noqa: PERF401 - how far it came is where the fault is
        except NotTaken as exc:
            how.refuse(f"line {number}, value {len(values) % width + 1}", exc.got, exc.want, hint=exc.hint)
    return how.array(values, (len(values),) if 1 in (width, len(lines)) else (len(lines), width))


def _cells(line: str, mark: str | None, most: int) -> list[str]:
    """Return the cells of a line, the rest in one beyond ``most``: more would be refused, and take memory."""
    return line.split(mark, most)


def _is_name(cell: str) -> bool:
    """Tell whether a cell is a column's name; what may be meant as a value is none."""
    text = cell.strip()
    try:
        float(text)
    except ValueError:
        return _NAME.match(text) is not None and text.lower() not in _GAPS | _TRUTH.keys()
    return False


def text_lines(text: str, how: Reading) -> Array:
    """Return each line as one text, just as it is; one at the end that is empty is none. Raises ``UsageError``."""
    lines = _split(text, how)
    if not lines[-1]:
        del lines[-1]
    if not lines:
        how.refuse("", "nothing", "a text on each line")
    return how.array(list(lines), (len(lines),))


def _split(text: str, how: Reading) -> list[str]:
    """Return the lines, refused before they are split where there are too many."""
    text = text.removeprefix("\N{BYTE ORDER MARK}").replace("\r\n", "\n")
    count = text.count("\n")
    if count > how.most:
        how.refuse("", f"{count} lines", f"at most {how.most}")
    return text.split("\n")
