"""Opening into huge pages: as the enclave does where the kernel gives them to memory files, else into a tmpfs.

The stand-in, a tmpfs mounted ``huge=always``, wants root. It runs the same opening through a mapping of its file; only
the seals are left out, which files of a mounted tmpfs do not take (docs/adr/0024-bulk.md).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

from cloister.sealed.huge import huge_pages
from cloister.sealed.memfd import MemoryFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["huge_memory"]


class _Unsealed(MemoryFile):
    """A memory file that takes no seals."""

    __slots__ = ()

    def __init__(self, size: int) -> None:
        super().__init__(size, huge=True)

    def seal(self) -> None:
        """End ``room`` alone."""
        self._sealed = True


@contextmanager
def _into(folder: Path) -> Iterator[None]:
    """Let models open into files without a name in ``folder``."""

    def create(_name: str, _flags: int) -> int:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)

    with patch("cloister.sealed.open.MemoryFile", _Unsealed), patch("os.memfd_create", create):
        yield


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def huge_memory(folder: Path, size: int) -> Iterator[tuple[str, object] | None]:
    """Yield what the huge pages are and a context in which models open into them; None where there are none."""
    if huge_pages():
        yield "memory files of huge pages", _nothing
        return
    place = folder / "huge"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"huge=always,mode=0700,size={size}", "tmpfs", str(place)]
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0 or subprocess.run(words, check=False, capture_output=True).returncode:  # noqa: S603
        yield None
        return
    try:
        yield "a tmpfs of huge pages", lambda: _into(place)
    finally:
        subprocess.run(["umount", str(place)], check=True)  # noqa: S603, S607
