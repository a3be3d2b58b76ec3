"""A shell in a folder of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cli_kit import Shell

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Return a shell."""
    return Shell(tmp_path, monkeypatch, capsys)
