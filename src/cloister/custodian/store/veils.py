"""Rows behind pseudonyms and committed fields of the audit log: keys of persons, salts with their values.

What is destroyed here is what makes a log forget (docs/spec/audit-log.md, sections 8 and 9). Everything secret is
wrapped by the vault before it comes here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, exists, insert, select, text, update

from cloister.custodian.store.dialects import POSTGRESQL
from cloister.custodian.store.tables import AUDIT_OPENING, AUDIT_OPENING_SUBJECT, AUDIT_SECRET, AUDIT_SUBJECT, stamp

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy import Connection

__all__ = [
    "SubjectRow",
    "destroy_openings",
    "destroy_openings_of",
    "find_opening",
    "find_person",
    "find_subject",
    "forget_row",
    "insert_opening",
    "insert_subject",
    "read_lookup_key",
    "shred_deleted",
    "write_lookup_key",
]

_ONE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectRow:
    """One person's pseudonym; ``sealed`` holds key and name, None once it was forgotten."""

    pseudonym: str
    lookup: bytes | None
    sealed: bytes | None


def read_lookup_key(connection: Connection) -> bytes | None:
    """Return the wrapped key under which names are looked up, None where there is none yet."""
    found = connection.execute(select(AUDIT_SECRET.c.wrapped)).scalar_one_or_none()
    return None if found is None else bytes(found)


def write_lookup_key(connection: Connection, wrapped: bytes) -> None:
    """Keep the wrapped key under which names are looked up."""
    connection.execute(insert(AUDIT_SECRET).values(id=_ONE, wrapped=wrapped))


def find_person(connection: Connection, lookup: bytes) -> SubjectRow | None:
    """Return a person by what its name looks up, None for one that no entry names."""
    return _row(connection, AUDIT_SUBJECT.c.lookup == lookup)


def find_subject(connection: Connection, pseudonym: str) -> SubjectRow | None:
    """Return a person by its pseudonym, also one that was forgotten."""
    return _row(connection, AUDIT_SUBJECT.c.pseudonym == pseudonym)


def _row(connection: Connection, which: object) -> SubjectRow | None:
    row = connection.execute(select(AUDIT_SUBJECT).where(which)).one_or_none()  # type: ignore[arg-type]
    if row is None:
        return None
    lookup, sealed = (None if value is None else bytes(value) for value in (row.lookup, row.sealed))
    return SubjectRow(pseudonym=row.pseudonym, lookup=lookup, sealed=sealed)


def insert_subject(connection: Connection, row: SubjectRow, made_at: datetime) -> None:
    """Keep a person that an entry names for the first time."""
    connection.execute(
        insert(AUDIT_SUBJECT).values(
            pseudonym=row.pseudonym, lookup=row.lookup, sealed=row.sealed, made_at=stamp(made_at), forgotten_at=None
        )
    )


def forget_row(connection: Connection, pseudonym: str, at: datetime) -> None:
    """Destroy key and name of a person; that there was one stays."""
    gone = {"lookup": None, "sealed": None, "forgotten_at": stamp(at)}
    connection.execute(update(AUDIT_SUBJECT).where(AUDIT_SUBJECT.c.pseudonym == pseudonym).values(**gone))


def insert_opening(connection: Connection, commitment: bytes, sealed: bytes, persons: Iterable[str]) -> None:
    """Keep what opens a commitment, and whose pseudonyms its entry has."""
    connection.execute(insert(AUDIT_OPENING).values(commitment=commitment, sealed=sealed))
    rows = [{"commitment": commitment, "pseudonym": person} for person in sorted(persons)]
    if rows:
        connection.execute(insert(AUDIT_OPENING_SUBJECT), rows)


def find_opening(connection: Connection, commitment: bytes) -> bytes | None:
    """Return what opens a commitment, wrapped; None once it was destroyed."""
    query = select(AUDIT_OPENING.c.sealed).where(AUDIT_OPENING.c.commitment == commitment)
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else bytes(found)


def destroy_openings_of(connection: Connection, pseudonym: str) -> int:
    """Destroy every opening of entries that name a person; return how many there were."""
    mine = exists().where(
        AUDIT_OPENING_SUBJECT.c.commitment == AUDIT_OPENING.c.commitment, AUDIT_OPENING_SUBJECT.c.pseudonym == pseudonym
    )
    gone = connection.execute(delete(AUDIT_OPENING).where(mine)).rowcount
    connection.execute(delete(AUDIT_OPENING_SUBJECT).where(AUDIT_OPENING_SUBJECT.c.pseudonym == pseudonym))
    return int(gone)


def destroy_openings(connection: Connection, commitments: Iterable[bytes]) -> None:
    """Destroy the openings of these commitments."""
    for commitment in commitments:
        connection.execute(delete(AUDIT_OPENING).where(AUDIT_OPENING.c.commitment == commitment))
        connection.execute(delete(AUDIT_OPENING_SUBJECT).where(AUDIT_OPENING_SUBJECT.c.commitment == commitment))


def shred_deleted(connection: Connection) -> None:
    """Let SQLite overwrite what this connection deletes from now on. PostgreSQL's vacuum does it, later."""
    if connection.dialect.name != POSTGRESQL:
        connection.execute(text("PRAGMA secure_delete=ON")).close()
