"""Sealing is killed, and the power goes in the middle of it: there is a whole package or none, and it goes on.

After every cut the target is absent or opens to what was sealed; ``--resume`` over whatever the disk kept gives a
package that does, and the model key was never lost with the package there: its envelope comes with it.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from counts import SEALING_CUTS, SEALING_KILLS
from diskshim import Shim, needs_compiler, read_notes
from memory import in_memory
from powercut import Chance, Disk
from resume_kit import FILES, Told, Vault, opened, seal, write
from sealed_kit import PLAIN, noise

from cloister.errors import CloisterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from diskshim import Note

    Measured = Callable[[str, object], None]

pytestmark = pytest.mark.timeout(240)

PROGRAM = """
import os, pathlib, sys
from resume_kit import Told, Vault, seal

class Telling(Told):
    def progress(self, done, total):
        os.write(1, b".")

seal(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), vault=Vault(), told=Telling())
"""
LARGE = {"a.bin": noise(PLAIN * 1500 + 9), "b.bin": noise(PLAIN * 500, seed=2), "c.txt": b"hello"}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder in memory."""
    with in_memory(tmp_path) as folder:
        yield folder


def sealing(plain: Path, out: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a process that seals, or goes on, and writes a dot for each step."""
    words = [sys.executable, "-c", PROGRAM, str(plain), str(out)]
    paths = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "0"}
    return subprocess.Popen(words, env=environment | paths, stdout=subprocess.PIPE)  # noqa: S603 - our own program


def record(plain: Path, watch: Path, shim: Shim) -> list[Note]:
    """Return everything that one sealing does below ``watch``."""
    watch.mkdir()
    with sealing(plain, watch / "sealed", shim.environment) as process:
        process.communicate(timeout=120)
    assert process.returncode == 0
    shim.close()
    assert opened(watch / "sealed", Vault()) == FILES
    shutil.rmtree(watch)
    return list(read_notes(shim.log))


def lay_out(files: dict[str, bytes], watch: Path) -> None:
    """Put a disk back."""
    shutil.rmtree(watch, ignore_errors=True)
    watch.mkdir()
    for name, data in files.items():
        path = watch / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for place in watch.glob(".*"):
        place.chmod(0o700)


def demand_sound(watch: Path, plain: Path, seen: Counter[str]) -> None:
    """Prove that the package is whole or absent, and that it can be gone on with."""
    out, told = watch / "sealed", Told()
    if out.exists():
        seen["whole"] += 1
    else:
        seal(plain, out, vault=Vault(), told=told)
        seen["gone on with"] += bool(told.found)
        seen["segments found"] += sum(done for done, _ in told.found) // PLAIN
    assert opened(out, Vault()) == FILES


def cut(house: Path, *, cuts: int) -> Counter[str]:
    """Cut the power so many times, behind any note, with any part of what was not synced."""
    plain, watch, rng, seen = write(house / "plain"), house / "disk", random.Random(32), Counter[str]()
    notes = record(plain, watch, Shim(house / "shim", watch=watch))
    disk = Disk({}, watch, rng=rng, forgets=lambda _: False)
    at = Counter(rng.choices(range(len(notes)), k=cuts))
    for number, note in enumerate(notes):
        disk.play(note)
        for _ in range(at[number]):
            lay_out(disk.cut(Chance.draw(rng)), watch)
            demand_sound(watch, plain, seen)
    seen["calls recorded"] = len(notes)
    return seen


@needs_compiler
def test_no_power_cut_leaves_half_a_model_or_stops_it_from_going_on(house: Path, measured: Measured) -> None:
    seen = cut(house, cuts=SEALING_CUTS.suite)
    assert seen["gone on with"] > 0
    assert seen["segments found"] > 0
    measured(f"of {SEALING_CUTS.suite} power cuts", dict(seen))


@needs_compiler
@pytest.mark.drill
@pytest.mark.timeout(7200)
def test_no_power_cut_of_very_many_leaves_half_a_model(house: Path, measured: Measured) -> None:
    measured(f"of {SEALING_CUTS.many} power cuts", dict(cut(house, cuts=SEALING_CUTS.many)))


@needs_compiler
def test_a_sync_of_the_blobs_left_out_is_noticed(house: Path) -> None:
    """What the drill is worth: without it a package has its name and not its content."""
    plain, watch = write(house / "plain"), house / "disk"
    notes = record(plain, watch, Shim(house / "shim", watch=watch))
    rng = random.Random(1)
    disk = Disk({}, watch, rng=rng, forgets=lambda name: "blobs/" in name)
    for note in notes:
        disk.play(note)
    lay_out(disk.cut(Chance(rng=rng, keep=0.0, sector=4096)), watch)
    assert (watch / "sealed" / "manifest.json").is_file()
    with pytest.raises(CloisterError):
        opened(watch / "sealed", Vault())


def kill(house: Path, *, kills: int) -> tuple[int, int]:
    """Kill sealing at any step until it was killed so often; return how often it went on, and came to its end."""
    plain, out, rng = write(house / "plain", LARGE), house / "sealed", random.Random(9)
    steps, went_on, ends, done = 1000, 0, 0, 0  # of some two thousand
    while done < kills or not out.exists():
        if out.exists():
            assert opened(out, Vault()) == LARGE
            shutil.rmtree(out)
            ends += 1
        went_on += (house / ".sealed.sealing" / "package").is_dir()
        with sealing(plain, out, {}) as process:
            assert process.stdout is not None
            if done < kills and len(process.stdout.read(rng.randrange(steps))) > 0:
                process.send_signal(signal.SIGKILL)
                done += 1
            process.communicate(timeout=120)
        assert process.returncode in (0, -signal.SIGKILL)
    assert opened(out, Vault()) == LARGE
    assert [path.name for path in house.iterdir() if path.name.startswith(".")] == []
    return went_on, ends


def test_a_sealing_that_is_killed_goes_on(house: Path, measured: Measured) -> None:
    went_on, ends = kill(house, kills=SEALING_KILLS.suite)
    measured(f"of {SEALING_KILLS.suite} kills gone on with, ends", f"{went_on}, {ends}")


@pytest.mark.drill
@pytest.mark.timeout(7200)
def test_a_sealing_that_is_killed_very_often_goes_on(house: Path, measured: Measured) -> None:
    went_on, ends = kill(house, kills=SEALING_KILLS.many)
    measured(f"of {SEALING_KILLS.many} kills gone on with, ends", f"{went_on}, {ends}")
