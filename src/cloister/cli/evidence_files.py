"""Evidence and what belongs to it as files: read bounded, by role."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MAX_FILE_BYTES", "read_evidence"]

MAX_FILE_BYTES = 4 << 20  # bytes of one file: a manifest of a driver is the longest seen, below 1 MiB


def read_evidence(path: Path, *, what: str = "evidence", cap: int = MAX_FILE_BYTES) -> bytes:
    """Return the bytes of a regular file. Raises ``UsageError`` for one that cannot be read or is too long."""
    try:
        if not path.is_file():
            msg = f"{what} {path}: no such file"
            raise UsageError(msg)
        with path.open("rb") as file:
            data = file.read(cap + 1)
    except OSError as exc:
        msg = f"{what} {path}: {exc.strerror}"
        raise UsageError(msg) from exc
    if len(data) > cap:
        msg = f"{what} {path}: more than {cap} bytes"
        raise UsageError(msg)
    return data
