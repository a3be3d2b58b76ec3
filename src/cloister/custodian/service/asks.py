"""The borrower asks for more; the custodian approves or denies, and both are written down."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cloister.custodian.service.loan_views import ask_json
from cloister.custodian.service.loans import take_meter, top_up_units
from cloister.custodian.service.standing import loan_row
from cloister.custodian.store.blocks import AskRow, AskState, decide_ask, find_ask, insert_ask, list_asks
from cloister.errors import Rejected
from cloister.lending.events import EventKind
from cloister.lending.terms import MAX_UNITS

if TYPE_CHECKING:
    from cloister.custodian.service.context import Transaction
    from cloister.custodian.tokens import Actor
    from cloister.lending.terms import LoanId
    from cloister.wire import Fields, Json

__all__ = ["approve", "ask_more", "deny"]

_ID_BYTES = 8
_MAX_OPEN = 16  # requests of one loan that wait for an answer


def ask_more(transaction: Transaction, actor: Actor, loan: LoanId, body: Fields) -> Json:
    """Write down a request for ``{"units", "meter"?, "reason"?}``."""
    terms = loan_row(transaction.connection, loan).terms
    meter, units = take_meter(body, terms), body.integer("units", floor=1, cap=MAX_UNITS)
    reason = body.text("reason", cap=200) if "reason" in body else ""
    body.end()
    waiting = sum(1 for ask in list_asks(transaction.connection, loan) if ask.state is AskState.OPEN)
    if waiting >= _MAX_OPEN:
        raise Rejected.because("too_many_requests", "request for more", hint="wait until the open ones are answered")
    ask = AskRow(
        id=f"req-{transaction.context.rng(_ID_BYTES).hex()}",
        loan=loan,
        meter=meter,
        units=units,
        reason=reason,
        state=AskState.OPEN,
        created_at=transaction.now,
    )
    insert_ask(transaction.connection, ask)
    transaction.record(EventKind.MORE_REQUESTED, actor, loan, request=ask.id, meter=meter, units=units, reason=reason)
    return ask_json(ask)


def _open_ask(transaction: Transaction, loan: LoanId, ask_id: str) -> AskRow:
    ask = find_ask(transaction.connection, loan, ask_id)
    if ask is None:
        raise Rejected.because("not_found", "request for more")
    if ask.state is not AskState.OPEN:
        raise Rejected.because("already_decided", "request for more", got=ask.state.value)
    return ask


def approve(transaction: Transaction, actor: Actor, loan: LoanId, ask_id: str, body: Fields) -> Json:
    """Approve a request: its units, or ``{"units"}`` of our own, are added to the allowance at once."""
    ask = _open_ask(transaction, loan, ask_id)
    units = body.integer("units", floor=1, cap=MAX_UNITS) if "units" in body else ask.units
    body.end()
    balance = top_up_units(transaction, loan, ask.meter, units)
    decided = replace(ask, state=AskState.APPROVED, decided_at=transaction.now, decided_by=actor.id, granted=units)
    decide_ask(transaction.connection, decided)
    transaction.record(EventKind.MORE_APPROVED, actor, loan, request=ask.id, meter=ask.meter, units=units)
    transaction.record(EventKind.ALLOWANCE_ADDED, actor, loan, meter=ask.meter, units=units)
    return {**ask_json(decided), "balance": balance}


def deny(transaction: Transaction, actor: Actor, loan: LoanId, ask_id: str, body: Fields) -> Json:
    """Deny a request, with ``{"reason"?}``; nothing is added."""
    ask = _open_ask(transaction, loan, ask_id)
    reason = body.text("reason", cap=200) if "reason" in body else ""
    body.end()
    decided = replace(
        ask, state=AskState.DENIED, decided_at=transaction.now, decided_by=actor.id, granted=0, answer=reason
    )
    decide_ask(transaction.connection, decided)
    transaction.record(EventKind.MORE_DENIED, actor, loan, request=ask.id, meter=ask.meter, reason=reason)
    return ask_json(decided)
