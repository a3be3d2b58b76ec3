"""A model opens and loads within its own size and a tenth, held to it by the kernel, which kills a load that copies.

Packages, formats and loads are those of ``benchmarks/loading.py``, which prints the peaks. Here nothing is sampled that
a peak could slip through: a process that takes more is dead.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cgroup import memory_limit

import cloister
from cloister.crypto.sign import SigningKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cgroup import Group

MIB = 1 << 20
TENTH = 1.1
LARGE_MIB = 5 * 1024
SMALL_MIB = 256
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "loading.py"
FORMATS = (("external", "engine"), ("single", "engine"), ("safetensors", "views"), ("gguf", "map"))

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1800)]


def _benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("loading", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Package:
    """A sealed model, and processes that load it under a limit."""

    def __init__(self, folder: Path, kind: str, mib: int) -> None:
        self.dek, self.signer = os.urandom(32), SigningKey.generate()
        self.folder: Path = _benchmark().seal(folder, kind, mib, self.dek, self.signer)

    def load(self, how: str, group: Group) -> tuple[int, int, int]:
        """Load in a process in ``group``; return its exit status, the model's size and what it held once loaded."""
        words = [sys.executable, str(BENCHMARK), "--child", str(self.folder), "--how", how]
        with subprocess.Popen(  # noqa: S603 - our own words
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(cloister.__file__).parents[1])},
        ) as child:  # fmt: skip
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(f"{self.dek.hex()}\n{self.signer.verify_key.raw.hex()}\n")
            child.stdin.flush()
            assert child.stdout.readline() == "before\n"
            group.take(child.pid)
            child.stdin.write("go\n")
            child.stdin.flush()
            said = child.stdout.readline()
            size, held = (json.loads(said)[0], group.held) if said else (0, 0)
            child.stdin.close()
            return child.wait(), size, held


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[Callable[[str, int], Package]]:
    """Return how to seal a model; gigabytes are not left behind."""
    yield lambda kind, mib: Package(tmp_path, kind, mib)
    shutil.rmtree(tmp_path)


def _demand_room(folder: Path, mib: int) -> None:
    if shutil.disk_usage(folder).free < 3 * mib * MIB:
        pytest.skip(f"the disk has no room for a model of {mib} MiB, plain and sealed")
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    available = int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024
    if available < 1.5 * mib * MIB:
        pytest.skip(f"this machine has no memory for a model of {mib} MiB")


def prove(package: Package, mib: int, how: str, measured: Callable[[str, object], None]) -> None:
    """Prove that the load passes within a tenth more than the model, and that one which copies does not."""
    with memory_limit(int(mib * MIB * TENTH)) as group:
        status, size, held = package.load(how, group)
        assert (status, group.kills) == (0, 0), "our own load took more than the model and a tenth"
        assert size >= mib * MIB  # else the limit would be wider than it says
        assert held >= size, "the memory that was looked at is not the model's"
        measured(f"{size / MIB:.0f} MiB, held once loaded, as a ratio to the model", f"{held / size:.3f}")
        status, _, _ = package.load("copy", group)
        assert (status, group.kills) == (-signal.SIGKILL, 1), "the limit does not bite"


@pytest.mark.parametrize(("kind", "how"), FORMATS, ids=[kind for kind, _ in FORMATS])
def test_each_format_loads_within_a_tenth_more_than_the_model(
    kind: str, how: str, sealed: Callable[[str, int], Package], measured: Callable[[str, object], None], tmp_path: Path
) -> None:
    _demand_room(tmp_path, SMALL_MIB)
    prove(sealed(kind, SMALL_MIB), SMALL_MIB, how, measured)


def test_five_gibibytes_load_within_a_tenth_more(
    sealed: Callable[[str, int], Package], measured: Callable[[str, object], None], tmp_path: Path
) -> None:
    _demand_room(tmp_path, LARGE_MIB)
    prove(sealed("external", LARGE_MIB), LARGE_MIB, "engine", measured)
