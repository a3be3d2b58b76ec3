"""Rows of issuers: one document each, and the number that says whether any changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select, update

from cloister.custodian.store.tables import ISSUER, ISSUER_KEYS, ISSUER_VERSION, moment, stamp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

__all__ = [
    "IssuerRow",
    "delete_issuer",
    "fetched_keys",
    "find_issuer",
    "issuers_version",
    "list_issuers",
    "put_fetched_keys",
    "put_issuer",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerRow:
    """One issuer as it was registered: its canonical document."""

    id: str
    document: bytes
    set_at: datetime


def put_issuer(connection: Connection, row: IssuerRow) -> bool:
    """Write an issuer, in the place of the one of its name; tell whether there was one."""
    was = connection.execute(delete(ISSUER).where(ISSUER.c.id == row.id)).rowcount > 0
    connection.execute(insert(ISSUER).values(id=row.id, document=row.document, set_at=stamp(row.set_at)))
    _count(connection)
    return was


def delete_issuer(connection: Connection, issuer: str) -> bool:
    """Take an issuer away; tell whether there was one."""
    was = connection.execute(delete(ISSUER).where(ISSUER.c.id == issuer)).rowcount > 0
    connection.execute(delete(ISSUER_KEYS).where(ISSUER_KEYS.c.issuer == issuer))
    _count(connection)
    return was


def fetched_keys(connection: Connection) -> Mapping[str, bytes]:
    """Return the keys that were fetched, by the id of their issuer; empty where they are too old to count."""
    return {row.issuer: bytes(row.keys) for row in connection.execute(select(ISSUER_KEYS))}


def put_fetched_keys(connection: Connection, issuer: str, keys: bytes) -> None:
    """Write fetched keys of an issuer, for enclaves to be told."""
    connection.execute(delete(ISSUER_KEYS).where(ISSUER_KEYS.c.issuer == issuer))
    connection.execute(insert(ISSUER_KEYS).values(issuer=issuer, keys=keys))
    _count(connection)


def list_issuers(connection: Connection) -> Sequence[IssuerRow]:
    """Return every issuer, in the order of their ids."""
    rows = connection.execute(select(ISSUER).order_by(ISSUER.c.id))
    return [IssuerRow(id=row.id, document=bytes(row.document), set_at=moment(row.set_at)) for row in rows]


def find_issuer(connection: Connection, issuer: str) -> bytes | None:
    """Return the document of an issuer."""
    found = connection.execute(select(ISSUER.c.document).where(ISSUER.c.id == issuer)).scalar_one_or_none()
    return None if found is None else bytes(found)


def issuers_version(connection: Connection) -> int:
    """Return how often issuers were changed."""
    return int(connection.execute(select(ISSUER_VERSION.c.version)).scalar_one_or_none() or 0)


def _count(connection: Connection) -> None:
    if not connection.execute(update(ISSUER_VERSION).values(version=ISSUER_VERSION.c.version + 1)).rowcount:
        connection.execute(insert(ISSUER_VERSION).values(id=1, version=1))
