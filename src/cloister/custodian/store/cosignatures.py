"""Rows about witnesses: what each of them cosigned. They are public, and no part of the audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select

from cloister.custodian.store.tables import COSIGNATURE, stamp

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

__all__ = ["cosignatures_at", "keep_cosignature", "witnessed_size"]

KEPT_PER_WITNESS = 256  # cosignatures of one witness; older ones are forgotten


def keep_cosignature(connection: Connection, *, witness: str, size: int, at: datetime, line: str) -> bool:
    """Keep a witness's cosignature of the log of ``size`` entries; False where a later one is there already."""
    here = (COSIGNATURE.c.witness == witness) & (COSIGNATURE.c.size == size)
    known = connection.execute(select(COSIGNATURE.c.at).where(here)).scalar_one_or_none()
    if known is not None and known >= stamp(at):
        return False
    connection.execute(delete(COSIGNATURE).where(here))
    connection.execute(insert(COSIGNATURE).values(witness=witness, size=size, at=stamp(at), line=line))
    own = select(COSIGNATURE.c.size).where(COSIGNATURE.c.witness == witness).order_by(COSIGNATURE.c.size.desc())
    oldest = connection.execute(own.offset(KEPT_PER_WITNESS).limit(1)).scalar_one_or_none()
    if oldest is not None:
        connection.execute(delete(COSIGNATURE).where(COSIGNATURE.c.witness == witness, COSIGNATURE.c.size <= oldest))
    return True


def cosignatures_at(connection: Connection, witnesses: Sequence[str], size: int) -> Sequence[str]:
    """Return the signature lines of these witnesses over the log of ``size`` entries."""
    query = select(COSIGNATURE.c.line).where(COSIGNATURE.c.witness.in_(witnesses), COSIGNATURE.c.size == size)
    return list(connection.execute(query.order_by(COSIGNATURE.c.witness)).scalars())


def witnessed_size(connection: Connection, witnesses: Sequence[str], quorum: int) -> int | None:
    """Return the largest size that ``quorum`` of these witnesses cosigned, None where there is none."""
    query = (
        select(COSIGNATURE.c.size)
        .where(COSIGNATURE.c.witness.in_(witnesses))
        .group_by(COSIGNATURE.c.size)
        .having(func.count() >= quorum)
        .order_by(COSIGNATURE.c.size.desc())
        .limit(1)
    )
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else int(found)
