"""One browser for all tests of pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from browser_kit import start_chromium
from memory import in_memory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield Chromium, or skip where it is not installed.

    For one module at a time: while it lives, its driver's event loop is this thread's, and no other test could run one.
    """
    yield from start_chromium()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder in memory where there is one: real files, without waiting for a disk at each commit."""
    with in_memory(tmp_path) as folder:
        yield folder
