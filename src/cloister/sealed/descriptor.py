"""Files of this room on a disk: opened one way, read to the end, made durable.

Not done here: what is in them, and where they lie.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CREATE", "READ", "WRITE", "Descriptor", "fill", "pour", "sync"]

# A pipe or a device must not hold us up, nor a link lead us elsewhere; what was opened is then looked at.
READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
WRITE = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class Descriptor:
    """An open plain file, closed at the end of ``with``."""

    def __init__(self, place: Path, flags: int, mode: int = 0o644) -> None:
        self._fd = os.open(place, flags, mode)

    def __enter__(self) -> int:
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            msg = "not a plain file"
            raise OSError(msg)
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def fill(fd: int, offset: int, out: memoryview) -> int:
    """Read until ``out`` is full or the file ends; return the bytes read."""
    done = 0
    while done < len(out):
        got = os.preadv(fd, [out[done:]], offset + done)
        if got == 0:
            break
        done += got
    return done


def pour(fd: int, offset: int, data: memoryview) -> None:
    """Write all of ``data``: a disk that fills up takes a part, and says so only by the count."""
    while data:
        done = os.pwrite(fd, data, offset)
        data, offset = data[done:], offset + done


def sync(place: Path) -> None:
    """Make a file or folder durable. Raises ``OSError``."""
    fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
