"""Evidence and what belongs to it as files: read bounded, plain files only."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from cloister.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MAX_FILE_BYTES", "read_evidence"]

MAX_FILE_BYTES = 4 << 20  # bytes of one file: a manifest of a driver is the longest seen, below 1 MiB


def read_evidence(path: Path, *, what: str = "evidence", cap: int = MAX_FILE_BYTES) -> bytes:
    """Return the bytes of a plain file, and wait for nobody: a pipe or a device is none.

    Raises ``UsageError`` for one that cannot be read or is too long.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            plain = stat.S_ISREG(os.fstat(descriptor).st_mode)
            data = file.read(cap + 1) if plain else b""
    except OSError as exc:
        msg = f"{what} {path}: {exc.strerror}"
        raise UsageError(msg) from exc
    except ValueError as exc:  # a name with a zero byte
        msg = f"{what}: not the name of a file"
        raise UsageError(msg) from exc
    if not plain:
        msg = f"{what} {path}: not a plain file"
        raise UsageError(msg)
    if len(data) > cap:
        msg = f"{what} {path}: more than {cap} bytes"
        raise UsageError(msg)
    return data
