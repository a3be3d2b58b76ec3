"""A real custodian under load, recorded call by call; its disk rebuilt at any of them; what was acknowledged by then.

The recording is made by the shim (diskshim), the disk by its model (powercut). What is rebuilt is opened by the real
store and held against what clients had been told until that moment.
"""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from disk import OnDisk, read_home
from diskshim import Note, Shim, read_notes
from drill_house import DrillHouse
from load import Asker, until_served
from powercut import Chance, Disk

from cloister.attest.verifier import Verifier
from cloister.custodian.service.start import load_log, verify_start
from cloister.custodian.setup import open_custodian
from cloister.custodian.store.sqlite import SqliteStore
from cloister.custodian.vaults.encrypted_file import KeyFile
from cloister.errors import CloisterError, Rejected
from cloister.lending.events import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cloister.crypto.sign import VerifyKey

UNITS = 4
ALLOWANCE = 20
WHOLE = 25  # every so many disks are opened by the whole custodian too, not by its store alone
IDLE = "clinic-1"  # a consumer who never asks, to be blocked and unblocked


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What a custodian did to its home, and what it had told whom in between."""

    start: dict[str, bytes]
    notes: list[Note]
    home: Path
    vault_key: Path
    key: VerifyKey
    loan: str

    @property
    def changes(self) -> int:
        """How many calls were recorded."""
        return sum(note.op != "A" for note in self.notes)

    @property
    def answers(self) -> int:
        """How many acknowledgements were recorded."""
        return len(self.notes) - self.changes


@dataclass(slots=True)
class Told:
    """What clients knew at one moment."""

    added: int = 0
    asked: set[str] = field(default_factory=set)
    blocks: set[str] = field(default_factory=set)
    served: Counter[str] = field(default_factory=Counter)

    def take(self, said: dict[str, Any]) -> None:
        """Take one acknowledgement."""
        self.added += said.get("added", 0)
        self.asked |= {said["asked"]} if "asked" in said else set()
        self.blocks |= {said["blocked"]} if "blocked" in said else set()
        if "served" in said:
            self.served[said["served"]] += said["units"]


class _Telling(Asker):
    """A consumer who writes every receipt down."""

    def __init__(self, house: DrillHouse, name: str, shim: Shim) -> None:
        super().__init__(house, name)
        self._shim = shim

    def turn(self) -> None:
        """Ask once."""
        before = len(self.receipts)
        super().turn()
        for receipt in self.receipts[before:]:
            self._shim.acknowledge(served=receipt.instance, units=receipt.units)


def files_of(home: Path) -> dict[str, bytes]:
    """Return every file of a stopped custodian's home."""
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def record(
    folder: Path,
    *,
    home: Path,
    turns: int,
    package: Path | None = None,
    trouble: Callable[[DrillHouse, Shim, int], None] = lambda _house, _shim, _turn: None,
) -> Recording:
    """Record a custodian from its start over ``turns`` of load to its orderly stop. Its home may be in memory.

    ``package`` is another source tree for it to run; ``trouble`` is called before each turn.
    """
    with DrillHouse(folder / "parties", ttl_s=6, max_ceiling=6, allowance=ALLOWANCE, home=home) as house:
        house.stop_custodian()
        start = files_of(house.home)
        shim = Shim(folder / "shim", watch=house.home)
        variables = house.world.variables[house.world.custodian]
        variables |= shim.environment | ({"PYTHONPATH": str(package)} if package else {})
        house.start_custodian()
        house.start_enclave()
        asker = _Telling(house, next(iter(house.tokens)), shim)
        asker.start()
        try:
            until_served(house, [asker], more=2, within_s=60)
            for turn in range(turns):
                trouble(house, shim, turn)
                work(house, shim, turn)
        finally:
            asker.stop()
        house.stop_custodian()
        shim.close()
        return Recording(
            start=start, notes=list(read_notes(shim.log)), home=house.home, loan=house.loan,
            vault_key=house.world.custodian / "vault.key", key=house.made.key,
        )  # fmt: skip


def work(house: DrillHouse, shim: Shim, turn: int) -> None:
    """Let staff and borrower do one thing each, and write down what they were told."""
    loan = f"/v1/loans/{house.loan}"
    house.call("POST", f"{loan}/top-up", {"units": UNITS})
    shim.acknowledge(added=UNITS)
    if turn % 3 == 0:
        body = {"units": 1, "reason": f"turn {turn}"}
        asked = house.call("POST", f"{loan}/requests", body, token=str(house.loan_file["token"]))["id"]
        shim.acknowledge(asked=asked)
        house.call("POST", f"{loan}/requests/{asked}/deny", {})
    if turn % 20 == 10:
        body = {"kind": "consumer", "subject": IDLE, "loan": house.loan, "reason": f"turn {turn}"}
        house.call("POST", "/v1/blocks", body)
        shim.acknowledge(blocked=body["reason"])
        house.call("DELETE", f"/v1/blocks/consumer/{IDLE}?loan={house.loan}")
    time.sleep(0.002)


def play(
    recording: Recording,
    demand: Callable[[dict[str, bytes], Told], None],
    *,
    cuts: int,
    seed: int,
    forgets: Callable[[str], bool] = lambda _: False,
) -> None:
    """Cut the power ``cuts`` times, at random notes, and hand each disk to ``demand``."""
    rng = random.Random(seed)
    disk = Disk(recording.start, recording.home, rng=rng, forgets=forgets)
    at = Counter(rng.choices(range(len(recording.notes)), k=cuts))
    told = Told()
    for number, note in enumerate(recording.notes):
        disk.play(note)
        if note.op == "A":
            told.take(note.said)
        for _ in range(at[number]):
            demand(disk.cut(Chance.draw(rng)), told)


class Rebuilt:
    """Puts a disk back into a folder and opens it with the real store."""

    def __init__(self, recording: Recording, folder: Path) -> None:
        self._recording, self._folder, self._home = recording, folder, folder / "home"
        self.refused: Counter[str] = Counter()
        self.lost = 0
        self.seen = 0

    def demand(self, files: dict[str, bytes], told: Told) -> None:
        """Prove that it starts and that nothing acknowledged is missing."""
        self.seen += 1
        self.write(files)
        store = SqliteStore(self._home / "custodian.db", fence=bytes(16))
        try:
            with store.reading() as connection:
                log = load_log(connection)
            verify_start(log, (self._home / "checkpoint.json",), self._recording.key)
        finally:
            store.close()
        demand_kept(read_home(self._home, self._recording.key, self._folder / "scratch"), self._recording, told)
        if self.seen % WHOLE == 0:
            vault = KeyFile(self._recording.vault_key)
            open_custodian(self._home, vault, make_verifier=lambda _: Verifier([])).close()

    def count(self, files: dict[str, bytes], told: Told) -> None:
        """Note what ``demand`` says: a refusal to start, or a loss."""
        try:
            self.demand(files, told)
        except CloisterError as exc:
            self.refused[exc.code if isinstance(exc, Rejected) else type(exc).__name__] += 1
        except AssertionError:
            self.lost += 1

    def write(self, files: dict[str, bytes]) -> None:
        """Lay the files out."""
        shutil.rmtree(self._home, ignore_errors=True)
        for name, data in files.items():
            path = self._home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o600)


def demand_kept(now: OnDisk, recording: Recording, told: Told) -> None:
    """Prove acknowledged is a subset of stored, and served a subset of leased (C7, I1, I7)."""
    assert now.granted(recording.loan) >= ALLOWANCE + told.added
    assert told.asked <= now.asked
    covered = now.entries[: now.checkpoint.size]
    assert told.asked <= {entry.details.get("request") for entry in covered}
    added = [entry.details["units"] for entry in covered if entry.kind is EventKind.ALLOWANCE_ADDED]
    assert sum(map(int, added)) >= told.added
    blocked = [entry for entry in covered if entry.kind is EventKind.BLOCKED and "reason" in entry.committed]
    assert len(told.blocks) <= len(blocked)  # each had a reason of its own, of which the log has a commitment
    for instance, units in told.served.items():
        assert units <= now.limit_of(instance)
