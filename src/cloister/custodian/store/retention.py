"""Rows of what was pruned from the audit log, and of holds that keep entries from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select, update

from cloister.custodian.store.figures import entry_since
from cloister.custodian.store.tables import AUDIT, AUDIT_HOLD, AUDIT_PRUNED, moment, stamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

__all__ = ["HoldRow", "bodies_before", "find_hold", "insert_hold", "lift_hold", "list_holds", "next_pruning", "prune"]

_BATCH = 1000  # entries read or pruned at once


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRow:
    """One legal hold: what it keeps, why, since when, and until when it did."""

    id: str
    scope: str
    reason: str
    placed_at: datetime
    placed_by: str
    lifted_at: datetime | None = None


def insert_hold(connection: Connection, hold: HoldRow) -> None:
    """Keep a new hold."""
    connection.execute(
        insert(AUDIT_HOLD).values(
            id=hold.id, scope=hold.scope, reason=hold.reason, placed_at=stamp(hold.placed_at),
            placed_by=hold.placed_by, lifted_at=None,
        )
    )  # fmt: skip


def list_holds(connection: Connection, *, standing: bool) -> Sequence[HoldRow]:
    """Return holds, oldest first: those in force, or all there ever were."""
    query = select(AUDIT_HOLD).order_by(AUDIT_HOLD.c.placed_at, AUDIT_HOLD.c.id)
    if standing:
        query = query.where(AUDIT_HOLD.c.lifted_at.is_(None))
    return [_hold(row) for row in connection.execute(query)]


def find_hold(connection: Connection, hold: str) -> HoldRow | None:
    """Return one hold."""
    row = connection.execute(select(AUDIT_HOLD).where(AUDIT_HOLD.c.id == hold)).one_or_none()
    return None if row is None else _hold(row)


def lift_hold(connection: Connection, hold: str, at: datetime) -> bool:
    """Let a hold be in force no longer; tell whether it was."""
    which = (AUDIT_HOLD.c.id == hold) & AUDIT_HOLD.c.lifted_at.is_(None)
    return connection.execute(update(AUDIT_HOLD).where(which).values(lifted_at=stamp(at))).rowcount == 1


def _hold(row: Row[tuple[object, ...]]) -> HoldRow:
    return HoldRow(
        id=row.id, scope=row.scope, reason=row.reason, placed_at=moment(row.placed_at), placed_by=row.placed_by,
        lifted_at=None if row.lifted_at is None else moment(row.lifted_at),
    )  # fmt: skip


def bodies_before(connection: Connection, at: datetime) -> Iterator[tuple[int, datetime, bytes]]:
    """Yield every entry that has a body and is older than ``at``: its index, time and line."""
    newest = connection.execute(select(func.coalesce(func.max(AUDIT.c.idx), -1))).scalar_one()
    after, end = -1, entry_since(connection, at, size=int(newest) + 1)  # times grow with indexes, and have no index
    while True:
        query = select(AUDIT).where(AUDIT.c.idx > after, AUDIT.c.idx < end).order_by(AUDIT.c.idx).limit(_BATCH)
        rows = connection.execute(query).all()
        for row in rows:
            yield row.idx, moment(row.at), bytes(row.entry)
        if len(rows) < _BATCH:
            return
        after = rows[-1].idx


def next_pruning(connection: Connection) -> int:
    """Return the number of the next pruning."""
    return int(connection.execute(select(func.coalesce(func.max(AUDIT_PRUNED.c.pruning), 0))).scalar_one()) + 1


def prune(connection: Connection, number: int, taken: Sequence[tuple[int, bytes]]) -> None:
    """Keep the leaf hashes of these entries and drop their bodies; the database lets no other body go."""
    for start in range(0, len(taken), _BATCH):
        part = taken[start : start + _BATCH]
        connection.execute(
            insert(AUDIT_PRUNED), [{"idx": index, "leaf": leaf, "pruning": number} for index, leaf in part]
        )
        connection.execute(delete(AUDIT).where(AUDIT.c.idx.in_([index for index, _ in part])))
