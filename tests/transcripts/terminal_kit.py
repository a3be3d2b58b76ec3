"""Runs one line as a terminal does: our own commands in this process, which is quick; any other as a process."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.cli import app
from cloister.cli.terminal import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

WITHIN_S = 60
_ALONE = ["enclave", "serve"]  # hardens the process that it runs in


def run_line(line: str, *, folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Run a line to its end in a folder; return exit code and everything it printed, in order."""
    with _there(folder, environment):
        words = shlex.split(re.sub(r"\$\(cat ([^)]*)\)", lambda found: Path(found[1]).read_text().strip(), line))
        if words[0] != "cloister" or words[1:3] == _ALONE:
            words[:1] = [sys.executable, "-m", "cloister"] if words[0] == "cloister" else words[:1]
            done = subprocess.run(words, capture_output=True, text=True, timeout=WITHIN_S, check=False)  # noqa: S603 - our own transcripts
            return done.returncode, done.stdout + done.stderr
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = run(app, words[1:])
        return code, said.getvalue()


@contextlib.contextmanager
def _there(folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Be in a folder with an environment and nothing of another."""
    before, kept = Path.cwd(), dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        yield
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(kept)
