"""Usage: take the enclaves' reports, give them out again, and sum them in signed statements (docs/spec/usage.md)."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloister.crypto.sign import Statement
from cloister.custodian.service.standing import heard, instance_key, instance_row, loan_row
from cloister.custodian.service.sweep import write_off_dead
from cloister.custodian.store.instances import instances_between, save_instance
from cloister.custodian.store.loans import take_turn
from cloister.custodian.store.usage import (
    find_report,
    insert_report,
    itemised_units,
    refunds,
    report_before,
    reports_after,
    sums_between,
    ticket_units,
)
from cloister.errors import Rejected
from cloister.lending.events import EventKind
from cloister.lending.ledger import escrow
from cloister.lending.messages import UsageLine, UsageSpan, UsageStatement
from cloister.lending.messages.statement import MAX_LINES, MAX_SPANS
from cloister.lending.messages.usage import MINUTE, minute_number
from cloister.lending.receipt import GENESIS, next_head
from cloister.lending.terms import LOAN_METER, InstanceId, LoanId
from cloister.lending.usage_report import decide_report, sign_ack, verify_report
from cloister.wire import Json, dump_b64u

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.store.usage import SumRow
    from cloister.lending.messages import UsageReport
    from cloister.lending.state import InstanceState
    from cloister.lending.terms import Terms
    from cloister.lending.usage_report import ReportDecision, Reported

__all__ = ["FOREVER", "loan_of", "report", "report_page", "statement", "take"]

FOREVER = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC))
"""The period that holds every record."""

_PAGE = 16  # reports in one answer: at most 11 MiB of base64url


def report(context: Context, instance: InstanceId, statement: bytes) -> bytes:
    """Store one usage report and return the signed acknowledgement; the same report again gets the same one.

    Raises ``Malformed``, ``Rejected`` (not signed by this instance, ``usage_gap``, ``fork_detected``,
    ``overdrawn``) and ``Unavailable``. The signature is proven before anything is written (C1).
    """
    message = verify_report(statement, instance_key(context, instance))
    try:
        decision = _take(context, message, statement)
    except Rejected as refusal:
        context.refuse(EventKind.USAGE_REFUSED, instance, instance, refusal, first=message.first)
        raise
    if decision.ack is None:
        raise Rejected.because(decision.code, "usage report")
    return sign_ack(decision.ack, context.vault.signing_key)


def _take(context: Context, message: UsageReport, statement: bytes) -> ReportDecision:
    """Decide and write in one transaction."""

    def work(transaction: Transaction) -> ReportDecision:
        connection = transaction.connection
        state = instance_row(connection, message.instance).state
        take_turn(connection, state.loan)
        terms = loan_row(connection, state.loan).terms
        reported = heard(connection, state)
        return take(transaction, message, statement, instance=state, terms=terms, reported=reported)

    return context.transact(work, beside=True)


def take(
    transaction: Transaction,
    message: UsageReport,
    statement: bytes,
    *,
    instance: InstanceState,
    terms: Terms,
    reported: Reported,
) -> ReportDecision:
    """Decide one verified report over what was read in this transaction, and write what the decision says.

    Raises ``Rejected`` as ``decide_report``; then nothing is written.
    """
    connection = transaction.connection
    known = message.first <= reported.index
    decision = decide_report(
        message,
        statement,
        instance=instance,
        terms=terms,
        reported=reported,
        stored=find_report(connection, message.instance, message.first) if known else None,
    )
    if decision.fresh and decision.ack is not None:
        insert_report(connection, message, statement, head=decision.ack.head, now=transaction.now)
    if decision.instance != instance:
        save_instance(connection, decision.instance)
    transaction.record_all(decision.events)
    return decision


def loan_of(context: Context, instance: InstanceId) -> LoanId:
    """Return the loan that an instance was registered for. Raises ``Rejected`` (``not_found``)."""
    with context.reading() as connection:
        return instance_row(connection, instance).state.loan


def report_page(context: Context, instance: InstanceId, *, after: int) -> Json:
    """Return the signed reports of an instance that begin behind record ``after``, a page at a time."""
    with context.reading() as connection:
        instance_row(connection, instance)
        reports = reports_after(connection, instance, after, limit=_PAGE)
    return {"reports": [dump_b64u(statement) for statement in reports]}


def statement(context: Context, loan: LoanId, *, start: datetime, end: datetime) -> bytes:
    """Return the signed statement of what a loan used in ``[start, end)``, whole minutes both.

    Whoever can serve no more is written off first, so that the statement knows it has ended. Raises
    ``Rejected`` (``statement_too_large``) where a shorter period is needed.
    """

    def work(transaction: Transaction) -> UsageStatement:
        write_off_dead(transaction)
        connection = transaction.connection
        loan_row(connection, loan)
        rows = sums_between(connection, loan, minute_number(start), minute_number(end))
        lines = _lines(rows)
        if len(lines) > MAX_LINES or len({row.instance for row in rows}) > MAX_SPANS:
            raise _too_large()
        spans = _spans(connection, loan, rows, start, end)
        message = UsageStatement(
            custodian=context.vault.signing_key.verify_key,
            loan=loan,
            start=start,
            end=end,
            lines=lines,
            spans=spans,
            issued_at=transaction.now,
        )
        transaction.record(EventKind.USAGE_STATED, "custodian", loan, units=message.units)
        return message

    message = context.transact(work)
    return Statement.sign(context.vault.signing_key, UsageStatement.LABEL, message.dump()).dump()


def _lines(rows: Iterable[SumRow]) -> tuple[UsageLine, ...]:
    """Return the sums by model and consumer over all instances."""
    sums: dict[tuple[str, str], list[SumRow]] = defaultdict(list)
    for row in rows:
        sums[row.model, row.consumer or ""].append(row)
    return tuple(
        UsageLine(
            model=mine[0].model,
            consumer=mine[0].consumer,
            inferences=sum(row.inferences for row in mine),
            units=sum(row.units for row in mine),
            cut_units=sum(row.cut_units for row in mine),
        )
        for _, mine in sorted(sums.items())
    )


def _spans(
    connection: Connection, loan: LoanId, rows: Sequence[SumRow], start: datetime, end: datetime
) -> tuple[UsageSpan, ...]:
    """Return the instances that have records in the period, or could have served in it."""
    units: dict[InstanceId, int] = defaultdict(int)
    for row in rows:
        units[row.instance] += row.units
    itemised, back = itemised_units(connection, loan), refunds(connection, loan)
    spans = []
    found = instances_between(connection, loan, start, end, also=units, cap=MAX_SPANS + 1)
    if len(found) > MAX_SPANS:
        raise _too_large()
    for state in (item.state for item in found):
        tickets = ticket_units(connection, state.id)
        if state.id not in units and not state.limits and not tickets:
            continue  # it never had a lease
        after, previous = _position(connection, state.id, start)
        upto, head = _position(connection, state.id, end)
        reported, all_units = itemised.get(state.id, (0, 0))
        spans.append(
            UsageSpan(
                key=state.key,
                after=after,
                upto=upto,
                previous=previous,
                head=head,
                units=units[state.id],
                reported=reported,
                itemised=all_units,
                granted=state.limits.get(LOAN_METER, 0) - back.get(escrow(state.id), 0) + tickets,
                ended=state.written_off,
            )
        )
    return tuple(sorted(spans, key=lambda span: span.instance))


def _too_large() -> Rejected:
    want = f"at most {MAX_SPANS} instances and {MAX_LINES} pairs of model and consumer"
    return Rejected.because("statement_too_large", "usage statement", want=want, hint="ask for a shorter period")


def _position(connection: Connection, instance: InstanceId, moment: datetime) -> tuple[int, bytes]:
    """Return index and chain head of the last record from before ``moment``."""
    minute = minute_number(moment)
    stored = report_before(connection, instance, minute)
    if stored is None:
        return 0, GENESIS
    if stored.latest < minute:
        return stored.last, stored.head
    row = instance_row(connection, instance)
    message = verify_report(stored.statement, row.state.key)
    index, head = message.first - 1, message.previous
    for record in message.records:
        if record.at >= moment:
            break
        index, head = record.index, next_head(head, record)
    return index, head


def whole_minutes(moment: datetime) -> bool:
    """Tell whether a time is on a minute: nothing finer is known of a record."""
    return not (moment - FOREVER[0]) % MINUTE
