"""The page of metrics is what the tables in the source say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[1] / "scripts" / "metrics_page.py"


def script() -> Any:
    """Return the module that writes the page."""
    spec = importlib.util.spec_from_file_location("metrics_page", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_not_stale() -> None:
    found = script()
    assert found.PAGE.read_text(encoding="utf-8") == found.page(), "run python scripts/metrics_page.py"


def test_no_metric_is_in_two_tables() -> None:
    names = [name for _, metrics, _ in script().tables().values() for name in metrics]
    assert len(names) == len(set(names))
    assert len(names) > 30
