"""R7: the power goes. A real custodian is recorded under load; its disk is rebuilt as it may be after any call.

One recording holds thousands of power cuts: behind any note of it, with any part of what was not synced. The mutants
prove that the simulation bites: leave out one kind of sync, and something acknowledged is lost or the custodian does
not come up.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from counts import POWER_CUTS
from diskshim import needs_compiler
from memory import in_memory
from recording import Rebuilt, Recording, play, record

import cloister

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Measured = Callable[[str, object], None]

pytestmark = [needs_compiler, pytest.mark.timeout(240)]

TURNS = 60
MANY_TURNS = 900  # enough for the write-ahead log to be checked in several times while it is recorded
CUTS_OF_A_MUTANT = 30
FORGOTTEN = {
    "the write-ahead log is never synced": lambda name: name.endswith("-wal"),
    "the checkpoint is renamed before it is synced": lambda name: name.endswith("checkpoint.json.new"),
    "the folder is not synced after the rename": lambda name: not name,
}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Return one short recording for every test here."""
    folder = tmp_path_factory.mktemp("recording")
    with in_memory(folder) as place:
        return record(folder, home=place / "home", turns=TURNS)


@pytest.fixture
def rebuilt_in(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder in memory: what is rebuilt there needs no disk of its own."""
    with in_memory(tmp_path) as folder:
        yield folder


def cut(recording: Recording, folder: Path, *, cuts: int, seed: int, measured: Measured) -> None:
    """Cut the power, and demand that it starts and nothing acknowledged is lost."""
    rebuilt = Rebuilt(recording, folder)
    play(recording, rebuilt.demand, cuts=cuts, seed=seed)
    assert rebuilt.seen == cuts
    measured("calls recorded", recording.changes)
    measured("acknowledgements", recording.answers)
    measured("power cuts", cuts)
    measured("acknowledged facts lost, refused starts", "0, 0")


def test_no_power_cut_loses_what_was_acknowledged(recording: Recording, rebuilt_in: Path, measured: Measured) -> None:
    cut(recording, rebuilt_in, cuts=POWER_CUTS.suite, seed=7, measured=measured)


@pytest.mark.parametrize("mistake", FORGOTTEN)
def test_a_sync_left_out_is_noticed(mistake: str, recording: Recording, rebuilt_in: Path, measured: Measured) -> None:
    rebuilt = Rebuilt(recording, rebuilt_in)
    play(recording, rebuilt.count, cuts=CUTS_OF_A_MUTANT, seed=8, forgets=FORGOTTEN[mistake])
    assert rebuilt.lost + rebuilt.refused.total() > 0
    measured(f"of {CUTS_OF_A_MUTANT} cuts lost, refused to start", f"{rebuilt.lost}, {dict(rebuilt.refused)}")


@pytest.mark.drill
@pytest.mark.timeout(7200)
def test_no_power_cut_of_very_many_loses_what_was_acknowledged(
    tmp_path: Path, rebuilt_in: Path, measured: Measured
) -> None:
    recording = record(tmp_path, home=rebuilt_in / "recorded", turns=MANY_TURNS)
    cut(recording, rebuilt_in, cuts=POWER_CUTS.many, seed=70, measured=measured)


@pytest.mark.drill
@pytest.mark.timeout(600)
def test_a_custodian_with_synchronous_normal_loses_acknowledged_facts(
    tmp_path: Path, rebuilt_in: Path, measured: Measured
) -> None:
    """The real process with one word changed: what FULL is for."""
    source = Path(cloister.__file__).parent
    weak = tmp_path / "weak" / "cloister"
    shutil.copytree(source, weak, ignore=shutil.ignore_patterns("__pycache__"))
    changed = 0
    for path in (weak / "custodian" / "store").glob("*.py"):
        text = path.read_text()
        changed += text.count("PRAGMA synchronous=FULL")
        path.write_text(text.replace("PRAGMA synchronous=FULL", "PRAGMA synchronous=NORMAL"))
    assert changed == 1
    recording = record(tmp_path, home=rebuilt_in / "recorded", turns=TURNS, package=weak.parent)
    rebuilt = Rebuilt(recording, rebuilt_in)
    play(recording, rebuilt.count, cuts=200, seed=9)
    assert rebuilt.lost + rebuilt.refused.total() > 20
    measured("of 200 cuts lost, refused to start", f"{rebuilt.lost}, {dict(rebuilt.refused)}")
