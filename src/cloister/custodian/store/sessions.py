"""Rows of sessions: found by hash, listed without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select, update

from cloister.custodian.store.tables import SESSION, moment, stamp
from cloister.custodian.tokens import Role, TokenHash, same_hash
from cloister.lending.terms import LoanId

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

__all__ = [
    "SessionRow",
    "end_session",
    "find_session",
    "find_session_by_id",
    "good_sessions",
    "insert_session",
    "list_sessions",
    "prolong_session",
    "purge_sessions",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """One session: what its token is good for, until when, and bound to which key. ``actor`` opened it."""

    id: str
    sha256: TokenHash
    actor: str
    role: Role
    name: str
    loan: LoanId | None
    person: str | None
    key: bytes | None
    created_at: datetime
    expires_at: datetime
    renew_until: datetime
    ended_at: datetime | None = None

    def is_good(self, now: datetime) -> bool:
        """Tell whether the session still opens anything, as far as it is up to it."""
        return self.ended_at is None and now < self.expires_at


def _session(row: Row[tuple[object, ...]]) -> SessionRow:
    return SessionRow(
        id=row.id,
        sha256=TokenHash(row.sha256),
        actor=row.actor,
        role=Role(row.role),
        name=row.name,
        loan=None if row.loan is None else LoanId(row.loan),
        person=row.person,
        key=row.key,
        created_at=moment(row.created_at),
        expires_at=moment(row.expires_at),
        renew_until=moment(row.renew_until),
        ended_at=None if row.ended_at is None else moment(row.ended_at),
    )


def insert_session(connection: Connection, row: SessionRow) -> None:
    """Write a new session."""
    connection.execute(
        insert(SESSION).values(
            id=row.id,
            sha256=row.sha256,
            actor=row.actor,
            role=row.role.value,
            name=row.name,
            loan=row.loan,
            person=row.person,
            key=row.key,
            created_at=stamp(row.created_at),
            expires_at=stamp(row.expires_at),
            renew_until=stamp(row.renew_until),
            ended_at=None,
        )
    )


def find_session(connection: Connection, sha256: TokenHash) -> SessionRow | None:
    """Return the session whose token has this hash; the comparison in constant time decides."""
    row = connection.execute(select(SESSION).where(SESSION.c.sha256 == sha256)).one_or_none()
    return None if row is None or not same_hash(row.sha256, sha256) else _session(row)


def find_session_by_id(connection: Connection, session: str) -> SessionRow | None:
    """Return one session."""
    row = connection.execute(select(SESSION).where(SESSION.c.id == session)).one_or_none()
    return None if row is None else _session(row)


def good_sessions(connection: Connection, actor: str, now: datetime) -> int:
    """Return how many sessions of one actor are good."""
    query = select(func.count()).where(
        SESSION.c.actor == actor, SESSION.c.ended_at.is_(None), SESSION.c.expires_at > stamp(now)
    )
    return int(connection.execute(query).scalar_one())


def list_sessions(connection: Connection, now: datetime, *, actor: str | None) -> Sequence[SessionRow]:
    """Return the sessions that are good, of one actor or of all, the newest first."""
    query = select(SESSION).where(SESSION.c.ended_at.is_(None), SESSION.c.expires_at > stamp(now))
    if actor is not None:
        query = query.where(SESSION.c.actor == actor)
    return [_session(row) for row in connection.execute(query.order_by(SESSION.c.created_at.desc(), SESSION.c.id))]


def prolong_session(connection: Connection, session: str, until: datetime) -> None:
    """Let a session be good for longer."""
    connection.execute(update(SESSION).where(SESSION.c.id == session).values(expires_at=stamp(until)))


def end_session(connection: Connection, session: str, now: datetime) -> None:
    """Make a session worthless."""
    connection.execute(update(SESSION).where(SESSION.c.id == session).values(ended_at=stamp(now)))


def purge_sessions(connection: Connection, before: datetime) -> None:
    """Forget sessions that were over before a time."""
    connection.execute(delete(SESSION).where(SESSION.c.expires_at < stamp(before)))
