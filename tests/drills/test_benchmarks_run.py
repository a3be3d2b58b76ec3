"""The benchmarks that reach into the enclave still run: what they replace there is still called as they replace it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHORT = ["--models", "mlp", "--concurrency", "2", "--rounds", "1", "--seconds", "1"]
ROWS = ["--only", "rows,tls,ohttp,batching"]


def ran(script: str, *words: str) -> str:
    """Run a benchmark and return what it printed."""
    found = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, str(ROOT / "benchmarks" / script), *words],
        env=found,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.drill
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_serving_is_measured_with_every_row_answered(tmp_path: Path) -> None:
    ran("serving.py", *SHORT, *ROWS, "--json", str(tmp_path / "figures.json"))
    cells = json.loads((tmp_path / "figures.json").read_text())["cells"]
    assert len(cells) == 10
    assert [cell for cell in cells if cell["faults"] or not all(cell["inferences_per_s"])] == []


@pytest.mark.drill
def test_metering_is_measured_beside_a_lease_that_does_nothing() -> None:
    assert "the lease's calls alone" in ran("metering.py", "--seconds", "1")


@pytest.mark.drill
def test_authorisation_is_measured_beside_an_inference() -> None:
    assert ran("authorisation.py", "--inferences", "20").count(" known ") == 3
