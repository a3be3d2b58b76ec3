"""Protocol Buffers on the wire, read front to back and never built up in memory.

Encoding: protobuf.dev/programming-guides/encoding. A message is walked by a table that says what each field is.
Refused beyond the encoding, for readers differ there: fields the table does not have, a field twice that may come
once (others take the last, or merge the two), groups, a field with another wire type. Fields are counted and nesting
is bounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloister.sealed.formats.window import Window

__all__ = ["Field", "Kind", "Message", "ProtoReader", "Span", "Table", "signed"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10
_MAX_FIELDS = 4_000_000  # of one file; repeats of a number in a row are counted once
_MAX_DEPTH = 64  # messages in one another
_MAX_TEXT_BYTES = 1 << 16  # a name that is kept
_MAX_KEPT_BYTES = 32 << 20  # all names that are kept, 64 bytes added for each
_MAX_NUMBERS = 4096  # numbers of one field that are kept: dimensions
_NUMBERS = {
    _VARINT: rb"(?:[\x80-\xff]{0,9}[\x00-\x7f])",
    _FIXED64: rb"[\x00-\xff]{8}",
    _FIXED32: rb"[\x00-\xff]{4}",
}


class Kind(Enum):
    """What a field holds: numbers by their encoding, text that is kept, bytes that are not, a message."""

    VARINT = auto()
    FIXED32 = auto()
    FIXED64 = auto()
    TEXT = auto()
    BYTES = auto()
    MESSAGE = auto()


_WIRE = {Kind.VARINT: _VARINT, Kind.FIXED32: _FIXED32, Kind.FIXED64: _FIXED64}


class Field(NamedTuple):
    """One field: name, what it holds, whether it may come again, whether it is kept, and the name of its message."""

    name: str
    kind: Kind
    repeated: bool = False
    kept: bool = False
    message: str = ""


Table: TypeAlias = "Mapping[str, Mapping[int, Field]]"


class Span(NamedTuple):
    """Bytes of a file that were passed over: where they begin and how many there are."""

    begin: int
    size: int


@dataclass(slots=True)
class Message:
    """One message once it was walked: what its table keeps, by name."""

    numbers: dict[str, list[int]] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    spans: dict[str, list[Span]] = field(default_factory=dict)
    messages: dict[str, list[Message]] = field(default_factory=dict)

    def number(self, name: str, default: int = 0) -> int:
        """Return a number that comes once."""
        return self.numbers.get(name, [default])[0]

    def text(self, name: str) -> str:
        """Return a text that comes once; empty where it does not."""
        return self.texts.get(name, [""])[0]

    def has(self, name: str) -> bool:
        """Tell whether the field came at all, even empty."""
        return any(name in kept for kept in (self.numbers, self.texts, self.spans, self.messages))


def signed(value: int) -> int:
    """Return a 64-bit varint as the signed number it stands for."""
    return value - (1 << 64) if value >> 63 else value


class ProtoReader:
    """Walks one file. ``done(name, message)`` is called for every message that ends, the inner ones first."""

    def __init__(self, window: Window, table: Table, done: Callable[[str, Message], None]) -> None:
        """Read from ``window`` by ``table``."""
        self._window = window
        self._table = table
        self._done = done
        self._fields_left = _MAX_FIELDS
        self._kept_left = _MAX_KEPT_BYTES
        self._end = window.position + window.left
        self.path: list[str] = []

    def read(self, name: str) -> Message:
        """Return the whole window as one message. Raises ``Malformed`` and what ``done`` raises."""
        return self._message(name, self._end)

    def _fail(self, detail: str) -> NoReturn:
        self._window.fail(f"{detail} (in {self.path[-1] if self.path else 'file'}, at {self._window.position})")

    def _message(self, name: str, end: int) -> Message:
        if len(self.path) >= _MAX_DEPTH:
            self._fail(f"messages nested deeper than {_MAX_DEPTH}")
        self.path.append(name)
        outer, self._end = self._end, end
        table, found, seen = self._table[name], Message(), set()
        window = self._window
        while window.position < end:
            tag = self._varint()
            number, wire = tag >> 3, tag & 7
            entry = table.get(number)
            if entry is None:
                self._fail(f"unknown field {number}")
            if not entry.repeated and number in seen:
                self._fail(f"field {entry.name} twice")
            seen.add(number)
            self._field(found, entry, tag, wire)
        if window.position != end:
            self._fail("a field runs over the end of its message")
        self._end = outer
        self._done(name, found)
        self.path.pop()
        return found

    def _field(self, found: Message, entry: Field, tag: int, wire: int) -> None:
        self._fields_left -= 1
        if self._fields_left < 0:
            self._fail(f"more than {_MAX_FIELDS} fields")
        want = _WIRE.get(entry.kind, _BYTES)
        if wire == _BYTES and (want == _BYTES or entry.repeated):
            self._delimited(found, entry)
        elif wire == want:
            value = self._number(wire)
            if entry.kept:
                self._keep(8)
                found.numbers.setdefault(entry.name, []).append(value)
                if len(found.numbers[entry.name]) > _MAX_NUMBERS:
                    self._fail(f"more than {_MAX_NUMBERS} numbers in {entry.name}")
            elif entry.repeated:
                self._run(tag, wire)
        else:
            self._fail(f"wire type {wire} for {entry.name}")

    def _delimited(self, found: Message, entry: Field) -> None:
        size = self._varint()
        window = self._window
        begin = window.position
        if size > self._end - begin:
            self._fail(f"{entry.name} of {size} bytes runs over the end of its message")
        if entry.kind is Kind.MESSAGE:
            message = self._message(entry.message, begin + size)
            if entry.kept:
                self._keep(0)
                found.messages.setdefault(entry.name, []).append(message)
        elif entry.kind is Kind.TEXT and entry.kept:
            found.texts.setdefault(entry.name, []).append(self._text(entry, size))
        elif entry.kind in _WIRE and entry.kept:
            self._packed(found, entry, begin + size)
        else:
            if entry.kept:
                self._keep(0)
                found.spans.setdefault(entry.name, []).append(Span(begin, size))
            window.skip(size)

    def _packed(self, found: Message, entry: Field, end: int) -> None:
        numbers = found.numbers.setdefault(entry.name, [])
        while self._window.position < end:
            self._keep(8)
            numbers.append(self._varint())
            if len(numbers) > _MAX_NUMBERS:
                self._fail(f"more than {_MAX_NUMBERS} numbers in {entry.name}")

    def _text(self, entry: Field, size: int) -> str:
        if size > _MAX_TEXT_BYTES:
            self._fail(f"{entry.name} of {size} bytes, want at most {_MAX_TEXT_BYTES}")
        self._keep(size)
        try:
            return self._window.take(size).decode("utf-8")
        except UnicodeDecodeError:
            self._fail(f"{entry.name} is not utf-8")

    def _keep(self, size: int) -> None:
        self._kept_left -= size + 64
        if self._kept_left < 0:
            self._fail(f"more than {_MAX_KEPT_BYTES} bytes of names")

    def _number(self, wire: int) -> int:
        if wire == _VARINT:
            return self._varint()
        return self._window.uint(8 if wire == _FIXED64 else 4)

    def _varint(self) -> int:
        block, at = self._window.block(_MAX_VARINT_BYTES)
        value = shift = 0
        for byte in block[at : at + _MAX_VARINT_BYTES]:
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:  # noqa: PLR2004 - the bit that says more follows
                break
        else:
            self._fail("a number that does not end")
        self._window.skip(shift // 7)
        return value & (1 << 64) - 1

    def _run(self, tag: int, wire: int) -> None:
        """Pass over repeats of the same field at the speed of a pattern: trees of a forest are millions of them."""
        if tag >= 0x80:  # noqa: PLR2004 - tags of two bytes are rare
            return
        pattern = _repeats(tag, wire)
        while True:
            block, at = self._window.block(1)
            stop = min(len(block), at + self._end - self._window.position)
            match = pattern.match(block, at, stop)
            taken = match.end() - at if match else 0
            self._window.skip(taken)
            if not taken:
                return


@cache
def _repeats(tag: int, wire: int) -> re.Pattern[bytes]:
    # Bounded, for each repeat is remembered. Possessive quantifiers remember none, but are broken before Python 3.11.5.
    return re.compile(b"(?:" + re.escape(bytes([tag])) + _NUMBERS[wire] + b"){0,4096}", re.DOTALL)
