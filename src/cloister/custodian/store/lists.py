"""Pages of long lists, cut by the database: loans by name, counts that a front page shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, or_, select

from cloister.custodian.store.blocks import AskState, BlockKind
from cloister.custodian.store.loans import HALVES, whole
from cloister.custodian.store.proposals import open_proposals
from cloister.custodian.store.tables import BLOCK, INSTANCE, LEDGER, LOAN, MODEL, REQUEST, stamp
from cloister.lending.ledger import ISSUED, WITHDRAWN
from cloister.lending.terms import LOAN_METER, LoanId

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

__all__ = ["Counts", "borrowers_of", "count_all", "granted_to_each", "loan_ids", "loans_with_open_asks"]

_ESCAPE = "\\"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many there are. ``live``: instances that may serve now."""

    loans: int
    blocked: int
    models: int
    live: int
    asks: int
    proposals: int


def count_all(connection: Connection, now: datetime) -> Counts:
    """Count what there is."""

    def count(table: object, *where: ColumnElement[bool]) -> int:
        query = select(func.count()).select_from(table).where(*where)  # type: ignore[arg-type]  # a table
        return int(connection.execute(query).scalar_one())

    return Counts(
        loans=count(LOAN),
        blocked=count(BLOCK, BLOCK.c.kind == BlockKind.LOAN.value),
        models=count(MODEL, MODEL.c.withdrawn_at.is_(None)),
        live=count(INSTANCE, INSTANCE.c.written_off == 0, INSTANCE.c.dead_at > stamp(now)),
        asks=count(REQUEST, REQUEST.c.state == AskState.OPEN.value),
        proposals=open_proposals(connection, now),
    )


def loan_ids(connection: Connection, *, like: str, skip: int, limit: int) -> tuple[Sequence[LoanId], int]:
    """Return the ids of some loans, newest first, and how many there are in all.

    ``like`` is a part of the borrower's name, or what the loan's id begins with; empty for every loan.
    """
    where = []
    if like:
        safe = like.replace(_ESCAPE, _ESCAPE * 2).replace("%", r"\%").replace("_", r"\_")
        where = [
            or_(
                func.lower(LOAN.c.borrower).like(f"%{safe.lower()}%", escape=_ESCAPE),
                LOAN.c.id.like(f"{safe}%", escape=_ESCAPE),
            )
        ]
    found = int(connection.execute(select(func.count()).select_from(LOAN).where(*where)).scalar_one())
    query = select(LOAN.c.id).where(*where).order_by(LOAN.c.created_at.desc(), LOAN.c.id).offset(skip).limit(limit)
    return [LoanId(loan) for loan in connection.execute(query).scalars()], found


def borrowers_of(connection: Connection, loans: Sequence[LoanId]) -> Mapping[LoanId, str]:
    """Return who borrows each of these loans."""
    query = select(LOAN.c.id, LOAN.c.borrower).where(LOAN.c.id.in_(list(loans)))
    return {LoanId(row.id): row.borrower for row in connection.execute(query)}


def granted_to_each(connection: Connection, loans: Sequence[LoanId]) -> Mapping[LoanId, int]:
    """Return what each of these loans was granted in all, less what was taken back."""
    found = dict.fromkeys(loans, 0)
    for side, account, sign in ((LEDGER.c.debit, ISSUED, 1), (LEDGER.c.credit, WITHDRAWN, -1)):
        mine = (LEDGER.c.loan.in_(list(loans)), LEDGER.c.meter == LOAN_METER, side == account)
        query = select(LEDGER.c.loan, *HALVES).where(*mine).group_by(LEDGER.c.loan)
        for row in connection.execute(query):
            found[LoanId(row.loan)] += sign * whole(row.high, row.low)
    return found


def loans_with_open_asks(connection: Connection, *, limit: int) -> Sequence[tuple[LoanId, int]]:
    """Return the loans whose borrowers wait for an answer, who waits longest first, with how many requests."""
    query = (
        select(REQUEST.c.loan, func.count().label("n"))
        .where(REQUEST.c.state == AskState.OPEN.value)
        .group_by(REQUEST.c.loan)
        .order_by(func.min(REQUEST.c.created_at))
        .limit(limit)
    )
    return [(LoanId(row.loan), int(row.n)) for row in connection.execute(query)]
