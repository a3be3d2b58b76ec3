"""Rows of usage: the signed reports as they came, what sums them, and evidence of forks.

A report is stored once and never changed. Its sums stand beside it: per instance for the lease requests that
are held against them, per minute for statements.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, func, insert, select, update

from cloister.custodian.store.tables import (
    FORK_EVIDENCE,
    INSTANCE,
    LEDGER,
    TICKET,
    USAGE_REPORT,
    USAGE_SUM,
    USAGE_TOTAL,
    stamp,
)
from cloister.lending.ledger import ALLOWANCE, escrow
from cloister.lending.receipt import GENESIS
from cloister.lending.terms import LOAN_METER, ConsumerId, InstanceId, LoanId, ModelDigest
from cloister.lending.usage_report import Reported, totals_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from cloister.lending.messages import UsageReport

__all__ = [
    "StoredReport",
    "SumRow",
    "consumers_by_use",
    "find_fork",
    "find_report",
    "find_reported",
    "insert_fork",
    "insert_report",
    "itemised_units",
    "refunds",
    "report_before",
    "report_with",
    "reports_after",
    "sums_between",
    "ticket_units",
]

_NOBODY = ""  # the consumer of a record that names none

# Built once: each renewal and each report runs them.
_MINE = USAGE_REPORT.c.instance == bindparam("of")
_NEWEST = (
    select(USAGE_REPORT.c.last, USAGE_REPORT.c.head, USAGE_REPORT.c.latest)
    .where(_MINE)
    .order_by(USAGE_REPORT.c.first.desc())
    .limit(1)
)
_HEAD = select(USAGE_REPORT.c.head).where(_MINE, USAGE_REPORT.c.last == bindparam("last"))
_FIRST = select(USAGE_REPORT.c.statement).where(_MINE, USAGE_REPORT.c.first == bindparam("first"))
_TOTALS = select(USAGE_TOTAL).where(USAGE_TOTAL.c.instance == bindparam("of"))
_TICKETS = select(TICKET.c.units).where(TICKET.c.instance == bindparam("of"))
_INSERT_REPORT, _INSERT_SUM, _INSERT_TOTAL = insert(USAGE_REPORT), insert(USAGE_SUM), insert(USAGE_TOTAL)
_ADD_TOTAL = (
    update(USAGE_TOTAL)
    .where(
        USAGE_TOTAL.c.instance == bindparam("of"),
        USAGE_TOTAL.c.model == bindparam("what"),
        USAGE_TOTAL.c.consumer == bindparam("who"),
    )
    .values(units=USAGE_TOTAL.c.units + bindparam("more"))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReport:
    """One report: its place in the chain, and the exact bytes that the instance signed."""

    first: int
    last: int
    latest: int
    head: bytes
    statement: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SumRow:
    """Sums over a period: of one instance, one model, one consumer."""

    instance: InstanceId
    model: ModelDigest
    consumer: ConsumerId | None
    inferences: int
    units: int
    cut_units: int


def _consumer(text: str) -> ConsumerId | None:
    return ConsumerId(text) if text else None


def find_reported(connection: Connection, instance: InstanceId, *, asked: int = -1, ticketed: bool = True) -> Reported:
    """Return what an instance has reported, and the chain head after record ``asked`` where a report ends there.

    Without ``ticketed`` nobody asks for tickets: the loan has no model that takes them.
    """
    newest = connection.execute(_NEWEST, {"of": instance}).one_or_none()
    granted = ticket_units(connection, instance) if ticketed else 0
    if newest is None:
        return Reported(asked=None if asked else GENESIS, ticketed=granted)
    head = None if asked else GENESIS
    if asked == newest.last:
        head = newest.head
    elif asked > 0:
        head = connection.execute(_HEAD, {"of": instance, "last": asked}).scalar_one_or_none()
    totals = connection.execute(_TOTALS, {"of": instance})
    return Reported(
        index=newest.last,
        head=newest.head,
        latest=newest.latest,
        totals={(ModelDigest(row.model), _consumer(row.consumer)): row.units for row in totals},
        asked=head,
        ticketed=granted,
    )


def ticket_units(connection: Connection, instance: InstanceId) -> int:
    """Return the units of all tickets that an instance was granted."""
    return connection.execute(_TICKETS, {"of": instance}).scalar_one_or_none() or 0


def find_report(connection: Connection, instance: InstanceId, first: int) -> bytes | None:
    """Return the report that begins at record ``first``."""
    return connection.execute(_FIRST, {"of": instance, "first": first}).scalar_one_or_none()


def report_with(connection: Connection, instance: InstanceId, index: int) -> bytes | None:
    """Return the report that holds record ``index``."""
    query = select(USAGE_REPORT.c.statement).where(
        USAGE_REPORT.c.instance == instance, USAGE_REPORT.c.first <= index, USAGE_REPORT.c.last >= index
    )
    return connection.execute(query).scalar_one_or_none()


def report_before(connection: Connection, instance: InstanceId, minute: int) -> StoredReport | None:
    """Return the last report that holds a record of before ``minute``."""
    query = select(USAGE_REPORT).where(USAGE_REPORT.c.instance == instance, USAGE_REPORT.c.earliest < minute)
    row = connection.execute(query.order_by(USAGE_REPORT.c.first.desc()).limit(1)).one_or_none()
    if row is None:
        return None
    return StoredReport(first=row.first, last=row.last, latest=row.latest, head=row.head, statement=row.statement)


def reports_after(connection: Connection, instance: InstanceId, after: int, *, limit: int) -> Sequence[bytes]:
    """Return up to ``limit`` reports whose first record lies behind ``after``, in order."""
    query = select(USAGE_REPORT.c.statement).where(USAGE_REPORT.c.instance == instance, USAGE_REPORT.c.first > after)
    return list(connection.execute(query.order_by(USAGE_REPORT.c.first).limit(limit)).scalars())


def insert_report(connection: Connection, report: UsageReport, statement: bytes, *, head: bytes, now: datetime) -> None:
    """Store a report with its sums; ``head`` is the chain head after it."""
    minutes = [record.minute for record in report.records]
    connection.execute(
        _INSERT_REPORT,
        {
            "instance": report.instance,
            "first": report.first,
            "last": report.last,
            "earliest": minutes[0],
            "latest": minutes[-1],
            "head": head,
            "received_at": stamp(now),
            "statement": statement,
        },
    )
    sums: dict[tuple[int, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for record in report.records:
        row = sums[record.minute, record.model, record.consumer or _NOBODY]
        row[0] += record.content is not None
        row[1] += record.units
        row[2] += record.units if record.content is None else 0
    connection.execute(
        _INSERT_SUM,
        [
            {
                "instance": report.instance,
                "first": report.first,
                "minute": minute,
                "model": model,
                "consumer": consumer,
                "inferences": inferences,
                "units": units,
                "cut_units": cut_units,
            }
            for (minute, model, consumer), (inferences, units, cut_units) in sums.items()
        ],
    )
    for (model, consumer), units in totals_of(report).items():
        _add_total(connection, report.instance, model, consumer or _NOBODY, units)


def _add_total(connection: Connection, instance: InstanceId, model: str, consumer: str, units: int) -> None:
    key = {"of": instance, "what": model, "who": consumer, "more": units}
    if connection.execute(_ADD_TOTAL, key).rowcount == 0:
        values = {"instance": instance, "model": model, "consumer": consumer, "units": units}
        connection.execute(_INSERT_TOTAL, values)


def sums_between(connection: Connection, loan: LoanId, start: int, end: int) -> Sequence[SumRow]:
    """Return the sums of a loan's records of minutes ``start`` up to but not ``end``."""
    keys = (USAGE_SUM.c.instance, USAGE_SUM.c.model, USAGE_SUM.c.consumer)
    query = select(
        *keys,
        func.sum(USAGE_SUM.c.inferences).label("inferences"),
        func.sum(USAGE_SUM.c.units).label("units"),
        func.sum(USAGE_SUM.c.cut_units).label("cut_units"),
    ).where(
        USAGE_SUM.c.instance.in_(select(INSTANCE.c.id).where(INSTANCE.c.loan == loan)),
        USAGE_SUM.c.minute >= start,
        USAGE_SUM.c.minute < end,
    )
    return [
        SumRow(
            instance=InstanceId(row.instance),
            model=ModelDigest(row.model),
            consumer=_consumer(row.consumer),
            inferences=int(row.inferences),
            units=int(row.units),
            cut_units=int(row.cut_units),
        )
        for row in connection.execute(query.group_by(*keys).order_by(*keys))
    ]


def itemised_units(connection: Connection, loan: LoanId) -> dict[InstanceId, tuple[int, int]]:
    """Return the last reported index and all itemised units of each instance of a loan that reported anything."""
    mine = select(INSTANCE.c.id).where(INSTANCE.c.loan == loan)
    last = select(USAGE_REPORT.c.instance, func.max(USAGE_REPORT.c.last).label("last")).group_by(
        USAGE_REPORT.c.instance
    )
    units = select(USAGE_TOTAL.c.instance, func.sum(USAGE_TOTAL.c.units).label("units")).group_by(
        USAGE_TOTAL.c.instance
    )
    indices = {row.instance: row.last for row in connection.execute(last.where(USAGE_REPORT.c.instance.in_(mine)))}
    return {
        InstanceId(row.instance): (indices[row.instance], int(row.units))
        for row in connection.execute(units.where(USAGE_TOTAL.c.instance.in_(mine)))
    }


def consumers_by_use(connection: Connection, *, skip: int, limit: int) -> tuple[Sequence[tuple[LoanId, str, int]], int]:
    """Return some consumers of all loans with the units that were itemised for each, and how many there are."""
    grouped = (
        select(INSTANCE.c.loan, USAGE_TOTAL.c.consumer, func.sum(USAGE_TOTAL.c.units).label("units"))
        .join_from(USAGE_TOTAL, INSTANCE, USAGE_TOTAL.c.instance == INSTANCE.c.id)
        .group_by(INSTANCE.c.loan, USAGE_TOTAL.c.consumer)
    )
    total = int(connection.execute(select(func.count()).select_from(grouped.subquery())).scalar_one())
    ordered = grouped.order_by(func.sum(USAGE_TOTAL.c.units).desc(), INSTANCE.c.loan, USAGE_TOTAL.c.consumer)
    rows = connection.execute(ordered.offset(skip).limit(limit))
    return [(LoanId(row.loan), row.consumer, int(row.units)) for row in rows], total


def refunds(connection: Connection, loan: LoanId) -> dict[str, int]:
    """Return by escrow account what closing instances gave back to the allowance of a loan."""
    query = select(LEDGER.c.debit, func.sum(LEDGER.c.units).label("units")).where(
        LEDGER.c.loan == loan, LEDGER.c.meter == LOAN_METER, LEDGER.c.credit == ALLOWANCE
    )
    found = connection.execute(query.where(LEDGER.c.debit.like(f"{escrow(InstanceId(''))}%")).group_by(LEDGER.c.debit))
    return {row.debit: int(row.units) for row in found}


def find_fork(connection: Connection, instance: InstanceId) -> int | None:
    """Return the index at which an instance was shown to have forked, None where nobody has shown it."""
    query = select(FORK_EVIDENCE.c.idx).where(FORK_EVIDENCE.c.instance == instance)
    return connection.execute(query).scalar_one_or_none()


def insert_fork(
    connection: Connection, instance: InstanceId, index: int, first: bytes, second: bytes, *, now: datetime
) -> None:
    """Keep the first evidence that an instance forked: one is enough, and more would only fill the disk."""
    connection.execute(
        insert(FORK_EVIDENCE).values(instance=instance, idx=index, first=first, second=second, at=stamp(now))
    )
