"""A custodian whose database may be older than it was: notice, and come back safely (30-metering C10, C11; T38).

The custodian keeps its last checkpoint outside the database, written after each commit and before the
answer. At start both are compared; an older database does not start. ``decide_recovery`` then says how
to go on without anything being served twice: a new epoch, a quiet time, and the lost units written off.

Not promised: anything when database *and* checkpoint are rolled back together, or when an answer left
before its checkpoint was kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cloister.errors import Reason, Rejected, UsageError
from cloister.lending.clock import lifetime
from cloister.lending.ending import decide_write_off
from cloister.lending.events import Event, EventKind
from cloister.lending.ledger import ALLOWANCE, WRITTEN_OFF, Posting
from cloister.lending.state import InstanceStatus
from cloister.lending.terms import MAX_UNITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime, timedelta

    from cloister.crypto.sign import VerifyKey
    from cloister.lending.audit import Checkpoint
    from cloister.lending.merkle import MerkleTree
    from cloister.lending.state import InstanceState
    from cloister.lending.terms import LoanId, Meter

__all__ = ["Position", "Recovery", "decide_recovery", "verify_position"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a database has come: what its own next checkpoint would say."""

    origin: VerifyKey
    epoch: int
    ledger_size: int
    escrowed: int
    block_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """How a custodian comes back on an older database. All of it is one transaction.

    No key and no lease before ``quiet_until``; ``debits`` are the units to take from each balance;
    ``blocks_lost`` says that a block may be missing: every loan stays blocked until a person has looked.
    """

    epoch: int
    quiet_until: datetime
    instances: tuple[InstanceState, ...]
    debits: Mapping[tuple[LoanId, Meter], int]
    postings: tuple[Posting, ...]
    block_version: int
    blocks_lost: bool
    events: tuple[Event, ...]


def verify_position(position: Position, log: MerkleTree, outside: Checkpoint) -> None:
    """Prove that the database has come at least as far as the checkpoint kept outside (C10).

    ``log`` are the leaf hashes of the database's audit log. Raises ``Rejected`` with every reason:
    ``wrong_origin``, ``database_older``, ``audit_changed``.
    """
    reasons = []
    if position.origin != outside.origin:
        keys = (position.origin.key_id, outside.origin.key_id)
        reasons.append(Reason(code="wrong_origin", subject="checkpoint", got=keys[1], want=keys[0]))
    pairs = {
        "audit log": (log.size, outside.size),
        "block version": (position.block_version, outside.block_version),
        "epoch": (position.epoch, outside.epoch),
        "debits": (position.escrowed, outside.escrowed),
        "ledger": (position.ledger_size, outside.ledger_size),
    }
    reasons += [
        Reason(code="database_older", subject=name, got=str(got), want=f"at least {want}")
        for name, (got, want) in pairs.items()
        if got < want
    ]
    if log.size >= outside.size and log.root_at(outside.size) != outside.root:
        reasons.append(Reason(code="audit_changed", subject=f"log of {outside.size}", want=outside.root.hex()))
    if reasons:
        msg = "; ".join(map(str, reasons))
        raise Rejected(msg, reasons=tuple(reasons), hint="restore the newest copy, or run recover")


def decide_recovery(
    position: Position,
    outside: Checkpoint,
    *,
    instances: Iterable[InstanceState],
    balances: Mapping[tuple[LoanId, Meter], int],
    longest_ttl: timedelta,
    now: datetime,
) -> Recovery:
    """Decide how to go on after an older database was put in place (C11).

    Every unit that was debited in the lost part may have been served, or was withdrawn. Which meter it
    was is lost too, so each balance gives up as much as is missing in all, down to zero: too much where there are many
    loans, never too little; a person may top up again. A checkpoint that counts ``MAX_UNITS`` or more does
    not say how much: every balance then goes to zero. ``longest_ttl`` is the largest of any loan,
    ever. The service keeps a new checkpoint outside before it starts. Raises ``UsageError`` for
    another custodian's checkpoint.
    """
    if position.origin != outside.origin:
        msg = "recover: the checkpoint is another custodian's"
        raise UsageError(msg)
    epoch = max(position.epoch, outside.epoch) + 1
    uncounted = outside.escrowed >= MAX_UNITS
    lost = MAX_UNITS if uncounted else max(0, outside.escrowed - position.escrowed)
    debits = {key: min(lost, balance) for key, balance in balances.items() if min(lost, balance)}
    postings = [
        Posting(loan=loan, meter=meter, debit_account=ALLOWANCE, credit_account=WRITTEN_OFF, units=units)
        for (loan, meter), units in debits.items()
    ]
    fenced = []
    events = [
        Event(
            kind=EventKind.ALLOWANCE_WRITTEN_OFF,
            actor="custodian",
            subject=loan,
            details={"meter": meter, "units": units},
        )
        for (loan, meter), units in debits.items()
    ]
    for instance in instances:
        status = InstanceStatus.FENCED if instance.status is InstanceStatus.ACTIVE else instance.status
        ended = decide_write_off(replace(instance, status=status), now=max(now, instance.dead_at))
        fenced.append(instance if ended is None else ended.instance)
        if ended is not None:
            postings += ended.postings
            events += ended.events
    details = {"epoch": epoch, "ledger_size": position.ledger_size, "size": outside.size, "units": lost}
    recovered = Event(kind=EventKind.CUSTODIAN_RECOVERED, actor="custodian", subject="database", details=details)
    return Recovery(
        epoch=epoch,
        quiet_until=now + lifetime(longest_ttl),
        instances=tuple(fenced),
        debits=debits,
        postings=tuple(postings),
        block_version=max(position.block_version, outside.block_version) + 1,
        blocks_lost=outside.block_version > position.block_version,
        events=(recovered, *events),
    )
