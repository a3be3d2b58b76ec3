"""The custodian's side of tickets, as one pure decision (docs/spec/ticket.md).

A ticket is paid at once: its units leave the allowance for ``spent`` in the transaction that signs it. It is for one
commitment and stored, so that the same request gets the same bytes, and another request under the same index proves
a second copy. Charged is charged: what the enclave then does with it, nobody but the enclave knows.

Not done here: the transaction and its row lock, the stored rows (``custodian/service/tickets``).
"""

from __future__ import annotations

import hashlib
import hmac
import math
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.crypto.sign import Statement
from cloister.errors import Reason, Rejected
from cloister.lending.conditions import outside_hours
from cloister.lending.events import Event, EventKind
from cloister.lending.lease_grant import Replay
from cloister.lending.ledger import ALLOWANCE, SPENT, Posting
from cloister.lending.messages import Refusal, Ticket, TicketRequest
from cloister.lending.standing import stops
from cloister.lending.state import Alarm, AlarmKind, InstanceState, InstanceStatus, LoanState
from cloister.lending.terms import LOAN_METER, meters_of, unserved_cap

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.crypto.sign import SigningKey, VerifyKey
    from cloister.lending.events import DetailValue
    from cloister.lending.terms import Consumer, Meter, ModelTerms

__all__ = ["TICKET_LIFE", "TicketDecision", "TicketState", "decide_ticket", "sign_ticket", "verify_ticket_request"]

TICKET_LIFE = timedelta(seconds=30)  # from asking to the start of the inference


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketState:
    """The latest ticket of an instance: which request it answers, its stored bytes, and the units of all so far."""

    index: int = 0
    req_digest: bytes = b""
    reply: bytes = b""
    units: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketDecision:
    """What to sign and what to write, all in the same transaction. ``tickets`` has no reply yet."""

    reply: Ticket | Refusal
    instance: InstanceState
    tickets: TicketState
    postings: tuple[Posting, ...]
    alarms: tuple[Alarm, ...]
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    request: TicketRequest
    digest: bytes
    instance: InstanceState
    tickets: TicketState
    loan: LoanState
    now: datetime


def verify_ticket_request(statement: bytes, key: VerifyKey) -> tuple[TicketRequest, bytes]:
    """Return the request and SHA-256 over its payload once the instance is proven to have signed it (C1)."""
    payload = Statement.parse(statement, label=TicketRequest.LABEL).verify([key])
    return TicketRequest.parse(payload), hashlib.sha256(payload).digest()


def decide_ticket(
    request: TicketRequest,
    request_digest: bytes,
    *,
    instance: InstanceState,
    tickets: TicketState,
    loan: LoanState,
    epoch: int,
    now: datetime,
    quiet_until: datetime | None = None,
) -> TicketDecision | Replay:
    """Decide a verified ticket request.

    Steps: 1. it is this instance's; 2. the same again is replayed, the same index with other bytes is a fork (C3);
    3. nothing forbids anything to this instance (C4, C8); 4. model and consumer are the loan's, not blocked, and the
    loan is open now; 5. every meter has the units, within the rate (C6). Raises ``Rejected`` (``wrong_instance``,
    ``wrong_seq``); then nothing is written.
    """
    if request.instance != instance.id or instance.loan != loan.terms.loan:
        raise Rejected.because("wrong_instance", "ticket request", got=request.instance, want=instance.id)
    step = _Step(request=request, digest=request_digest, instance=instance, tickets=tickets, loan=loan, now=now)
    if request.index == tickets.index:
        if hmac.compare_digest(request_digest, tickets.req_digest):
            return Replay(reply=tickets.reply)
        return _fork(step)
    if request.index != tickets.index + 1:
        raise Rejected.because("wrong_seq", "ticket request", got=str(request.index), want=str(tickets.index + 1))
    reasons, status = stops(instance, loan, told_epoch=request.epoch, epoch=epoch, now=now)
    if reasons:
        stopped = replace(instance, status=status)
        return replace(_refused(step, reasons, stop=True), instance=stopped)
    if quiet_until is not None and now < quiet_until:
        return _refused(step, (Reason(code="recovering", subject="custodian"),), after=quiet_until - now)
    named = (item.at(request.model) for item in loan.terms.models if item.ticketed)
    model = next((item for item in named if item is not None), None)
    consumer = _consumer(request, loan)
    reasons = _unservable(step, model, consumer)
    if model is None or reasons:
        return _refused(step, reasons)
    return _ticket(step, meters_of(model, consumer), epoch)


def sign_ticket(decision: TicketDecision, key: SigningKey) -> tuple[bytes, TicketState]:
    """Return the signed reply, and the state that stores these very bytes (C12)."""
    statement = Statement.sign(key, decision.reply.LABEL, decision.reply.dump()).dump()
    if decision.tickets.req_digest != decision.reply.req_digest:
        return statement, decision.tickets  # the second of two requests with one index: nothing is stored
    return statement, replace(decision.tickets, reply=statement)


def _consumer(request: TicketRequest, loan: LoanState) -> Consumer | None:
    return next((item for item in loan.terms.consumers or () if item.id == request.consumer), None)


def _unservable(step: _Step, model: ModelTerms | None, consumer: Consumer | None) -> tuple[Reason, ...]:
    """Return every reason why this inference gets no ticket now; the instance goes on."""
    loan, request, reasons = step.loan, step.request, []
    if model is None:
        return (Reason(code="unknown_model", subject="ticket request", got=request.model),)
    if model.digest in loan.blocked_models:
        reasons.append(Reason(code="blocked", subject=f"model {model.name}"))
    if (loan.terms.consumers is not None or request.consumer is not None) and consumer is None:
        reasons.append(Reason(code="unauthorized", subject="consumer"))
    elif consumer is not None and consumer.id in loan.blocked_consumers:
        reasons.append(Reason(code="blocked", subject=f"consumer {consumer.id}"))
    closed = outside_hours(loan.terms.clauses, step.now)
    if closed is not None:
        reasons.append(closed)
    reasons += [
        Reason(code="allowance_exhausted", subject=meter, got=str(loan.balances.get(meter, 0)), want=str(request.units))
        for meter in meters_of(model, consumer)
        if loan.balances.get(meter, 0) < request.units
    ]
    if loan.terms.rate_cap and step.tickets.units + request.units > _rate_room(step):
        reasons.append(Reason(code="rate_capped", subject="loan", want=f"{loan.terms.rate_cap} units a second"))
    return tuple(reasons)


def _rate_room(step: _Step) -> int:
    """Return the units that all tickets of this instance may come to by now."""
    terms = step.loan.terms
    lived = max(timedelta(0), step.now - step.instance.attested_at)
    cap = unserved_cap(terms, trusted=step.instance.clock_trusted)
    return cap + math.ceil(terms.rate_cap * lived.total_seconds())


def _ticket(step: _Step, meters: tuple[Meter, ...], epoch: int) -> TicketDecision:
    request = step.request
    reply = Ticket(
        instance=step.instance.id,
        epoch=epoch,
        index=request.index,
        req_digest=step.digest,
        request=request.request,
        model=request.model,
        units=request.units,
        ttl=TICKET_LIFE,
        block_version=step.loan.block_version,
    )
    postings = tuple(
        Posting(
            loan=step.instance.loan, meter=meter, debit_account=ALLOWANCE, credit_account=SPENT, units=request.units
        )
        for meter in meters
    )
    return TicketDecision(
        reply=reply,
        instance=step.instance,
        tickets=_answered(step, units=request.units),
        postings=postings,
        alarms=(),
        events=(_event(step, EventKind.TICKET_GRANTED, reply),),
    )


def _refused(
    step: _Step, reasons: tuple[Reason, ...], *, stop: bool = False, after: timedelta = timedelta(0)
) -> TicketDecision:
    reply = Refusal(
        instance=step.instance.id,
        req_digest=step.digest,
        reasons=reasons,
        stop=stop,
        retry_after=timedelta(seconds=math.ceil(after.total_seconds())),
        block_version=step.loan.block_version,
    )
    return TicketDecision(
        reply=reply,
        instance=step.instance,
        tickets=_answered(step, units=0),
        postings=(),
        alarms=(),
        events=(_event(step, EventKind.TICKET_REFUSED, reply),),
    )


def _fork(step: _Step) -> TicketDecision:
    """Stop the instance; the index keeps the reply it has."""
    refused = _refused(step, (Reason(code="fork_detected", subject="instance"),), stop=True)
    instance = step.instance
    if instance.status is InstanceStatus.ACTIVE:
        instance = replace(instance, status=InstanceStatus.FORKED)
    detail = f"two ticket requests with index {step.request.index}"
    return replace(
        refused,
        instance=instance,
        tickets=step.tickets,
        alarms=(Alarm(kind=AlarmKind.FORK, instance=instance.id, detail=detail),),
        events=(_event(step, EventKind.FORK_DETECTED, refused.reply), *refused.events),
    )


def _answered(step: _Step, *, units: int) -> TicketState:
    return TicketState(index=step.request.index, req_digest=step.digest, units=step.tickets.units + units)


def _event(step: _Step, kind: EventKind, reply: Ticket | Refusal) -> Event:
    details: dict[str, DetailValue] = {
        "loan": step.instance.loan,
        "reply_digest": hashlib.sha256(reply.dump()).hexdigest(),
        "req_digest": step.digest.hex(),
        "seq": step.request.index,
    }
    if isinstance(reply, Ticket):
        details |= {"meter": LOAN_METER, "model": reply.model, "units": reply.units}
    else:
        details["codes"] = ",".join(dict.fromkeys(reason.code for reason in reply.reasons))
        details["stop"] = reply.stop
    return Event(kind=kind, actor=step.instance.id, subject=step.instance.loan, details=details)
