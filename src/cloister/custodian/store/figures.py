"""What monitoring counts: figures over all loans and instances, none of which needs a whole table to be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Float, cast, func, insert, select, update

from cloister.custodian.store.blocks import AskState
from cloister.custodian.store.tables import (
    ALLOWANCE,
    AUDIT,
    COSIGNATURE,
    INSTANCE,
    LEDGER,
    PROBE,
    REQUEST,
    moment,
    stamp,
)
from cloister.lending.ledger import ISSUED
from cloister.lending.state import InstanceStatus
from cloister.lending.terms import LOAN_METER, LoanId

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

__all__ = [
    "StandingRow",
    "balances",
    "cosigned_sizes",
    "entry_since",
    "granted_to",
    "open_asks",
    "probe",
    "standing_rows",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingRow:
    """An instance that is not written off. ``is_active``: nothing stopped it, and it lives by no voucher."""

    loan: LoanId
    committed_at: datetime
    dead_at: datetime
    is_active: bool


def standing_rows(connection: Connection) -> Sequence[StandingRow]:
    """Return every instance that is not written off."""
    columns = (
        INSTANCE.c.loan,
        INSTANCE.c.committed_at,
        INSTANCE.c.dead_at,
        INSTANCE.c.status,
        INSTANCE.c.voucher_until,
    )
    return [
        StandingRow(
            loan=LoanId(row.loan),
            committed_at=moment(row.committed_at),
            dead_at=moment(row.dead_at),
            is_active=row.status == InstanceStatus.ACTIVE.value and row.voucher_until is None,
        )
        for row in connection.execute(select(*columns).where(INSTANCE.c.written_off == 0))
    ]


def balances(connection: Connection) -> Mapping[LoanId, int]:
    """Return what each loan may still spend."""
    rows = connection.execute(select(ALLOWANCE.c.loan, ALLOWANCE.c.balance).where(ALLOWANCE.c.meter == LOAN_METER))
    return {LoanId(row.loan): row.balance for row in rows}


def granted_to(connection: Connection, loan: LoanId) -> float:
    """Return about how many units a loan was ever granted: for a share of it, not for a ledger."""
    mine = (LEDGER.c.loan == loan) & (LEDGER.c.meter == LOAN_METER) & (LEDGER.c.debit == ISSUED)
    query = select(func.coalesce(func.sum(cast(LEDGER.c.units, Float)), 0.0)).where(mine)
    return float(connection.execute(query).scalar_one())


def open_asks(connection: Connection) -> tuple[int, datetime | None]:
    """Return how many requests for more wait, and since when the oldest does."""
    waiting = REQUEST.c.state == AskState.OPEN.value
    row = connection.execute(select(func.count().label("n"), func.min(REQUEST.c.created_at).label("at")).where(waiting))
    found = row.one()
    return int(found.n), None if found.at is None else moment(found.at)


def cosigned_sizes(connection: Connection, witnesses: Sequence[str]) -> Mapping[str, int]:
    """Return the largest log that each of these witnesses cosigned; those that cosigned none are not there."""
    query = select(COSIGNATURE.c.witness, func.max(COSIGNATURE.c.size).label("size"))
    rows = connection.execute(query.where(COSIGNATURE.c.witness.in_(witnesses)).group_by(COSIGNATURE.c.witness))
    return {row.witness: int(row.size) for row in rows}


def entry_since(connection: Connection, at: datetime, *, size: int) -> int:
    """Return the index of the first audit entry of ``at`` or later, ``size`` where all are older.

    By halves, over the index: an entry's time never lies before that of the one in front. Where a body was pruned, the
    next one that is left says it.
    """
    low, high, wanted = 0, size, stamp(at)
    while low < high:
        middle = (low + high) // 2
        query = select(AUDIT.c.idx, AUDIT.c.at).where(AUDIT.c.idx >= middle).order_by(AUDIT.c.idx).limit(1)
        found = connection.execute(query).one_or_none()
        low, high = (found.idx + 1, high) if found is not None and found.at < wanted else (low, middle)
    return low


def probe(connection: Connection, at: datetime) -> None:
    """Write a row that says nothing: that it can be written is what is asked."""
    if connection.execute(update(PROBE).where(PROBE.c.id == 1).values(at=stamp(at))).rowcount == 0:
        connection.execute(insert(PROBE).values(id=1, at=stamp(at)))
