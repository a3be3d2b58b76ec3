"""PE images: sections and Authenticode digest (Microsoft PE Format; Windows Authenticode Portable Executable).

What UEFI firmware measures of an image it loads is that digest: over the file without its checksum, without the entry
that points at its signatures, and without the signatures (TCG PC Client Platform Firmware Profile 1.06 section 3.3.4).

Not done here: signatures, and whether an image runs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.attest.tpm.algorithms import Alg, hash_of
from cloister.errors import Malformed
from cloister.wire import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_IMAGE_BYTES", "PeImage", "Section"]

MAX_IMAGE_BYTES = 1 << 30  # bytes of one image; unified kernel images have tens of megabytes
MAX_SECTIONS = 96  # what the format allows an image
_DOS_HEADER_BYTES = 64
_PE32, _PE32_PLUS = 0x10B, 0x20B
_CHECKSUM_AT, _CHECKSUM_BYTES = 64, 4  # in the optional header
_HEADERS_SIZE_AT = 60
_DIRECTORIES_AT = {_PE32: 96, _PE32_PLUS: 112}
_DIRECTORY_BYTES = 8
_SECURITY = 4  # index of the directory of signatures
_MAX_DIRECTORIES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section: where its bytes are in the file, and how many it has in memory."""

    name: str
    offset: int
    raw_size: int
    virtual_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PeImage:
    """One image. ``checksum`` and ``security`` are offsets in the file; ``security`` is None where it has no entry."""

    data: bytes
    headers: int
    checksum: int
    security: int | None
    signatures: int
    sections: tuple[Section, ...]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse the headers; what they name is in the file, no two sections share a byte. Raises ``Malformed``."""
        if len(data) > MAX_IMAGE_BYTES:
            msg = f"pe image: {len(data)} bytes, want at most {MAX_IMAGE_BYTES}"
            raise Malformed(msg)
        reader = Reader(data, what="pe image")
        reader.expect(b"MZ")
        reader.take(_DOS_HEADER_BYTES - 6)
        start = reader.uint(4, little=True)
        if start < _DOS_HEADER_BYTES:
            reader.fail(f"pe header at {start}")
        reader.take(start - _DOS_HEADER_BYTES)
        reader.expect(b"PE\x00\x00")
        reader.take(2)  # machine
        count = reader.uint(2, little=True)
        if not 0 < count <= MAX_SECTIONS:
            reader.fail(f"{count} sections, want 1 to {MAX_SECTIONS}")
        reader.take(12)  # time, symbols
        size = reader.uint(2, little=True)
        reader.take(2)  # characteristics
        at = reader.position
        headers, security, signatures = _take_optional_header(reader.take(size), at, len(data))
        sections = tuple(_take_section(reader) for _ in range(count))
        if not reader.position <= headers <= len(data):
            reader.fail(f"headers of {headers} bytes")
        _demand_apart(sections, headers, len(data) - signatures)
        return cls(
            data=data,
            headers=headers,
            checksum=at + _CHECKSUM_AT,
            security=security,
            signatures=signatures,
            sections=sections,
        )

    def section(self, name: str) -> bytes | None:
        """Return the bytes of the one section ``name`` as they lie in memory, None where there is none.

        Raises ``Malformed`` where there are several: which one counts depends on who reads.
        """
        found = [item for item in self.sections if item.name == name]
        if len(found) > 1:
            msg = f"pe image: section {name} {len(found)} times, want once"
            raise Malformed(msg)
        if not found:
            return None
        (section,) = found
        if section.virtual_size > section.raw_size:
            msg = f"pe image: section {name} has {section.virtual_size} bytes in memory, {section.raw_size} in the file"
            raise Malformed(msg)
        return self.data[section.offset : section.offset + section.virtual_size]

    def authenticode(self, alg: Alg = Alg.SHA256) -> bytes:
        """Return the digest firmware measures ("Calculating the PE Image Hash", steps 1 to 14)."""
        state = hashlib.new(hash_of(alg).name)
        for first, last in self._measured():
            state.update(memoryview(self.data)[first:last])
        return state.digest()

    def _measured(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges that are digested, in their order."""
        # Steps 3 to 8: headers without the checksum and the entry of the signatures.
        after = self.checksum + _CHECKSUM_BYTES
        yield 0, self.checksum
        if self.security is None:
            yield after, self.headers
        else:
            yield after, self.security
            yield self.security + _DIRECTORY_BYTES, self.headers
        # Steps 9 to 13: sections in the order of the file.
        total = self.headers
        for section in sorted(self.sections, key=lambda item: item.offset):
            yield section.offset, section.offset + section.raw_size
            total += section.raw_size
        # Step 14: what lies behind them, but for the signatures at the end.
        yield total, max(total, len(self.data) - self.signatures)


def _take_optional_header(data: bytes, at: int, file_bytes: int) -> tuple[int, int | None, int]:
    """Return size of the headers, offset of the entry of the signatures, and their size."""
    reader = Reader(data, what="pe image: optional header")
    magic = reader.uint(2, little=True)
    if magic not in _DIRECTORIES_AT:
        reader.fail(f"magic {magic:#06x}, want pe32 or pe32+")
    reader.take(_HEADERS_SIZE_AT - 2)
    headers = reader.uint(4, little=True)
    reader.take(_DIRECTORIES_AT[magic] - 4 - reader.position)
    count = reader.uint(4, little=True)
    if count > _MAX_DIRECTORIES:
        reader.fail(f"{count} directories, want at most {_MAX_DIRECTORIES}")
    entries = [(reader.uint(4, little=True), reader.uint(4, little=True)) for _ in range(count)]
    reader.end()
    if count <= _SECURITY:
        return headers, None, 0
    offset, size = entries[_SECURITY]
    if size and offset + size != file_bytes:
        reader.fail(f"signatures of {size} bytes at {offset}, want them at the end of {file_bytes}")
    return headers, at + _DIRECTORIES_AT[magic] + _SECURITY * _DIRECTORY_BYTES, size


def _take_section(reader: Reader) -> Section:
    name = reader.take(8).rstrip(b"\x00")
    virtual_size = reader.uint(4, little=True)
    reader.take(4)  # virtual address
    raw_size, offset = reader.uint(4, little=True), reader.uint(4, little=True)
    reader.take(16)  # relocations, line numbers, characteristics
    if not name.isascii():
        reader.fail("name of a section is not ascii")
    return Section(
        name=name.decode("ascii"), offset=offset if raw_size else 0, raw_size=raw_size, virtual_size=virtual_size
    )


def _demand_apart(sections: tuple[Section, ...], headers: int, end: int) -> None:
    """Refuse sections that share bytes, or reach into headers or signatures: readers would differ on what is where."""
    reached = headers
    for section in sorted((item for item in sections if item.raw_size), key=lambda item: item.offset):
        if section.offset < reached or section.offset + section.raw_size > end:
            msg = f"pe image: section {section.name[:8]!r} of {section.raw_size} bytes at {section.offset}"
            raise Malformed(msg)
        reached = section.offset + section.raw_size
