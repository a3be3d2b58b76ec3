"""What a killed custodian left on its disk, read by nobody's help: the database as sqlite sees it, log, checkpoint.

Works on a copy of database and write-ahead log, so that looking changes nothing (a reader would check the
log into the database).
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.custodian.setup import backup_custodian
from cloister.lending.audit import AuditEntry, Checkpoint, verify_checkpoint, verify_log
from cloister.lending.ledger import (
    ALLOWANCE,
    SPENT,
    WRITTEN_OFF,
    Account,
    Posting,
    balance_of,
    escrow,
    granted,
    verify_postings,
)
from cloister.lending.merkle import MerkleTree
from cloister.lending.terms import InstanceId, LoanId, Meter

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cloister.crypto.sign import VerifyKey


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDisk:
    """Everything a drill compares: proven log and checkpoint, postings, and the rows beside them."""

    tree: MerkleTree
    entries: tuple[AuditEntry, ...]
    checkpoint: Checkpoint
    postings: tuple[Posting, ...]
    balances: dict[tuple[str, str], int]
    instances: dict[str, tuple[int, int, bool]]
    loans: dict[str, str]
    asked: frozenset[str]

    def granted(self, loan: str) -> int:
        """Return all units ever granted to the loan's own meter."""
        return granted(self.postings, loan=LoanId(loan), meter=Meter("loan"))

    def spent(self, loan: str) -> int:
        """Return what instances reported as served."""
        return balance_of(self.postings, SPENT, loan=LoanId(loan), meter=Meter("loan"))

    def written_off(self, loan: str) -> int:
        """Return what died with its instance."""
        return balance_of(self.postings, WRITTEN_OFF, loan=LoanId(loan), meter=Meter("loan"))

    def written_off_of(self, instance: str) -> int:
        """Return what died with this instance."""
        source = escrow(InstanceId(instance))
        return sum(p.units for p in self.postings if (p.debit_account, p.credit_account) == (source, WRITTEN_OFF))

    def limit_of(self, instance: str) -> int:
        """Return the highest ceiling this instance was ever given, 0 for one that is not here."""
        return self.instances.get(instance, (0, 0, False))[0]


def read_shared(home: Path, key: VerifyKey, scratch: Path) -> OnDisk:
    """Return the same of a database that several custodians share, as a backup of it says, with each checkpoint."""
    found: list[OnDisk] = []
    for number, checkpoint in enumerate(sorted(home.glob("checkpoint*.json"))):
        folder = scratch / f"shared-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        backup_custodian(home, folder / "custodian.db")
        shutil.copy(checkpoint, folder / "checkpoint.json")
        found.append(read_home(folder, key, folder / "copy"))
    assert len({item.tree.root() for item in found}) == 1
    return max(found, key=lambda item: item.checkpoint.size)


def read_home(home: Path, origin: VerifyKey, scratch: Path) -> OnDisk:
    """Return what is on the disk once it is proven sound.

    Sound is: ``PRAGMA integrity_check`` is ok; no account is ever below zero; every row of balances and
    ceilings says what the postings say; the log is one chain and its checkpoint is of it.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for path in home.glob("custodian.db*"):
        if not path.name.endswith("-shm"):
            shutil.copy(path, scratch / path.name)
    with contextlib.closing(sqlite3.connect(scratch / "custodian.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        lines = [bytes(entry) for (entry,) in database.execute("SELECT entry FROM audit ORDER BY idx")]
        checkpoint = verify_checkpoint((home / "checkpoint.json").read_bytes(), origin)
        assert verify_log(lines, checkpoint).checked == checkpoint.size
        tree = MerkleTree()
        for line in lines:
            tree.append(line)
        found = OnDisk(
            tree=tree,
            entries=tuple(map(AuditEntry.parse, lines)),
            checkpoint=checkpoint,
            postings=_postings(database),
            balances={(loan, meter): units for loan, meter, units in database.execute("SELECT * FROM allowance")},
            instances=_instances(database),
            loans=dict(database.execute("SELECT id, loan FROM instance")),
            asked=frozenset(name for (name,) in database.execute("SELECT id FROM request")),
        )
    _demand_books(found)
    return found


def _postings(database: sqlite3.Connection) -> tuple[Posting, ...]:
    rows = database.execute("SELECT loan, meter, debit, credit, units FROM ledger ORDER BY id")
    return tuple(
        Posting(
            loan=LoanId(loan), meter=Meter(meter), debit_account=Account(debit), credit_account=Account(credit),
            units=units,
        )
        for loan, meter, debit, credit, units in rows
    )  # fmt: skip


def _instances(database: sqlite3.Connection) -> dict[str, tuple[int, int, bool]]:
    query = """SELECT instance.id, coalesce(ceiling, 0), coalesce(used, 0), written_off FROM instance
        LEFT JOIN instance_meter ON instance_meter.instance = instance.id AND meter = 'loan'"""
    return {name: (ceiling, used, bool(gone)) for name, ceiling, used, gone in database.execute(query)}


def _demand_books(found: OnDisk) -> None:
    """Hold the rows against the postings (I2): granted = balance + held + spent + written off, for every meter."""
    verify_postings(found.postings)
    for (loan, meter), units in found.balances.items():
        where = {"loan": LoanId(loan), "meter": Meter(meter)}
        assert balance_of(found.postings, ALLOWANCE, **where) == units
        held = 0
        for name, (ceiling, used, gone) in found.instances.items():
            escrowed = balance_of(found.postings, escrow(InstanceId(name)), **where)
            held += escrowed
            if meter == "loan" and found.loans[name] == loan:
                assert escrowed == (0 if gone else ceiling - used)
        spent = balance_of(found.postings, SPENT, **where)
        lost = balance_of(found.postings, WRITTEN_OFF, **where)
        assert granted(found.postings, **where) == units + held + spent + lost


def demand_extends(now: OnDisk, before: OnDisk | None) -> None:
    """Prove that log, ledger and checkpoint only ever grew (I5, I7)."""
    if before is None:
        return
    assert now.checkpoint.size >= before.checkpoint.size
    assert now.checkpoint.epoch == before.checkpoint.epoch
    assert now.tree.root_at(before.checkpoint.size) == before.checkpoint.root
    assert now.postings[: len(before.postings)] == before.postings
    assert before.asked <= now.asked
    for name, (ceiling, used, gone) in before.instances.items():
        later_ceiling, later_used, later_gone = now.instances[name]
        assert (later_ceiling, later_used, later_gone) >= (ceiling, used, gone)
        assert later_ceiling >= ceiling
        assert later_used >= used


def demand_logged(now: OnDisk, acknowledged: Iterable[str], *, detail: str) -> None:
    """Prove that every acknowledged fact is under the checkpoint: acked is a subset of stored (C7)."""
    covered = now.entries[: now.checkpoint.size]
    there = {entry.details.get(detail) for entry in covered}
    missing = set(acknowledged) - there
    assert not missing, f"acknowledged and not under the checkpoint: {sorted(missing)[:5]}"
