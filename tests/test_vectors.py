"""Vector files are what their generators write: who runs one again finds the tree unchanged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(__file__).parent / "vectors"
GENERATORS = sorted(path.relative_to(FOLDER) for path in FOLDER.glob("*/generate*.py"))
ONCE: Mapping[Path, str] = {
    Path("database/generate.py"): "what a version really wrote; it writes the newest schema's only",
    Path("evidence-tpm/generate.py"): "keys are drawn anew each time",
    Path("identity/generate.py"): "signed by ECDSA, and keys are drawn anew each time",
}
"""Generators whose output cannot be the same twice, each with the reason."""


@pytest.mark.parametrize("generator", [path for path in GENERATORS if path not in ONCE], ids=str)
def test_a_generator_run_again_changes_nothing(generator: Path, tmp_path: Path) -> None:
    """In a copy, which is the same afterwards, byte for byte and file for file."""
    copy = tmp_path / "vectors"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("__pycache__"))
    kits = os.pathsep.join((*sys.path, str(FOLDER.parent), str(FOLDER.parent / "lending")))
    environment = {**os.environ, "PYTHONPATH": kits}
    subprocess.run([sys.executable, copy / generator], check=True, env=environment, timeout=120)  # noqa: S603 - ours
    assert _files(copy) == _files(FOLDER)


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_generators_that_run_once_are_there() -> None:
    assert set(ONCE) <= set(GENERATORS)
