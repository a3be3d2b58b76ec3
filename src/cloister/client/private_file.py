"""Files that hold a secret: read only where nobody but the owner can."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from cloister.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_private"]


def read_private(path: Path | str, *, cap: int, holds: str) -> bytes:
    """Return at most ``cap`` + 1 bytes of a plain file of mode 0600. Raises ``UsageError``; ``holds`` says of what."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            msg = f"{path}: no plain file"
            raise UsageError(msg)
        if status.st_mode & 0o077:
            msg = f"{path}: mode {stat.S_IMODE(status.st_mode):04o}, want 0600: it holds {holds}"
            raise UsageError(msg, hint=f"chmod 600 {path}")
        return file.read(cap + 1)
