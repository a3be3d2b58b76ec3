"""DER as Intel's certificate extension uses it (ITU-T X.690 section 8 and 10): definite lengths, nested by hand.

Not done here: the rest of DER, which is the library's work.
"""

from __future__ import annotations

from typing import Final

from cloister.wire import Reader

__all__ = ["BOOLEAN", "ENUMERATED", "INTEGER", "OCTETS", "OID", "SEQUENCE", "take", "take_integer", "take_pairs"]

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
OCTETS: Final = 0x04
OID: Final = 0x06
ENUMERATED: Final = 0x0A
SEQUENCE: Final = 0x30
_LONG = 0x80
_MAX_LENGTH_BYTES = 2


def take(reader: Reader, tag: int) -> bytes:
    """Return the contents of the next element, of this tag and the shortest length. Raises ``Malformed``."""
    got, contents = _take_any(reader)
    if got != tag:
        reader.fail(f"tag {got:#04x}, want {tag:#04x}")
    return contents


def _take_any(reader: Reader) -> tuple[int, bytes]:
    tag, length = reader.u8(), reader.u8()
    if length & _LONG:
        size = length & ~_LONG
        if not 0 < size <= _MAX_LENGTH_BYTES:
            reader.fail(f"length of {size} bytes")
        length = reader.uint(size)
        if length < _LONG or length >> (8 * (size - 1)) == 0:
            reader.fail("length not in its shortest form")
    return tag, reader.take(length)


def take_integer(reader: Reader, *, cap: int) -> int:
    """Return an INTEGER of 0 to ``cap`` in its shortest form. Raises ``Malformed``."""
    contents = take(reader, INTEGER)
    value = int.from_bytes(contents, "big", signed=True)
    shortest = len(contents) == max(1, (value.bit_length() + 8) // 8)
    if not shortest or not 0 <= value <= cap:
        reader.fail(f"integer {contents.hex()[:32]}, want 0 to {cap}")
    return value


def take_pairs(data: bytes, *, what: str) -> dict[bytes, Reader]:
    """Read SEQUENCE { OID, value } to the end; return what follows each OID. Raises ``Malformed``, also for doubles."""
    reader = Reader(data, what=what)
    pairs: dict[bytes, Reader] = {}
    while reader.left:
        inner = Reader(take(reader, SEQUENCE), what=what)
        name = take(inner, OID)
        if name in pairs:
            reader.fail("object identifier twice")
        pairs[name] = inner
    return pairs
