"""Plaintext that exists only in memory: an anonymous file, written once, sealed, wiped.

Linux memfd_create(2) and fcntl(2) F_ADD_SEALS. The seals end every way to change size or content
but one: a mapping made before, which nobody but ``close`` uses, to zero the pages, and ``move``. Not done here:
keeping the pages from swap (mlock) and from other processes of the same user (the enclave's
hardening).
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from contextlib import suppress
from threading import Lock
from typing import Self

from cloister.errors import Unavailable, UsageError
from cloister.sealed.huge import huge_pages

__all__ = ["MemoryFile"]

_F_SEAL_FUTURE_WRITE = 0x0010  # linux/fcntl.h, since 5.1; this Python has no name for it
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL
_HUGE_BYTES = 2 << 20
_NAME = "cloister"  # shows in /proc; never the model's or the file's name
_ZEROS = bytes(1 << 20)


class MemoryFile:
    """One file in memory: write, then ``seal``, then read or map; ``close`` zeroes it."""

    __slots__ = ("_eraser", "_fd", "_huge", "_lock", "_reader", "_sealed", "size")

    def __init__(self, size: int, *, huge: bool | None = None) -> None:
        """Make an empty file of ``size`` bytes. Raises ``Unavailable`` when the system refuses.

        ``huge`` asks for huge pages and lets ``room`` give them out; by default where they help.
        """
        self.size = size
        self._huge = size >= _HUGE_BYTES and huge_pages() if huge is None else huge
        self._sealed = False
        self._lock = Lock()
        self._reader: mmap.mmap | None = None
        self._eraser: mmap.mmap | None = None
        self._fd = -1
        try:
            self._fd = os.memfd_create(_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.fchmod(self._fd, 0o400)
            os.ftruncate(self._fd, size)
            self._eraser = self._map(mmap.ACCESS_WRITE)
            if self._huge and self._eraser is not None:
                with suppress(OSError):  # a kernel without them: the same pages as ever
                    self._eraser.madvise(mmap.MADV_HUGEPAGE)
        except (OSError, OverflowError) as exc:
            self.close()
            raise _refused(size, exc) from exc

    def _map(self, access: int) -> mmap.mmap | None:
        if self.size == 0:
            return None  # mmap(2) refuses empty mappings
        mapping = mmap.mmap(self._fd, self.size, access=access)
        mapping.madvise(mmap.MADV_DONTDUMP)
        return mapping

    def room(self, offset: int, size: int) -> memoryview | None:
        """Return the memory of these bytes, to be filled and released before ``seal``; None where ``write`` is faster.

        Huge pages are taken by whoever touches the mapping; pages of 4 KiB come cheaper from ``write``.
        """
        if self._sealed or not self._huge or self._eraser is None:
            return None
        with memoryview(self._eraser) as whole:
            return whole[offset : offset + size]

    def write(self, offset: int, data: memoryview) -> None:
        """Write ``data`` at ``offset``. Raises ``Unavailable`` when there is no memory left."""
        try:
            while data:
                done = os.pwrite(self._fd, data, offset)
                data, offset = data[done:], offset + done
        except OSError as exc:
            raise _refused(self.size, exc) from exc

    def seal(self) -> None:
        """End all writing. Raises ``Unavailable``."""
        try:
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _SEALS)
        except OSError as exc:
            raise _refused(self.size, exc) from exc
        self._sealed = True

    def move(self, to: int, start: int, size: int) -> None:
        """Move ``size`` bytes from ``start`` to ``to``, for the reader that alone uses this file.

        Raises ``UsageError`` outside the file, and before ``seal``.
        """
        with self._lock:
            if not self._sealed:
                raise _not_sealed()
            if min(to, start, size) < 0 or max(to, start) + size > self.size:
                msg = f"memory file: move {size} bytes from {start} to {to} in a file of {self.size}"
                raise UsageError(msg)
            if self._eraser is not None and to != start:
                self._eraser.move(to, start, size)

    @property
    def fd(self) -> int:
        """The descriptor of the sealed file, owned by this object."""
        if not self._sealed:
            raise _not_sealed()
        return self._fd

    def view(self) -> memoryview:
        """Return the content, read-only. Views kept beyond ``close`` show zeros. Raises ``Unavailable``."""
        with self._lock:
            if not self._sealed:
                raise _not_sealed()
            if self._reader is None:  # mapped when first asked for: each mapping costs a descriptor
                try:
                    self._reader = self._map(mmap.ACCESS_READ)
                except OSError as exc:
                    raise _refused(self.size, exc) from exc
            return memoryview(b"" if self._reader is None else self._reader)

    def close(self) -> None:
        """Zero the pages that there are and give them back; harmless the second time."""
        with self._lock:
            self._sealed = False
            if self._eraser is not None:
                for start, end in self._extents():
                    for at in range(start, end, len(_ZEROS)):
                        stop = min(at + len(_ZEROS), end)
                        self._eraser[at:stop] = _ZEROS[: stop - at]
                with suppress(BufferError):  # a traceback still holds a part: it is zero, and goes with it
                    self._eraser.close()
                self._eraser = None
            if self._reader is not None:
                with suppress(BufferError):  # somebody holds a view: it shows zeros, and frees the pages when it goes
                    self._reader.close()
                self._reader = None
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _extents(self) -> list[tuple[int, int]]:
        """Return where the file has pages: a hole is zero already, and zeroing it would take memory first.

        lseek(2) SEEK_DATA counts as data what is in memory or swapped out; what was never written counts as a hole.
        Where it cannot tell, the whole file is returned.
        """
        found, at = [], 0
        try:
            while at < self.size:
                start = os.lseek(self._fd, at, os.SEEK_DATA)
                at = min(os.lseek(self._fd, start, os.SEEK_HOLE), self.size)
                found.append((start, at))
        except OSError as exc:
            if exc.errno != errno.ENXIO:  # no more data
                return [(0, self.size)]
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _not_sealed() -> UsageError:
    return UsageError("memory file: not sealed or already closed")


def _refused(size: int, exc: OSError | OverflowError) -> Unavailable:
    why = exc.strerror if isinstance(exc, OSError) else "too large"
    return Unavailable(
        f"memory file of {size} bytes: {why}",
        hint="free memory, or raise this process's limits on file size (ulimit -f) and open files (ulimit -n)",
    )
