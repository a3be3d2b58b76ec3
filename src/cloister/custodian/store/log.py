"""Rows of the audit log: entries, where log and ledger stand, and what waits for its place in the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select, update

from cloister.custodian.store.figures import entry_since
from cloister.custodian.store.tables import AUDIT, AUDIT_PENDING, AUDIT_PRUNED, LOG_HEAD, moment, stamp
from cloister.lending.pruning import PrunedEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

__all__ = [
    "LogHead",
    "append_entries",
    "entries_after",
    "insert_pending",
    "pending_batches",
    "read_head",
    "size_before",
    "take_pending",
    "write_head",
]


_HEAD = select(LOG_HEAD)  # built once: they are part of every transaction
_MOVE_HEAD = update(LOG_HEAD)
_APPEND = insert(AUDIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogHead:
    """Where log and ledger stand: entries, their tree hash, the latest time, postings and units escrowed in the log.

    ``escrowed`` stops at the largest number that a checkpoint can say.
    """

    size: int
    root: bytes
    latest: datetime
    ledger_size: int
    escrowed: int


def read_head(connection: Connection) -> LogHead | None:
    """Return the row, None in a database that has none yet."""
    row = connection.execute(_HEAD).one_or_none()
    if row is None:
        return None
    return LogHead(
        size=row.size,
        root=bytes(row.root),
        latest=moment(row.latest),
        ledger_size=row.ledger_size,
        escrowed=row.escrowed,
    )


def write_head(connection: Connection, head: LogHead) -> None:
    """Write the row."""
    values = {
        "size": head.size,
        "root": head.root,
        "latest": stamp(head.latest),
        "ledger_size": head.ledger_size,
        "escrowed": head.escrowed,
    }
    if connection.execute(_MOVE_HEAD, values).rowcount == 0:
        connection.execute(insert(LOG_HEAD).values(id=1, **values))


def append_entries(connection: Connection, entries: Iterable[tuple[int, datetime, bytes]]) -> None:
    """Write audit entries, each with its index and its time."""
    rows = [{"idx": index, "at": stamp(at), "entry": entry} for index, at, entry in entries]
    if rows:
        connection.execute(_APPEND, rows)


def entries_after(connection: Connection, after: int, *, limit: int) -> Sequence[bytes]:
    """Return up to ``limit`` lines of the log from index ``after`` on, in order; of pruned entries what is left."""
    query = select(AUDIT.c.idx, AUDIT.c.entry).where(AUDIT.c.idx >= after).order_by(AUDIT.c.idx).limit(limit)
    found = [(row.idx, bytes(row.entry)) for row in connection.execute(query)]
    left = select(AUDIT_PRUNED).where(AUDIT_PRUNED.c.idx >= after).order_by(AUDIT_PRUNED.c.idx).limit(limit)
    for row in connection.execute(left):
        pruned = PrunedEntry(index=row.idx, leaf=bytes(row.leaf), pruning=row.pruning)
        found.append((row.idx, pruned.dump()))
    return [line for _, line in sorted(found)[:limit]]


def size_before(connection: Connection, at: datetime) -> int | None:
    """Return how many audit entries there were before ``at``, None where all are older. Reads some, by halves."""
    newest = connection.execute(select(func.max(AUDIT.c.idx))).scalar_one_or_none()
    since = 0 if newest is None else entry_since(connection, at, size=int(newest) + 1)
    # Entries that were pruned say no time: of these the next one that is left is the first of ``at`` or later.
    found = connection.execute(select(func.min(AUDIT.c.idx)).where(AUDIT.c.idx >= since)).scalar_one_or_none()
    return None if found is None else int(found)


def insert_pending(connection: Connection, batch: bytes) -> None:
    """Let what happened in this transaction wait for its place in the log."""
    connection.execute(insert(AUDIT_PENDING).values(batch=batch))


def pending_batches(connection: Connection) -> Sequence[bytes]:
    """Return everything that waits, oldest number first."""
    return [
        bytes(row) for row in connection.execute(select(AUDIT_PENDING.c.batch).order_by(AUDIT_PENDING.c.id)).scalars()
    ]


def take_pending(connection: Connection, *, limit: int) -> Sequence[bytes]:
    """Take up to ``limit`` batches that wait, oldest number first, out of the row."""
    query = select(AUDIT_PENDING.c.id, AUDIT_PENDING.c.batch).order_by(AUDIT_PENDING.c.id).limit(limit)
    rows = connection.execute(query).all()
    if rows:
        connection.execute(delete(AUDIT_PENDING).where(AUDIT_PENDING.c.id.in_([row.id for row in rows])))
    return [bytes(row.batch) for row in rows]
