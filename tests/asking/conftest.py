"""One browser for all tests of pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from browser_kit import start_chromium

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield Chromium, or skip where it is not installed.

    For one module at a time: while it lives, its driver's event loop is this thread's, and no other test could run one.
    """
    yield from start_chromium()
