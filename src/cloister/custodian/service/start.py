"""Coming up: is this database ours, whole, and not older than it was (C10)? And coming back when it is (C11)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.custodian.checkpoint import read_checkpoint, sign_checkpoint, write_checkpoint
from cloister.custodian.service.context import AuditLog
from cloister.custodian.store.blocks import BlockKind, BlockRow, insert_block
from cloister.custodian.store.book import append_entry, entries_after, raise_epoch, read_epoch, set_latest
from cloister.custodian.store.instances import save_instance, standing_instances
from cloister.custodian.store.loans import balances_of, debited_in_all, ledger_size, list_loans, post
from cloister.errors import Rejected
from cloister.lending.audit import FIRST_PREVIOUS, AuditEntry, next_entry, verify_log
from cloister.lending.clock import custodian_time
from cloister.lending.events import Event, EventKind
from cloister.lending.ledger import ALLOWANCE
from cloister.lending.merkle import MerkleTree, leaf_hash
from cloister.lending.recovery import Position, Recovery, decide_recovery, verify_position
from cloister.lending.terms import MAX_UNITS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Connection

    from cloister.crypto.sign import SigningKey, VerifyKey
    from cloister.custodian.store import Store
    from cloister.lending.audit import Checkpoint
    from cloister.lending.events import DetailValue

__all__ = ["first_log", "load_log", "recover", "verify_start"]

_BATCH = 5000  # audit entries read at once
_LONGEST_TTL = timedelta(seconds=3600)  # no terms allow a longer lease, now or before


def first_log() -> AuditLog:
    """Return the log of a custodian in which nothing has happened."""
    return AuditLog(tree=MerkleTree(), previous=FIRST_PREVIOUS, epoch=1, ledger_size=0, escrowed=0, block_version=0)


def load_log(connection: Connection) -> AuditLog:
    """Return where log and ledger stand, once every entry is proven to follow the one before.

    Raises ``Malformed`` and ``Rejected`` (``audit_broken``) naming the first bad entry (T83).
    """
    verify_log(_entries(connection), None)
    tree = MerkleTree(leaf_hash(entry) for entry in _entries(connection))
    last = next(iter(entries_after(connection, tree.size - 1, limit=1)), None) if tree.size else None
    epoch = read_epoch(connection)
    return AuditLog(
        tree=tree,
        previous=FIRST_PREVIOUS if last is None else leaf_hash(last),
        epoch=epoch.epoch,
        ledger_size=ledger_size(connection),
        escrowed=debited_in_all(connection, ALLOWANCE),
        block_version=epoch.block_version,
    )


def _entries(connection: Connection) -> Iterator[bytes]:
    after = 0
    while batch := entries_after(connection, after, limit=_BATCH):
        yield from batch
        after = AuditEntry.parse(batch[-1]).index + 1


def _position(log: AuditLog, origin: VerifyKey) -> Position:
    return Position(
        origin=origin,
        epoch=log.epoch,
        ledger_size=log.ledger_size,
        escrowed=log.escrowed,
        block_version=log.block_version,
    )


def verify_start(log: AuditLog, checkpoint_path: Path, origin: VerifyKey) -> None:
    """Prove that the database is not older than the checkpoint outside it (C10, T38).

    Raises ``Rejected`` (``database_older``, ``audit_changed``, ``checkpoint_missing``); the hint says how
    to come back.
    """
    outside = read_checkpoint(checkpoint_path, origin)
    if outside is None:
        if log.tree.size == 0:
            return
        raise Rejected.because(
            "checkpoint_missing",
            str(checkpoint_path),
            hint="put the checkpoint back, or run cloister custodian recover",
        )
    verify_position(_position(log, origin), log.tree, outside)


def recover(store: Store, key: SigningKey, checkpoint_path: Path, *, now: datetime) -> Recovery:
    """Come back on an older database: new epoch, quiet time, lost units written off (C11).

    Without a checkpoint nobody knows which blocks are missing, nor how much was spent: every loan is
    blocked, and every balance goes to zero.
    """
    outside = read_checkpoint(checkpoint_path, key.verify_key)
    with store.writing() as connection:
        log = load_log(connection)
        epoch = read_epoch(connection)
        at = custodian_time(now, latest=epoch.latest)
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
    write_checkpoint(checkpoint_path, sign_checkpoint(after.checkpoint(key.verify_key, at), key))
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
    previous = log.previous
    for offset, event in enumerate(events):
        entry = next_entry(event, index=log.tree.size + offset, at=now, previous=previous)
        append_entry(connection, index=entry.index, at=now, entry=entry.dump())
        previous = entry.leaf
    set_latest(connection, now)


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
