"""A file of a model seen through a small window: read front to back, exact, bounded, in any place it comes from.

At seal time the bytes come from a disk, in an enclave from sealed memory; neither is ever copied as a whole. Numbers
are little-endian, as in every format of this room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BLOCK_BYTES", "ModelFile", "Window", "shown"]

BLOCK_BYTES = 16 * 1024  # bytes read ahead: headers are small, and what lies between them is skipped
_SHOWN = 60  # characters of a hostile name in an error message


def shown(text: str) -> str:
    """Return a name of the model for an error message: escaped, and not long."""
    return ascii(text[:_SHOWN])


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """One file of a model.

    ``read(offset, size)`` returns ``size`` bytes, fewer only where the file ends before.
    """

    path: str
    size: int
    read: Callable[[int, int], bytes]

    @property
    def name(self) -> str:
        """The last part of its path, in lower case: what its format is guessed from."""
        return self.path.rpartition("/")[2].lower()

    @property
    def folder(self) -> str:
        """What stands in front of its name: empty, or with a ``/`` at the end."""
        head, slash, _ = self.path.rpartition("/")
        return head + slash


class Window:
    """Reads a part of a file front to back; at most a block, or what was asked for, is held."""

    __slots__ = ("_block", "_end", "_file", "_first", "_pos", "_what")

    def __init__(self, file: ModelFile, *, what: str, start: int = 0, end: int | None = None) -> None:
        """Start at ``start``; the window ends at ``end``, or with the file. ``what`` names the format in errors."""
        self._file = file
        self._what = f"{what} {shown(file.path)}"
        self._pos = start
        self._end = file.size if end is None else end
        self._block = b""
        self._first = 0  # where the block lies in the file

    @property
    def position(self) -> int:
        """Where the next byte lies in the file."""
        return self._pos

    @property
    def left(self) -> int:
        """Bytes not yet taken."""
        return self._end - self._pos

    def fail(self, detail: str) -> NoReturn:
        """Raise ``Malformed`` about this file."""
        msg = f"{self._what}: {detail}"
        raise Malformed(msg)

    def demand(self, size: int) -> None:
        """Fail unless ``size`` bytes are left."""
        if not 0 <= size <= self.left:
            self.fail(f"{self.left} bytes left at {self._pos}, want {size}")

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes. Raises ``Malformed`` when fewer are left. The caller bounds ``size``."""
        self.demand(size)
        at = self._pos - self._first
        if not 0 <= at <= len(self._block) - size:
            self._fetch(size)
            at = 0
        self._pos += size
        return self._block[at : at + size]

    def _fetch(self, size: int) -> None:
        want = min(max(size, BLOCK_BYTES), self.left)
        self._block = self._file.read(self._pos, want)
        self._first = self._pos
        if len(self._block) != want:
            self.fail(f"the file ends at {self._pos + len(self._block)}, want {self._end} bytes")

    def block(self, size: int) -> tuple[bytes, int]:
        """Return bytes, and where in them the next one is: ``size`` are there, or all that is left."""
        size = min(size, self.left)
        at = self._pos - self._first
        if not 0 <= at <= len(self._block) - size:
            self._fetch(size)
            at = 0
        return self._block, at

    def skip(self, size: int) -> None:
        """Leave out ``size`` bytes, unread. Raises ``Malformed`` when fewer are left."""
        self.demand(size)
        self._pos += size

    def uint(self, size: int) -> int:
        """Return an unsigned integer of ``size`` bytes."""
        return int.from_bytes(self.take(size), "little")
