"""TTLV, the encoding of KMIP: tag, type, length, value, filled up to eight bytes (KMIP 1.4 section 9.1).

Messages of our own are written, answers of servers are read: exact, bounded, to the end.

Not done here: which items a message has (``kmip_messages``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Final, TypeAlias

from cloister.errors import Malformed
from cloister.wire import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HEADER_BYTES", "MAX_MESSAGE_BYTES", "Item", "Kind", "dump", "parse", "size_of"]

MAX_MESSAGE_BYTES: Final = 64 * 1024
HEADER_BYTES: Final = 8
_MAX_DEPTH = 8  # structures in structures; our messages have five
_MAX_ITEMS = 1024
_UNIT = 8
_WHAT = "kmip message"


class Kind(IntEnum):
    """The types of items (section 9.1.1.2)."""

    STRUCTURE = 1
    INTEGER = 2
    LONG_INTEGER = 3
    BIG_INTEGER = 4
    ENUMERATION = 5
    BOOLEAN = 6
    TEXT_STRING = 7
    BYTE_STRING = 8
    DATE_TIME = 9
    INTERVAL = 10


_FIXED: Final = {
    Kind.INTEGER: 4, Kind.LONG_INTEGER: 8, Kind.ENUMERATION: 4, Kind.BOOLEAN: 8, Kind.DATE_TIME: 8, Kind.INTERVAL: 4,
}  # fmt: skip
_SIGNED: Final = frozenset({Kind.INTEGER, Kind.LONG_INTEGER, Kind.BIG_INTEGER, Kind.DATE_TIME})

Value: TypeAlias = "int | str | bytes | tuple[Item, ...]"


@dataclass(frozen=True, slots=True)
class Item:
    """One item. It never prints its value, which may be a key."""

    tag: int
    kind: Kind
    value: Value = field(repr=False)

    def all(self, tag: int) -> Iterator[Item]:
        """Return the items of that tag in a structure, none where this is no structure."""
        return (item for item in self.value if item.tag == tag) if isinstance(self.value, tuple) else iter(())

    def find(self, tag: int) -> Item | None:
        """Return the one item of that tag in a structure. Raises ``Malformed`` for several."""
        found = list(self.all(tag))
        if len(found) > 1:
            msg = f"{_WHAT}: {len(found)} items {tag:06x}, want one"
            raise Malformed(msg)
        return found[0] if found else None

    def take(self, tag: int) -> Item:
        """Return the one item of that tag in a structure. Raises ``Malformed`` for none or several."""
        found = self.find(tag)
        if found is None:
            msg = f"{_WHAT}: no item {tag:06x} in {self.tag:06x}"
            raise Malformed(msg)
        return found

    def number(self, kind: Kind) -> int:
        """Return the value of an item of this kind of number. Raises ``Malformed``."""
        if self.kind is not kind or not isinstance(self.value, int):
            raise self._other(kind)
        return self.value

    def text(self) -> str:
        """Return the value of a text string. Raises ``Malformed``."""
        if not isinstance(self.value, str):
            raise self._other(Kind.TEXT_STRING)
        return self.value

    def raw(self) -> bytes:
        """Return the value of a byte string. Raises ``Malformed``."""
        if not isinstance(self.value, bytes):
            raise self._other(Kind.BYTE_STRING)
        return self.value

    def _other(self, want: Kind) -> Malformed:
        return Malformed(f"{_WHAT}: item {self.tag:06x} is {self.kind.name.lower()}, want {want.name.lower()}")


def dump(item: Item) -> bytes:
    """Return the encoding of an item."""
    data = _dump_value(item)
    header = item.tag.to_bytes(3, "big") + bytes([item.kind]) + len(data).to_bytes(4, "big")
    return header + data + bytes(-len(data) % _UNIT)


def _dump_value(item: Item) -> bytes:
    value = item.value
    if isinstance(value, tuple):
        return b"".join(map(dump, value))
    if isinstance(value, int):
        return value.to_bytes(_FIXED[item.kind], "big", signed=item.kind in _SIGNED)
    return value.encode() if isinstance(value, str) else value


def size_of(header: bytes, *, tag: int) -> int:
    """Return how many bytes follow the first eight of a message that is an item ``tag``. Raises ``Malformed``."""
    reader = Reader(header, what=_WHAT)
    reader.expect(tag.to_bytes(3, "big") + bytes([Kind.STRUCTURE]))
    size = reader.u32()
    if size > MAX_MESSAGE_BYTES - HEADER_BYTES:
        reader.fail(f"{size} bytes, want at most {MAX_MESSAGE_BYTES - HEADER_BYTES}")
    if size % _UNIT:
        reader.fail("a structure that is not filled up")
    reader.rest()
    return size


def parse(data: bytes) -> Item:
    """Return the item that ``data`` is, all of it. Raises ``Malformed`` and nothing else."""
    reader = Reader(data, what=_WHAT)
    if reader.left > MAX_MESSAGE_BYTES:
        reader.fail(f"{reader.left} bytes, want at most {MAX_MESSAGE_BYTES}")
    item = _Parser().item(reader, 0)
    if reader.left:
        reader.fail(f"{reader.left} bytes after the end")
    return item


class _Parser:
    """Counts what it has read: a message of nothing but headers would become many objects."""

    def __init__(self) -> None:
        self._items = 0

    def item(self, reader: Reader, depth: int) -> Item:
        """Return the next item."""
        self._items += 1
        if depth > _MAX_DEPTH or self._items > _MAX_ITEMS:
            reader.fail("too deep, or too many items")
        tag, kind = reader.uint(3), _kind(reader)
        size = reader.u32()
        if size != _FIXED.get(kind, size):
            reader.fail(f"{kind.name.lower()} of {size} bytes")
        value = self._value(reader, kind, reader.take(size), depth)
        if any(reader.take(-size % _UNIT)):
            reader.fail("filled up with something else than zeros")
        return Item(tag, kind, value)

    def _value(self, reader: Reader, kind: Kind, data: bytes, depth: int) -> Value:
        if kind is Kind.STRUCTURE:
            inner = Reader(data, what=_WHAT)
            items = []
            while inner.left:
                items.append(self.item(inner, depth + 1))
            return tuple(items)
        if kind is Kind.BYTE_STRING:
            return data
        if kind is Kind.TEXT_STRING:
            return _text(reader, data)
        number = int.from_bytes(data, "big", signed=kind in _SIGNED)
        if kind is Kind.BOOLEAN and number not in (0, 1):
            reader.fail("a boolean that is neither")
        return number


def _kind(reader: Reader) -> Kind:
    number = reader.u8()
    try:
        return Kind(number)
    except ValueError:
        reader.fail(f"an item of type {number}")


def _text(reader: Reader, data: bytes) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = None  # the error stays here: it holds the bytes, which may be a key
    return reader.fail("a text that is none") if text is None else text
