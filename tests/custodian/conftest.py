"""A custodian with a real database, a real vault and a clock that a test can turn."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from custodian_kit import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder in memory where there is one: real files, without waiting for a disk at each commit."""
    if not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="cloister-", dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture
def bench(place: Path) -> Iterator[Bench]:
    """Yield an open custodian with one published model and nothing lent yet."""
    with Bench(place) as opened:
        yield opened
