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
from diskshim import Faults, Shim, needs_compiler
from memory import in_memory
from recording import Rebuilt, Recording, play, record

import cloister

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drill_house import DrillHouse

    Measured = Callable[[str, object], None]

pytestmark = [needs_compiler, pytest.mark.timeout(240)]

TURNS = 60
MANY_TURNS = 300  # enough for the write-ahead log to be checked in while it is recorded
TURNS_AFTER_TROUBLE = 18
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


def fail_a_sync(house: DrillHouse, shim: Shim, turn: int) -> None:
    """Let one sync of the write-ahead log fail now and then, and restart, as the custodian then asks for."""
    if turn % 10 != 5:
        return
    shim.set(Faults(sync_in=1, only="custodian.db-wal"))
    headers = {"authorization": f"Bearer {house.made.admin_token}"}
    answer = house.http.post(f"/v1/loans/{house.loan}/top-up", json={"units": 1}, headers=headers)
    assert answer.status_code == 503
    shim.set(Faults())
    house.kill_custodian()
    house.start_custodian()


@pytest.mark.drill
def test_no_power_cut_after_a_failed_sync_and_a_restart_loses_what_was_acknowledged_since(
    tmp_path: Path, rebuilt_in: Path, measured: Measured
) -> None:
    """The kernel calls pages clean that it could not write: who reads them back must write them again."""
    recording = record(tmp_path, home=rebuilt_in / "recorded", turns=TURNS_AFTER_TROUBLE, trouble=fail_a_sync)
    cut(recording, rebuilt_in, cuts=POWER_CUTS.suite, seed=71, measured=measured)


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
