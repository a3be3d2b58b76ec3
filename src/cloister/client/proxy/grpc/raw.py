"""Tensors' bytes in a message, where they lie: taken out before it is parsed, put in after it is written.

A protobuf message is a row of fields, and what is repeated may stand anywhere in it (encoding guide, "Message
Structure"). Large tensors are one field each, so they need not go through the library, which copies them.
"""

from __future__ import annotations

from cloister.errors import Malformed

__all__ = ["join_raw", "split_raw"]

RAW_INPUT, RAW_OUTPUT = 7, 6  # numbers of the fields
MAX_PARTS = 256
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_MAX_VARINT = 10
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}


def split_raw(data: bytes) -> tuple[bytes, list[memoryview]]:
    """Return the message without its ``raw_input_contents``, and these. Raises ``Malformed``."""
    view, rest, found = memoryview(data), bytearray(), []
    position = 0
    while position < len(view):
        start = position
        key, position = _varint(view, position)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            _, position = _varint(view, position)
        elif kind == _BYTES:
            size, position = _varint(view, position)
            _demand(position + size <= len(view))
            if number == RAW_INPUT:
                found.append(view[position : position + size])
                _demand(len(found) <= MAX_PARTS)
                position += size
                continue
            position += size
        else:
            _demand(kind in _WIDTHS)
            position += _WIDTHS[kind]
            _demand(position <= len(view))
        rest += view[start:position]
    return bytes(rest), found


def join_raw(head: bytes, parts: list[memoryview]) -> bytes:
    """Return a response's bytes with ``parts`` as its ``raw_output_contents``."""
    pieces: list[bytes | memoryview] = [head]
    for part in parts:
        pieces += (bytes([RAW_OUTPUT << 3 | _BYTES]), _dump_varint(len(part)), part)
    return b"".join(pieces)


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for index in range(_MAX_VARINT):
        _demand(position < len(view))
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004 - the last one has no continuation bit
            return value, position
    raise Malformed("ModelInferRequest: a number of more than ten bytes")


def _dump_varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:  # noqa: PLR2004 - as above
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _demand(holds: bool) -> None:  # noqa: FBT001 - one condition
    if not holds:
        raise Malformed("ModelInferRequest: not the protocol's message")
