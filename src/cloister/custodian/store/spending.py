"""What was spent lately, read from the ledger: sums by the database, over the newest postings alone where it can."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import case, func, select

from cloister.custodian.store.loans import HALVES, whole
from cloister.custodian.store.tables import LEDGER, stamp
from cloister.lending.ledger import ISSUED, SPENT, WITHDRAWN, WRITTEN_OFF, Account
from cloister.lending.terms import LOAN_METER, LoanId

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from sqlalchemy import ColumnElement, Connection

__all__ = ["Moved", "Totals", "moved_in_steps", "totals"]

_GONE = (SPENT, WRITTEN_OFF)
_SPENT, _ADDED, _TAKEN = 0, 1, 2  # which way units of a loan went


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Units step by step: spent or written off, and added by the custodian less what it took back."""

    spent: list[int]
    added: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Where the units of a loan went in all. ``granted`` is less what was withdrawn again."""

    granted: int
    spent: int
    written_off: int


def totals(connection: Connection, loan: LoanId | None) -> Mapping[LoanId, Totals]:
    """Return the totals of one loan, or of every loan (None) that was ever granted a unit. Reads their whole ledger."""
    found: dict[LoanId, dict[Account, int]] = {}
    for side, sign in ((LEDGER.c.credit, 1), (LEDGER.c.debit, -1)):
        wanted = side.in_((ISSUED, WITHDRAWN, *_GONE))
        query = select(LEDGER.c.loan, side.label("account"), *HALVES).where(wanted, *_of(loan))
        for row in connection.execute(query.group_by(LEDGER.c.loan, side)):
            sums = found.setdefault(LoanId(row.loan), {})
            sums[Account(row.account)] = sums.get(Account(row.account), 0) + sign * whole(row.high, row.low)
    return {
        name: Totals(
            granted=-sums.get(ISSUED, 0) - sums.get(WITHDRAWN, 0),
            spent=sums.get(SPENT, 0),
            written_off=sums.get(WRITTEN_OFF, 0),
        )
        for name, sums in found.items()
    }


def moved_in_steps(
    connection: Connection, loan: LoanId | None, *, start: datetime, step: timedelta, steps: int
) -> Mapping[LoanId, Moved]:
    """Return what moved in each step from ``start`` on; a loan of which nothing moved is not there."""
    first = stamp(start)
    width = stamp(start + step) - first
    number = ((LEDGER.c.at - first) // width).label("number")
    way = case((LEDGER.c.credit.in_(_GONE), _SPENT), (LEDGER.c.debit == ISSUED, _ADDED), else_=_TAKEN).label("way")
    query = select(LEDGER.c.loan, number, way, *HALVES).where(
        LEDGER.c.id >= _posting_since(connection, first),
        LEDGER.c.at >= first,
        LEDGER.c.at < first + width * steps,
        LEDGER.c.credit.in_((*_GONE, WITHDRAWN)) | (LEDGER.c.debit == ISSUED),
        *_of(loan),
    )
    found: dict[LoanId, Moved] = {}
    for row in connection.execute(query.group_by(LEDGER.c.loan, number, way)):
        moved = found.setdefault(LoanId(row.loan), Moved(spent=[0] * steps, added=[0] * steps))
        units = whole(row.high, row.low)
        if row.way == _SPENT:
            moved.spent[int(row.number)] += units
        else:
            moved.added[int(row.number)] += units if row.way == _ADDED else -units
    return found


def _of(loan: LoanId | None) -> tuple[ColumnElement[bool], ...]:
    mine = (LEDGER.c.meter == LOAN_METER,)
    return mine if loan is None else (LEDGER.c.loan == loan, *mine)


def _posting_since(connection: Connection, at: int) -> int:
    """Return the number of a posting that is not behind the first one of ``at``: by halves, over the index.

    Numbers have gaps. Where several custodians write, neighbours may lie a commit apart in time; the caller sorts
    those out by their time.
    """
    low, high = 0, int(connection.execute(select(func.coalesce(func.max(LEDGER.c.id), 0))).scalar_one()) + 1
    while low < high:
        middle = (low + high) // 2
        query = select(LEDGER.c.id, LEDGER.c.at).where(LEDGER.c.id >= middle).order_by(LEDGER.c.id).limit(1)
        found = connection.execute(query).one_or_none()
        low, high = (found.id + 1, high) if found is not None and found.at < at else (low, middle)
    return low
