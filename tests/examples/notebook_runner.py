"""Run a notebook in a kernel of its own, as ``python notebook_runner.py IN OUT``: its folder is the working folder."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

source, out = map(Path, sys.argv[1:])
notebook = nbformat.read(source, as_version=4)
nbformat.validate(notebook)
try:
    NotebookClient(notebook, timeout=100, kernel_name="python3").execute()
finally:
    nbformat.write(notebook, out)
