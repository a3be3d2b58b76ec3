"""A folder in memory where there is one: real files, without waiting for a disk at each commit."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it


@contextlib.contextmanager
def in_memory(otherwise: Path) -> Iterator[Path]:
    """Yield a fresh folder in memory, or ``otherwise`` on a machine without."""
    if not _MEMORY.is_dir() or not os.access(_MEMORY, os.W_OK):
        yield otherwise
        return
    with tempfile.TemporaryDirectory(prefix="cloister-", dir=_MEMORY) as folder:
        yield Path(folder)
