"""What several rooms' tests share: one run of the demo."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from demo_run import DemoRun


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """Return the one run of ``cloister demo --keep`` that all workers of this test run share."""
    from demo_run import shared_run  # noqa: PLC0415 - imports the whole client

    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    return shared_run(base / "demo")
