"""The custodian's side of the lease, as one pure decision (docs/spec/lease.md; 30-metering C1-C9, C12).

The service reads instance and loan inside one transaction, calls ``decide_lease``, signs, writes what
the decision says (instance, debits, postings, audit events) and answers only after the commit. A
decision reads nothing else and changes nothing.

Not done here: the transaction and its row lock (C6, C7), the two-process fence (C2: ``verify_epoch``
compares, the store locks), recovering an older database (``recovery``).
"""

from __future__ import annotations

import hashlib
import hmac
import math
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.crypto.sign import Statement
from cloister.errors import Reason, Rejected, Unavailable
from cloister.lending.cadence import judge_cadence
from cloister.lending.clock import lifetime
from cloister.lending.ending import decide_write_off, moved, take_used
from cloister.lending.events import Event, EventKind
from cloister.lending.ledger import ALLOWANCE, Posting, escrow
from cloister.lending.messages import Lease, LeaseRequest, Refusal, Units
from cloister.lending.overdraft import Booked, reach_of
from cloister.lending.standing import blocked_meters, standing_consumers, standing_models, stops
from cloister.lending.state import Alarm, AlarmKind, InstanceState, InstanceStatus, LoanState
from cloister.lending.terms import LOAN_METER, MAX_UNITS, Meter, meters_in, unserved_cap
from cloister.lending.usage_report import contradicts

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.crypto.sign import SigningKey, VerifyKey
    from cloister.lending.events import DetailValue
    from cloister.lending.usage_report import Reported

__all__ = [
    "LeaseDecision",
    "Replay",
    "decide_lease",
    "sign_decision",
    "verify_epoch",
    "verify_request",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The same request again: return these stored bytes, write nothing (C3)."""

    reply: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseDecision:
    """What to sign and what to write, all in the same transaction.

    ``debits`` are the units to take from each balance, guarded by ``balance >= units`` (C6).
    ``instance`` has no reply yet: ``sign_decision`` fills it.
    """

    reply: Lease | Refusal
    instance: InstanceState
    debits: Units
    postings: tuple[Posting, ...]
    alarms: tuple[Alarm, ...]
    events: tuple[Event, ...]


def verify_request(statement: bytes, key: VerifyKey) -> tuple[LeaseRequest, bytes]:
    """Return the request and SHA-256 over its payload once the instance is proven to have signed it (C1).

    Touches no state. Raises ``Malformed`` and ``Rejected``.
    """
    payload = Statement.parse(statement, label=LeaseRequest.LABEL).verify([key])
    return LeaseRequest.parse(payload), hashlib.sha256(payload).digest()


def verify_epoch(*, held: int, stored: int) -> None:
    """Prove that this process still speaks for the database (C2). Raises ``Unavailable`` when fenced."""
    if held != stored:
        msg = f"custodian: epoch {held} is fenced by {stored}"
        raise Unavailable(msg, hint="another custodian took over this database; stop this one")


def decide_lease(
    request: LeaseRequest,
    request_digest: bytes,
    *,
    instance: InstanceState,
    loan: LoanState,
    reported: Reported,
    epoch: int,
    now: datetime,
    quiet_until: datetime | None = None,
) -> LeaseDecision | Replay:
    """Decide a verified request, at ``now`` and under the custodian's ``epoch``.

    Steps: 1. it is this instance's; 2. the same again is replayed, the same number with other bytes is
    a fork (C3); 3. the counters fit (C5), and the usage reports (C13); 4. nothing forbids a lease (C4, C8);
    5. no quiet time after a recovery (C11); 6. everything served is reported (C13); 7. ceilings rise by what
    the balances have (C6). Raises ``Rejected``
    (``wrong_instance``, ``wrong_seq``); then nothing is written.
    """
    if request.instance != instance.id or instance.loan != loan.terms.loan:
        raise Rejected.because("wrong_instance", "lease request", got=request.instance, want=instance.id)
    step = _Step(request=request, digest=request_digest, instance=instance, loan=loan, now=now)
    if request.seq == instance.seq:
        return _again(step)
    if request.seq != instance.seq + 1:
        raise Rejected.because("wrong_seq", "lease request", got=str(request.seq), want=str(instance.seq + 1))
    misfit = _misfit(step)
    if misfit is not None:
        return _alarm(step, misfit, f"counters of seq {request.seq}")
    if not instance.written_off and contradicts(request, reported, loan.terms):
        return _alarm(step, AlarmKind.FORK, f"usage at seq {request.seq}")
    reasons, status = stops(instance, loan, told_epoch=request.epoch, epoch=epoch, now=now)
    if reasons:
        return _stop(step, reasons, status)
    wait = _not_now(step, reported, quiet_until)
    if wait is not None:
        return _settle(step, wait)
    return _lease(step, epoch)


def _not_now(step: _Step, reported: Reported, quiet_until: datetime | None) -> Refusal | None:
    """Return the refusal of an instance that may ask again: after a recovery (C11), or with its reports (C13)."""
    if quiet_until is not None and step.now < quiet_until:
        reason = Reason(code="recovering", subject="custodian")
        return _refusal(step, (reason,), retry_after=quiet_until - step.now)
    if step.request.served > reported.index:
        want = f"records up to {step.request.served}"
        reason = Reason(code="usage_missing", subject="usage", got=str(reported.index), want=want)
        return _refusal(step, (reason,))  # at its own pace: it reports first, then asks again
    return None


def sign_decision(decision: LeaseDecision, key: SigningKey) -> tuple[bytes, InstanceState]:
    """Return the signed reply, and the instance that stores these very bytes (C12)."""
    statement = Statement.sign(key, decision.reply.LABEL, decision.reply.dump()).dump()
    if decision.instance.req_digest != decision.reply.req_digest:
        return statement, decision.instance  # the second of two requests with one number: nothing is stored
    return statement, replace(decision.instance, reply=statement)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """What one decision is about."""

    request: LeaseRequest
    digest: bytes
    instance: InstanceState
    loan: LoanState
    now: datetime


def _again(step: _Step) -> LeaseDecision | Replay:
    """Answer a number that was answered before (C3)."""
    instance = step.instance
    same = instance.req_digest is not None and hmac.compare_digest(step.digest, instance.req_digest)
    if same and instance.reply is not None:
        return Replay(reply=instance.reply)
    return _alarm(step, AlarmKind.FORK, f"two requests with seq {step.request.seq}", answered=True)


def _misfit(step: _Step) -> AlarmKind | None:
    """Return what is wrong with the counters, if anything (C5)."""
    request, instance = step.request, step.instance
    if instance.written_off:
        return None  # it gets nothing any more, and after a recovery our own counters may be the older ones
    # A file may have told of later use than this request, which was signed before it and is sent again.
    told = {meter: units - instance.filed.get(meter, 0) for meter, units in instance.used.items()}
    if any(request.used.get(meter, 0) < units for meter, units in told.items()):
        return AlarmKind.FORK
    for meter in (*request.used, *request.reserved):
        if request.used.get(meter, 0) + request.reserved.get(meter, 0) > reach_of(instance, meter):
            return AlarmKind.OVERDRAWN
    return None


def _stop(step: _Step, reasons: tuple[Reason, ...], status: InstanceStatus) -> LeaseDecision:
    decision = _settle(step, _refusal(step, reasons, stop=True))
    instance = replace(decision.instance, status=status)
    ended = decide_write_off(instance, now=step.now)
    if ended is None:
        return replace(decision, instance=instance)
    return replace(
        decision,
        instance=ended.instance,
        postings=(*decision.postings, *ended.postings),
        events=(*decision.events, *ended.events),
    )


def _alarm(step: _Step, kind: AlarmKind, detail: str, *, answered: bool = False) -> LeaseDecision:
    """Block the instance and store none of its counters; ``answered``: keep the reply this number has."""
    status = InstanceStatus.FORKED if kind is AlarmKind.FORK else InstanceStatus.OVERDRAWN
    code, event = {
        AlarmKind.FORK: ("fork_detected", EventKind.FORK_DETECTED),
        AlarmKind.OVERDRAWN: ("overdrawn", EventKind.OVERDRAFT_DETECTED),
    }[kind]
    reply = _refusal(step, (Reason(code=code, subject="instance"),), stop=True)
    final = step.instance.status is not InstanceStatus.ACTIVE
    instance = replace(step.instance, status=step.instance.status if final else status)
    if not answered:
        instance = replace(instance, seq=step.request.seq, req_digest=step.digest, reply=None)
    return LeaseDecision(
        reply=reply,
        instance=instance,
        debits={},
        postings=(),
        alarms=(Alarm(kind=kind, instance=instance.id, detail=detail),),
        events=(_event(step, event, reply), _event(step, EventKind.LEASE_REFUSED, reply)),
    )


def _refusal(
    step: _Step, reasons: tuple[Reason, ...], *, stop: bool = False, retry_after: timedelta = timedelta(0)
) -> Refusal:
    return Refusal(
        instance=step.instance.id,
        req_digest=step.digest,
        reasons=reasons,
        stop=stop,
        retry_after=timedelta(seconds=math.ceil(retry_after.total_seconds())),
        block_version=step.loan.block_version,
    )


def _settle(step: _Step, reply: Refusal) -> LeaseDecision:
    """Take the reported use, raise nothing."""
    taken = _used(step)
    return LeaseDecision(
        reply=reply,
        instance=taken.instance,
        debits={},
        postings=taken.postings,
        alarms=(),
        events=(*taken.events, _event(step, EventKind.LEASE_REFUSED, reply), *_alarm_events(step)),
    )


def _used(step: _Step) -> Booked:
    """Move what was served since the last report from escrow to spent; no debit hangs on it."""
    instance, request = step.instance, step.request
    answered = replace(instance, seq=request.seq, req_digest=step.digest, reply=None)
    if instance.written_off:
        return Booked(instance=answered, postings=(), events=())  # its escrow is empty: all counts as spent already
    taken = take_used(replace(answered, filed={}, chain_head=request.chain_head), request.used)
    ahead = {meter: units - request.used.get(meter, 0) for meter, units in taken.instance.used.items()}
    filed = {meter: units for meter, units in ahead.items() if units > 0}
    return replace(taken, instance=replace(taken.instance, filed=filed))


def _lease(step: _Step, epoch: int) -> LeaseDecision:
    loan, terms = step.loan, step.loan.terms
    taken = _used(step)
    instance = taken.instance
    meters = meters_in(terms)
    raises = {meter: _raise(step, instance, meter) for meter in meters}
    debits = {meter: units for meter, units in raises.items() if units}
    limits = {**instance.limits, **{meter: instance.limits.get(meter, 0) + raises[meter] for meter in meters}}
    reply = Lease(
        instance=instance.id,
        epoch=epoch,
        seq=step.request.seq,
        req_digest=step.digest,
        limits=limits,
        balances={meter: loan.balances.get(meter, 0) - raises[meter] for meter in meters},
        ttl=terms.ttl,
        models=standing_models(loan),
        consumers=standing_consumers(loan),
        policy_digest=loan.policy_digest,
        block_version=loan.block_version,
        issued_at=max(step.now, instance.committed_at),
        issuers=loan.issuers,
        unserved=None if step.instance.clock_trusted else unserved_cap(terms, trusted=False),
    )
    escrowed = tuple(moved(instance, meter, ALLOWANCE, escrow(instance.id), units) for meter, units in debits.items())
    committed_at = max(step.now, instance.committed_at)
    dead_at = committed_at + lifetime(terms.holds)
    if instance.limits:  # an earlier lease may live longer; before the first one there is none
        dead_at = max(dead_at, instance.dead_at)
    return LeaseDecision(
        reply=reply,
        instance=replace(instance, limits=limits, committed_at=committed_at, dead_at=dead_at),
        debits=debits,
        postings=(*taken.postings, *escrowed),
        alarms=(),
        events=(
            *taken.events,
            _event(step, EventKind.LEASE_GRANTED, reply),
            *_clock_events(step),
            *_alarm_events(step),
        ),
    )


def _clock_events(step: _Step) -> tuple[Event, ...]:
    """Return the alarm where this instance's renewals do not come as T says."""
    code = judge_cadence(step.instance, seq=step.request.seq, ttl=step.loan.terms.ttl, now=step.now)
    if code is None:
        return ()
    details: dict[str, DetailValue] = {"codes": code, "loan": step.instance.loan, "seq": step.request.seq}
    return (Event(kind=EventKind.CLOCK_ANOMALY, actor=step.instance.id, subject=step.instance.loan, details=details),)


def _alarm_events(step: _Step) -> tuple[Event, ...]:
    """Return an entry for each kind of alarm that the enclave counted since its request before."""
    return tuple(
        Event(
            kind=EventKind.EXTRACTION_ALARM,
            actor=step.instance.id,
            subject=step.instance.loan,
            details={"alarms": count, "codes": kind.value, "loan": step.instance.loan, "seq": step.request.seq},
        )
        for kind, count in sorted(step.request.alarms.items(), key=lambda item: item[0].value)
    )


def _raise(step: _Step, instance: InstanceState, meter: Meter) -> int:
    """Return by how much a ceiling rises: what is wanted, no more than N unserved, no more than there is."""
    terms, limit = step.loan.terms, instance.limits.get(meter, 0)
    if meter in blocked_meters(step.loan):
        return 0
    cap = unserved_cap(terms, trusted=step.instance.clock_trusted)
    unserved = min(MAX_UNITS, step.request.used.get(meter, 0) + cap)
    wanted = max(0, min(step.request.want.get(meter, 0), unserved) - limit)
    if terms.rate_cap and step.instance.limits:
        elapsed = max(timedelta(0), step.now - step.instance.committed_at)
        wanted = min(wanted, math.ceil(terms.rate_cap * elapsed.total_seconds()))
        # Each answer rounds up, so many quick ones would add up to more than the rate: in all there is a cap too.
        lived = max(timedelta(0), step.now - step.instance.attested_at)
        in_all = cap + math.ceil(terms.rate_cap * lived.total_seconds())
        wanted = min(wanted, max(0, in_all - limit))
    return min(wanted, step.loan.balances.get(meter, 0))


def _event(step: _Step, kind: EventKind, reply: Lease | Refusal) -> Event:
    details: dict[str, DetailValue] = {
        "block_version": reply.block_version,
        "loan": step.instance.loan,
        "reply_digest": hashlib.sha256(reply.dump()).hexdigest(),
        "req_digest": step.digest.hex(),
        "seq": step.request.seq,
    }
    if isinstance(reply, Lease):
        details["limit"] = reply.limits.get(LOAN_METER, 0)
        details["used"] = step.request.used.get(LOAN_METER, 0)
    else:
        details["codes"] = ",".join(dict.fromkeys(reason.code for reason in reply.reasons))
        details["stop"] = reply.stop
    return Event(kind=kind, actor=step.instance.id, subject=step.instance.loan, details=details)
