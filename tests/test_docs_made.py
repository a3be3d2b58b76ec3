"""The pages that are made from the source say what the source says now."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference"
SCRIPTS = ROOT / "scripts" / "pages"


def script(name: str) -> Any:
    """Return a module that writes pages."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))


MODULES = sorted(path.stem for path in SCRIPTS.glob("*_page.py"))


@pytest.mark.parametrize("module", MODULES)
def test_the_page_is_not_stale(module: str) -> None:
    found = script(module)
    assert (FOLDER / found.NAME).read_text(encoding="utf-8") == found.page(), "run make reference"


def test_no_metric_is_in_two_tables() -> None:
    names = [name for _, metrics, _ in script("metrics_page").tables().values() for name in metrics]
    assert len(names) == len(set(names))
    assert len(names) > 30
