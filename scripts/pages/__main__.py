"""Writes the pages of docs/reference/ that say what the source says.

tests/test_docs_made.py fails while one is stale.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


def pages() -> Mapping[str, str]:
    """Return every page by its name, as it should be now."""
    modules = sorted(path.stem for path in Path(__file__).parent.glob("*_page.py"))
    found = (importlib.import_module(module) for module in modules)
    return {module.NAME: module.page() for module in found}


def main() -> None:
    """Write them all."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
