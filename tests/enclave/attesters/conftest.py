"""A short folder for each test: the name of a unix socket has 108 bytes, and workers nest their folders deep."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Return a folder of this test's own."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder).resolve()
