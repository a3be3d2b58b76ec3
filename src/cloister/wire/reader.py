"""Byte strings read front to back, and QUIC variable-length integers (RFC 9000 section 16)."""

from __future__ import annotations

from typing import NoReturn

from cloister.errors import Malformed, UsageError

__all__ = ["Reader", "dump_varint", "lp"]

MAX_VARINT = 2**62 - 1  # RFC 9000 section 16
_VARINT_1, _VARINT_2, _VARINT_4 = 1 << 6, 1 << 14, 1 << 30
_SMALL = tuple(bytes((number,)) for number in range(_VARINT_1))


class Reader:
    """Reads a byte string front to back; ``what`` names it in errors.

    Nothing is copied beyond the part asked for; a length is compared with what is left before
    anything is taken.
    """

    __slots__ = ("_data", "_pos", "_what")

    def __init__(self, data: bytes | memoryview, *, what: str) -> None:
        """Start at the front of ``data``."""
        self._data = memoryview(data)
        self._pos = 0
        self._what = what

    @property
    def left(self) -> int:
        """Bytes not yet taken."""
        return len(self._data) - self._pos

    @property
    def position(self) -> int:
        """Bytes taken so far."""
        return self._pos

    def fail(self, detail: str) -> NoReturn:
        """Raise ``Malformed`` about this byte string."""
        msg = f"{self._what}: {detail}"
        raise Malformed(msg)

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes. Raises ``Malformed`` when fewer are left."""
        if size < 0 or size > self.left:
            self.fail(f"{self.left} bytes left at {self._pos}, want {size}")
        part = bytes(self._data[self._pos : self._pos + size])
        self._pos += size
        return part

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(self.left)

    def expect(self, literal: bytes) -> None:
        """Take ``literal`` or fail."""
        if self.take(len(literal)) != literal:
            self.fail(f"want {literal.hex()} at {self._pos - len(literal)}")

    def uint(self, size: int, *, little: bool = False) -> int:
        """Return an unsigned integer of ``size`` bytes, big-endian unless ``little``."""
        return int.from_bytes(self.take(size), "little" if little else "big")

    def u8(self) -> int:
        """Return one byte as an integer."""
        return self.uint(1)

    def u16(self) -> int:
        """Return a big-endian 16-bit integer."""
        return self.uint(2)

    def u32(self) -> int:
        """Return a big-endian 32-bit integer."""
        return self.uint(4)

    def u64(self) -> int:
        """Return a big-endian 64-bit integer."""
        return self.uint(8)

    def varint(self) -> int:
        """Return a QUIC variable-length integer; any of its encodings is allowed (RFC 9000 section 16)."""
        first = self.u8()
        size = 1 << (first >> 6)
        return ((first & 0x3F) << (8 * (size - 1))) | self.uint(size - 1)

    def prefixed(self, size_bytes: int, *, cap: int) -> bytes:
        """Return a byte string with a big-endian length of ``size_bytes`` in front, at most ``cap`` bytes."""
        return self._bounded(self.uint(size_bytes), cap)

    def prefixed_varint(self, *, cap: int) -> bytes:
        """Return a byte string with a varint length in front, at most ``cap`` bytes."""
        return self._bounded(self.varint(), cap)

    def _bounded(self, size: int, cap: int) -> bytes:
        if size > cap:
            self.fail(f"part of {size} bytes at {self._pos}, want at most {cap}")
        return self.take(size)

    def end(self) -> None:
        """Fail unless everything was taken."""
        if self.left:
            self.fail(f"{self.left} bytes after the end")


def dump_varint(value: int) -> bytes:
    """Return ``value`` as the shortest QUIC variable-length integer (RFC 9000 section 16)."""
    if 0 <= value < _VARINT_1:
        return _SMALL[value]
    if value < 0 or value > MAX_VARINT:
        msg = f"varint: {value} is outside 0..2**62-1"
        raise UsageError(msg)
    if value < _VARINT_2:
        return (value | 0x4000).to_bytes(2, "big")
    if value < _VARINT_4:
        return (value | 0x8000_0000).to_bytes(4, "big")
    return (value | 0xC000_0000_0000_0000).to_bytes(8, "big")


def lp(*parts: bytes) -> bytes:
    """Return the parts one after another, each with its length as four big-endian bytes in front."""
    return b"".join([piece for part in parts for piece in (len(part).to_bytes(4, "big"), part)])
