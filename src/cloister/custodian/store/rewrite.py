"""Writing a file over itself, so that what is read from it is on the disk.

After a failed ``fsync`` Linux calls pages clean that never reached the disk. The process that saw the failure stops
writing; the next one reads them back from the kernel's memory, and syncs of its own do not include them. A power loss
would then leave a hole in the write-ahead log, and everything behind it would be lost, acknowledged or not.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cloister.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write_again"]

_STEP_BYTES = 1 << 20


def write_again(path: Path) -> None:
    """Write the file's bytes over themselves and sync; where there is no file, do nothing.

    Nobody else may be writing to it. Killed in the middle, it leaves the same bytes. Raises ``Unavailable``.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise _unavailable(path, exc) from exc
    try:
        at = 0
        while data := os.pread(fd, _STEP_BYTES, at):
            at += os.pwrite(fd, data, at)
        os.fsync(fd)
    except OSError as exc:
        raise _unavailable(path, exc) from exc
    finally:
        os.close(fd)


def _unavailable(path: Path, error: OSError) -> Unavailable:
    return Unavailable(f"database {path}: {error.strerror}", hint="mend the disk, then start again")
