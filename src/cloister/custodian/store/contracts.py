"""Rows of contracts: every version that was ever offered for a loan, and which of them is in force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, func, insert, select, update

from cloister.custodian.store.tables import CONTRACT, moment, stamp
from cloister.lending.terms import LoanId

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Row, Select

__all__ = ["ContractRow", "agree_on", "agreed_contract", "agreed_since", "insert_contract", "newest_contract"]

_AGREED = select(func.max(CONTRACT.c.agreed_at)).where(CONTRACT.c.loan == bindparam("of"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractRow:
    """One version. ``document`` is the signed contract; ``agreed_at`` is None while it is only offered."""

    loan: LoanId
    version: int
    document: bytes
    created_at: datetime
    agreed_at: datetime | None


def insert_contract(connection: Connection, row: ContractRow) -> None:
    """Keep a new version."""
    connection.execute(
        insert(CONTRACT).values(
            loan=row.loan,
            version=row.version,
            document=row.document,
            created_at=stamp(row.created_at),
            agreed_at=None if row.agreed_at is None else stamp(row.agreed_at),
        )
    )


def agree_on(connection: Connection, loan: LoanId, version: int, *, document: bytes, since: datetime) -> None:
    """Put a version in force, with the borrower's signature in its document.

    ``since`` is when instances must have attested: an earlier time than now where it changes nothing for them.
    """
    key = (CONTRACT.c.loan == loan) & (CONTRACT.c.version == version)
    connection.execute(update(CONTRACT).where(key).values(document=document, agreed_at=stamp(since)))


def newest_contract(connection: Connection, loan: LoanId) -> ContractRow | None:
    """Return the version that was offered last, agreed on or not."""
    return _first(connection, select(CONTRACT).where(CONTRACT.c.loan == loan))


def agreed_contract(connection: Connection, loan: LoanId) -> ContractRow | None:
    """Return the version in force: the newest that was agreed on."""
    return _first(connection, select(CONTRACT).where(CONTRACT.c.loan == loan, CONTRACT.c.agreed_at.is_not(None)))


def agreed_since(connection: Connection, loan: LoanId) -> datetime | None:
    """Return since when instances must have attested under the version in force; None where there is none."""
    found = connection.execute(_AGREED, {"of": loan}).scalar_one()
    return None if found is None else moment(found)


def _first(connection: Connection, query: Select[tuple[object, ...]]) -> ContractRow | None:
    row = connection.execute(query.order_by(CONTRACT.c.version.desc()).limit(1)).one_or_none()
    return None if row is None else _contract(row)


def _contract(row: Row[tuple[object, ...]]) -> ContractRow:
    return ContractRow(
        loan=LoanId(row.loan),
        version=row.version,
        document=row.document,
        created_at=moment(row.created_at),
        agreed_at=None if row.agreed_at is None else moment(row.agreed_at),
    )
