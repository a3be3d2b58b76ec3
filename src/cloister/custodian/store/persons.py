"""Rows of persons who were ever let in as administrators: they are counted, and never fewer (docs/spec/proposal.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select

from cloister.custodian.store.tables import PERSON, stamp

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

__all__ = ["admins_ever", "note_admin"]


def note_admin(connection: Connection, person: str, now: datetime) -> None:
    """Note that somebody was let in as an administrator, by a token or by an issuer's rule."""
    if connection.execute(select(PERSON.c.name).where(PERSON.c.name == person)).first() is None:
        connection.execute(insert(PERSON).values(name=person, since=stamp(now)))


def admins_ever(connection: Connection) -> int:
    """Return how many persons ever were: revoking a token or removing an issuer does not undo the rule."""
    return int(connection.execute(select(func.count()).select_from(PERSON)).scalar_one())
