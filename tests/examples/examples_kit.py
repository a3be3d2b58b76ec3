"""What the tests of the examples share: a frozen copy of the package, an environment, free ports."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import cloister

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def frozen_package(folder: Path) -> Path:
    """Copy the package: an enclave measures its own files, and an editor may change the originals meanwhile.

    What was compiled goes with it, or every process would compile all of it again.
    """
    package = folder / "package"
    ignore = shutil.ignore_patterns("*.pyc.*", "*.txt")  # the former are being written
    shutil.copytree(Path(cloister.__file__).parent, package / "cloister", ignore=ignore)
    return package


def environment(package: Path, **more: str) -> dict[str, str]:
    """Return what a terminal with the virtual environment switched on has, and nothing else."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {
        "HOME": str(package.parent),
        "PATH": path,
        "PYTHONPATH": str(package),
        "PYTHONDONTWRITEBYTECODE": "1",
    } | more
