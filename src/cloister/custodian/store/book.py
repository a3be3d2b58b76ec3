"""Rows about the custodian itself: its epoch, remembered answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select, update

from cloister.custodian.store.tables import EPOCH, IDEMPOTENCY, moment, stamp
from cloister.errors import Unavailable

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

__all__ = [
    "Answer",
    "EpochRow",
    "find_answer",
    "initialise_epoch",
    "insert_answer",
    "purge_answers",
    "raise_epoch",
    "read_epoch",
]


_EPOCH = select(EPOCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRow:
    """Where the custodian stands in its own history. ``latest`` is when it began; since then the log's head knows."""

    epoch: int
    latest: datetime
    quiet_until: datetime | None
    block_version: int


def initialise_epoch(connection: Connection, *, fence: bytes, now: datetime) -> None:
    """Write the first row of a new custodian."""
    connection.execute(
        insert(EPOCH).values(id=1, epoch=1, fence=fence, latest=stamp(now), quiet_until=0, block_version=0)
    )


def read_epoch(connection: Connection) -> EpochRow:
    """Return the row. Raises ``Unavailable`` for a database nobody initialised."""
    row = connection.execute(_EPOCH).one_or_none()
    if row is None:
        msg = "store: the database belongs to no custodian yet"
        raise Unavailable(msg, hint="restore a backup; a new custodian is made by cloister custodian init elsewhere")
    return EpochRow(
        epoch=row.epoch,
        latest=moment(row.latest),
        quiet_until=moment(row.quiet_until) if row.quiet_until else None,
        block_version=row.block_version,
    )


def raise_epoch(connection: Connection, *, epoch: int, block_version: int, quiet_until: datetime) -> None:
    """Begin a new epoch after a recovery (C11)."""
    connection.execute(update(EPOCH).values(epoch=epoch, block_version=block_version, quiet_until=stamp(quiet_until)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A remembered answer, wrapped by the vault, and the digest of what it answered."""

    digest: bytes
    answer: bytes


def find_answer(connection: Connection, actor: str, key: str, now: datetime) -> Answer | None:
    """Return the answer this actor got under this Idempotency-Key."""
    row = connection.execute(
        select(IDEMPOTENCY).where(
            IDEMPOTENCY.c.actor == actor, IDEMPOTENCY.c.key == key, IDEMPOTENCY.c.expires_at > stamp(now)
        )
    ).one_or_none()
    return None if row is None else Answer(digest=row.digest, answer=row.answer)


def insert_answer(connection: Connection, actor: str, key: str, answer: Answer, expires_at: datetime) -> None:
    """Remember an answer."""
    connection.execute(
        insert(IDEMPOTENCY).values(
            actor=actor, key=key, digest=answer.digest, answer=answer.answer, expires_at=stamp(expires_at)
        )
    )


def purge_answers(connection: Connection, now: datetime) -> None:
    """Forget answers that are too old."""
    connection.execute(delete(IDEMPOTENCY).where(IDEMPOTENCY.c.expires_at <= stamp(now)))
