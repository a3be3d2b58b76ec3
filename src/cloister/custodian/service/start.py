"""Coming up: is this database ours, whole, and not older than it was (C10)? And coming back when it is (C11)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.custodian.checkpoint import read_marks, sign_checkpoint, write_checkpoint
from cloister.custodian.service.audit_log import AuditLog, Batch
from cloister.custodian.store.blocks import BlockKind, BlockRow, insert_block
from cloister.custodian.store.book import raise_epoch, read_epoch
from cloister.custodian.store.instances import save_instance, standing_instances
from cloister.custodian.store.loans import balances_of, debited_in_all, ledger_size, list_loans, post
from cloister.custodian.store.log import entries_after, pending_batches, read_head
from cloister.errors import Malformed, Rejected
from cloister.lending.audit import FIRST_PREVIOUS, AuditEntry, line_leaf, parse_line, verify_log
from cloister.lending.clock import custodian_time
from cloister.lending.events import Event, EventKind
from cloister.lending.ledger import ALLOWANCE
from cloister.lending.merkle import MerkleTree
from cloister.lending.recovery import Position, Recovery, decide_recovery, verify_position
from cloister.lending.terms import MAX_UNITS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Connection

    from cloister.crypto.sign import SigningKey, VerifyKey
    from cloister.custodian.store import Store
    from cloister.lending.audit import Checkpoint
    from cloister.lending.events import DetailValue

__all__ = ["first_log", "load_log", "log_owner", "recover", "verify_start"]

_BATCH = 5000  # audit entries read at once
_MEND = "restore the newest copy, or run cloister custodian recover"
_LONGEST_TTL = timedelta(seconds=3600)  # no terms allow a longer lease, now or before


def first_log(now: datetime) -> AuditLog:
    """Return the log of a custodian in which nothing has happened."""
    return AuditLog(
        tree=MerkleTree(), previous=FIRST_PREVIOUS, epoch=1, ledger_size=0, escrowed=0, block_version=0, latest=now
    )


def load_log(connection: Connection) -> AuditLog:
    """Return where log and ledger stand, once every entry is proven to follow the one before.

    What waits for its place in the log is not in it yet. Raises ``Malformed`` and ``Rejected`` (``audit_broken``,
    ``audit_changed``, ``ledger_changed``) naming what is wrong (T83).
    """
    verified = verify_log(_entries(connection), None)
    tree = MerkleTree(line_leaf(entry) for entry in _entries(connection))
    last, epoch = verified.last, read_epoch(connection)
    waiting = [Batch.parse(data) for data in pending_batches(connection)]
    log = AuditLog(
        tree=tree,
        previous=verified.last_leaf,
        epoch=epoch.epoch,
        ledger_size=ledger_size(connection) - sum(batch.ledger_rows for batch in waiting),
        escrowed=debited_in_all(connection, ALLOWANCE) - sum(batch.escrowed for batch in waiting),
        block_version=epoch.block_version,
        latest=epoch.latest if last is None else max(epoch.latest, last.at),
    )
    _verify_head(connection, log)
    return log


def log_owner(connection: Connection) -> bytes:
    """Return the public key of the custodian whose log this is, as its first entry says. Raises ``Malformed``."""
    first = entries_after(connection, 0, limit=1)
    owner = AuditEntry.parse(first[0]).details.get("custodian") if first else None
    if not isinstance(owner, str):
        raise Malformed("audit log: its first entry names no custodian")
    return bytes.fromhex(owner)


def _verify_head(connection: Connection, log: AuditLog) -> None:
    """Prove that log and ledger are what the head says that was written with them, where there is one yet."""
    head = read_head(connection)
    if head is None:
        return
    log.latest = max(log.latest, head.latest)
    if head.size != log.tree.size or head.root != log.tree.root():
        got, want = f"{log.tree.size} entries", f"{head.size} entries, root {head.root.hex()}"
        raise Rejected.because("audit_changed", "audit log", got=got, want=want, hint=_MEND)
    figures = (log.ledger_size, min(log.escrowed, MAX_UNITS))
    if figures != (head.ledger_size, head.escrowed):
        want = f"{head.ledger_size} postings, {head.escrowed} units"
        got = f"{figures[0]} postings, {figures[1]} units"
        raise Rejected.because("ledger_changed", "ledger", got=got, want=want, hint=_MEND)


def _entries(connection: Connection) -> Iterator[bytes]:
    after = 0
    while batch := entries_after(connection, after, limit=_BATCH):
        yield from batch
        after = parse_line(batch[-1]).index + 1


def _position(log: AuditLog, origin: VerifyKey) -> Position:
    return Position(
        origin=origin,
        epoch=log.epoch,
        ledger_size=log.ledger_size,
        escrowed=log.escrowed,
        block_version=log.block_version,
    )


def verify_start(log: AuditLog, marks: Sequence[Path], origin: VerifyKey) -> None:
    """Prove that the database is not older than any checkpoint outside it (C10, T38).

    Raises ``Rejected`` (``database_older``, ``audit_changed``, ``checkpoint_missing``); the hint says how
    to come back.
    """
    outside = read_marks(marks, origin)
    if not outside and log.tree.size:
        raise Rejected.because(
            "checkpoint_missing",
            str(marks[0]),
            hint="put the checkpoint back, or run cloister custodian recover",
        )
    for mark in outside:
        verify_position(_position(log, origin), log.tree, mark)


def recover(store: Store, key: SigningKey, marks: Sequence[Path], *, now: datetime) -> Recovery:
    """Come back on an older database: new epoch, quiet time, lost units written off (C11).

    Counts from the checkpoint that is furthest ahead, and brings those that are there up to date. Without
    a checkpoint nobody knows which blocks are missing, nor how much was spent: every loan is
    blocked, and every balance goes to zero.
    """
    outside = max(read_marks(marks, key.verify_key), key=lambda mark: mark.size, default=None)
    with store.writing(alone=True) as connection:
        log = load_log(connection)
        at = custodian_time(now, latest=log.latest)
        position = _position(log, key.verify_key)
        instances = [row.state for row in standing_instances(connection)]
        loans = [row.terms.loan for row in list_loans(connection)]
        decision = decide_recovery(
            position,
            outside or _worst(log, position, at),
            instances=instances,
            balances={(loan, meter): left for loan in loans for meter, left in balances_of(connection, loan).items()},
            longest_ttl=_LONGEST_TTL,
            now=at,
        )
        _write(connection, log, decision, at)
        after = load_log(connection)
    for number, path in enumerate(marks):
        if number == 0 or path.exists():
            write_checkpoint(path, sign_checkpoint(after.checkpoint(key.verify_key, at), key))
    return decision


def _worst(log: AuditLog, position: Position, at: datetime) -> Checkpoint:
    """Return a stand-in for a lost checkpoint: a block may be missing, and any number of units."""
    return replace(log.checkpoint(position.origin, at), escrowed=MAX_UNITS, block_version=position.block_version + 1)


def _write(connection: Connection, log: AuditLog, decision: Recovery, now: datetime) -> None:
    for instance in decision.instances:
        save_instance(connection, instance)
    post(connection, decision.postings, now=now)
    events = list(decision.events)
    if decision.blocks_lost:
        events += _block_all(connection, decision.block_version, now)
    raise_epoch(
        connection, epoch=decision.epoch, block_version=decision.block_version, quiet_until=decision.quiet_until
    )
    rows = len(decision.postings)
    taken = sum(item.units for item in decision.postings if item.debit_account == ALLOWANCE)
    log.put(connection, [Batch(at=now, events=events, ledger_rows=rows, escrowed=taken)])


def _block_all(connection: Connection, version: int, now: datetime) -> list[Event]:
    """Block every loan until a person has looked; return what the log says of it."""
    reason = "recovered: a block may be missing, look and unblock"
    events = []
    for row in list_loans(connection):
        loan = row.terms.loan
        block = BlockRow(kind=BlockKind.LOAN, subject=loan, loan=None, reason=reason, by="custodian", at=now)
        if insert_block(connection, block):
            details: dict[str, DetailValue] = {"block_version": version, "kind": block.kind.value, "reason": reason}
            events.append(Event(kind=EventKind.BLOCKED, actor="custodian", subject=loan, details=details))
    return events
