"""A custodian with a real database, a real vault and a clock that a test can turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from custodian_kit import Bench
from memory import in_memory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder in memory where there is one: real files, without waiting for a disk at each commit."""
    with in_memory(tmp_path) as folder:
        yield folder


@pytest.fixture
def bench(place: Path) -> Iterator[Bench]:
    """Yield an open custodian with one published model and nothing lent yet."""
    with Bench(place) as opened:
        yield opened
