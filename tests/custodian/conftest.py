"""A custodian with a real database, a real vault and a clock that a test can turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from custodian_kit import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Yield an open custodian with one published model and nothing lent yet."""
    with Bench(tmp_path) as opened:
        yield opened
