"""What a ZIP archive has inside, without unpacking it: PyTorch's, TorchScript's, Keras's and NumPy's files are such.

ZIP as in PKWARE's APPNOTE sections 4.3.12 (central directory) and 4.3.14 to 4.3.16 (its end). One member may be
unpacked, bounded. Archives of several volumes and encrypted ones are told apart no further.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple

from cloister.sealed.formats.window import Window

if TYPE_CHECKING:
    from cloister.sealed.formats.window import ModelFile

__all__ = ["Member", "is_zip", "members", "unpack"]

_END, _ENTRY, _LOCAL = b"PK\x05\x06", b"PK\x01\x02", b"PK\x03\x04"
_WIDE_END, _LOCATOR = b"PK\x06\x06", b"PK\x06\x07"
_WIDE_END_BYTES, _LOCATOR_BYTES = 56, 20
_END_BYTES, _ENTRY_BYTES, _LOCAL_BYTES = 22, 46, 30
_MAX_COMMENT_BYTES = (1 << 16) - 1
_MAX_MEMBERS = 1 << 14
_MAX_DIRECTORY_BYTES = 4 << 20
_STORED, _DEFLATED = 0, 8
_WHAT = "zip"


class Member(NamedTuple):
    """One member: name, how it is packed, its packed size, and where its own header lies."""

    name: str
    method: int
    packed: int
    place: int


def is_zip(file: ModelFile) -> bool:
    """Tell whether a reader of archives would take the file: by its first bytes, or by the directory at its end."""
    return file.read(0, 4) in {_LOCAL, _END} or _end(file) is not None


def _end(file: ModelFile) -> int | None:
    """Return where the end of the central directory lies: the last one whose comment reaches the end of the file."""
    tail_at = max(0, file.size - _END_BYTES - _MAX_COMMENT_BYTES)
    tail = file.read(tail_at, file.size - tail_at)
    at = tail.rfind(_END)
    while at >= 0:
        if at + _END_BYTES + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail):
            return tail_at + at
        at = tail.rfind(_END, 0, at)
    return None


def members(file: ModelFile) -> tuple[Member, ...]:
    """Return the members the central directory names. Raises ``Malformed``."""
    window = Window(file, what=_WHAT)
    end = _end(file)
    if end is None:
        window.fail("no central directory")
    end, count, size, start = _wide_end(file, end) or _narrow_end(file, end)
    if count > _MAX_MEMBERS or size > min(_MAX_DIRECTORY_BYTES, end):
        window.fail(f"directory of {count} members and {size} bytes")
    # Whatever stands in front of the archive shifts all its places by the same number of bytes.
    shift = end - size - start
    directory = Window(file, what=_WHAT, start=end - size, end=end)
    return tuple(_member(directory, shift) for _ in range(count))


def _narrow_end(file: ModelFile, end: int) -> tuple[int, int, int, int]:
    """Return where the directory ends, its members, its size and where it says that it begins."""
    window = Window(file, what=_WHAT, start=end + 10)
    return end, window.uint(2), window.uint(4), window.uint(4)


def _wide_end(file: ModelFile, end: int) -> tuple[int, int, int, int] | None:
    """Return the same from the record of ZIP64, which PyTorch writes in every file; None where there is none."""
    place = end - _LOCATOR_BYTES - _WIDE_END_BYTES
    if place < 0 or file.read(place, 4) != _WIDE_END or file.read(end - _LOCATOR_BYTES, 4) != _LOCATOR:
        return None
    window = Window(file, what=_WHAT, start=place + 32)
    return place, window.uint(8), window.uint(8), window.uint(8)


def _member(window: Window, shift: int) -> Member:
    entry = window.take(_ENTRY_BYTES)
    if entry[:4] != _ENTRY:
        window.fail("damaged central directory")
    method, packed, place = (int.from_bytes(entry[at:end], "little") for at, end in ((10, 12), (20, 24), (42, 46)))
    name_size, extra, comment = (int.from_bytes(entry[at : at + 2], "little") for at in (28, 30, 32))
    name = window.take(name_size).decode("utf-8", "replace")
    window.skip(extra + comment)
    return Member(name, method, packed, place + shift)


def unpack(file: ModelFile, member: Member, *, cap: int) -> bytes:
    """Return the content of one member, at most ``cap`` bytes packed or not. Raises ``Malformed``."""
    window = Window(file, what=_WHAT, start=max(0, member.place))
    header = window.take(_LOCAL_BYTES)
    if header[:4] != _LOCAL or member.packed > cap or member.method not in {_STORED, _DEFLATED}:
        window.fail("a member that cannot be looked into")
    window.skip(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"))
    packed = window.take(member.packed)
    if member.method == _STORED:
        return packed
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(packed, cap)
    except zlib.error:
        window.fail("a member that does not unpack")
    if not inflater.eof:
        window.fail(f"a member of more than {cap} bytes, or cut off")
    return content
