"""The custodian's side of vouchers, as pure decisions: sign one, settle what was served (docs/spec/voucher.md).

As with leases the allowance is debited when a ceiling rises, never when use is reported, and the same request
gets the same stored bytes. What differs is the road: files come late, twice, in any order or never, so smaller
counters than known are old news and no evidence; only two files that one honest instance cannot both have signed are.

Not done here: the transaction, the stored rows, paying an overdraft back (``custodian/service/vouchers``).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cloister.crypto.sign import Statement
from cloister.errors import Reason, Rejected
from cloister.lending.clock import lifetime
from cloister.lending.ending import moved, take_used
from cloister.lending.events import Event, EventKind
from cloister.lending.lease_grant import Replay
from cloister.lending.ledger import ALLOWANCE, Posting, escrow
from cloister.lending.messages import Consumption, Units, Voucher, VoucherRequest
from cloister.lending.overdraft import promised, reach_of
from cloister.lending.standing import blocked_meters, standing_consumers, standing_models, stops
from cloister.lending.state import Alarm, AlarmKind, InstanceState, InstanceStatus, LoanState
from cloister.lending.terms import LOAN_METER, MAX_UNITS, Meter, meters_in
from cloister.lending.usage_report import contradicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from cloister.crypto.sign import VerifyKey
    from cloister.lending.clauses import OfflineTerm
    from cloister.lending.events import DetailValue
    from cloister.lending.overdraft import Booked
    from cloister.lending.terms import Terms
    from cloister.lending.usage_report import Reported

__all__ = [
    "Issued",
    "SettleDecision",
    "VoucherDecision",
    "decide_consumption",
    "decide_voucher",
    "overdraft_room",
    "verify_consumption",
    "verify_voucher_request",
]

_FOUND = {
    AlarmKind.FORK: (InstanceStatus.FORKED, "fork_detected", EventKind.FORK_DETECTED),
    AlarmKind.OVERDRAWN: (InstanceStatus.OVERDRAWN, "overdrawn", EventKind.OVERDRAFT_DETECTED),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """The latest voucher of an instance: which request it answers, and its stored bytes."""

    seq: int
    req_digest: bytes
    reply: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class VoucherDecision:
    """What to sign and what to write, all in the same transaction; without a ``reply`` the instance is stopped."""

    reply: Voucher | None
    instance: InstanceState
    debits: Units
    postings: tuple[Posting, ...]
    alarms: tuple[Alarm, ...]
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleDecision:
    """What to write for a consumption statement; ``settled`` are the units that were not known before."""

    instance: InstanceState
    settled: Units
    postings: tuple[Posting, ...]
    alarms: tuple[Alarm, ...]
    events: tuple[Event, ...]


def verify_voucher_request(statement: bytes, key: VerifyKey) -> tuple[VoucherRequest, bytes]:
    """Return the request and SHA-256 over its payload once the instance is proven to have signed it (C1)."""
    payload = Statement.parse(statement, label=VoucherRequest.LABEL).verify([key])
    return VoucherRequest.parse(payload), hashlib.sha256(payload).digest()


def verify_consumption(statement: bytes, key: VerifyKey) -> Consumption:
    """Return the statement once the instance is proven to have signed it. Raises ``Malformed`` and ``Rejected``."""
    return Consumption.parse(Statement.parse(statement, label=Consumption.LABEL).verify([key]))


def overdraft_room(term: OfflineTerm, others: Iterable[InstanceState], owed: Mapping[Meter, int]) -> int:
    """Return the overdraft that may still be promised: less what other instances may draw, less what is owed.

    ``others`` are the loan's standing instances but the one that asks; ``owed`` is the debt per meter.
    """
    return max(0, term.overdraft - sum(promised(item) for item in others) - max(owed.values(), default=0))


def decide_voucher(
    request: VoucherRequest,
    request_digest: bytes,
    *,
    instance: InstanceState,
    loan: LoanState,
    last: Issued | None,
    reported: Reported,
    overdraft: int,
    units: int,
    epoch: int,
    now: datetime,
    quiet_until: datetime | None = None,
) -> VoucherDecision | Replay:
    """Decide a verified voucher request. ``units`` is the most that the custodian's staff lets it carry.

    Steps: 1. it is this instance's; 2. the same again is replayed, the same number with other bytes is a fork (C3);
    3. the counters are within reach (C5) and fit the usage reports (C13); 4. the loan has an offline term, nothing
    forbids it (C4, C8, C11) and everything served is reported (C13); 5. ceilings rise by what the balances have (C6).
    Raises ``Rejected`` with every reason; then nothing is written.
    """
    _demand_ours(request, instance, loan, "voucher request")
    if last is not None and request.seq == last.seq:
        if hmac.compare_digest(request_digest, last.req_digest):
            return Replay(reply=last.reply)
        return _stopped(instance, AlarmKind.FORK, request_digest, f"two voucher requests with seq {request.seq}")
    if last is not None and request.seq < last.seq:
        raise Rejected.because("wrong_seq", "voucher request", got=str(request.seq), want=f"more than {last.seq}")
    if _beyond_reach(instance, request.used, request.reserved):
        detail = f"counters of voucher request {request.seq}"
        return _stopped(instance, AlarmKind.OVERDRAWN, request_digest, detail)
    if not instance.written_off and contradicts(request, reported, loan.terms):
        return _stopped(instance, AlarmKind.FORK, request_digest, f"usage at voucher request {request.seq}")
    term = _demand_issuable(request, instance, loan, epoch=epoch, now=now, quiet_until=quiet_until)
    if request.served > reported.index:
        want = f"records up to {request.served}"
        hint = "bring the enclave's usage files first: 'cloister loan voucher settle'"
        raise Rejected.because("usage_missing", "usage", got=str(reported.index), want=want, hint=hint)
    return _issue(request, request_digest, instance=instance, loan=loan, term=term, overdraft=overdraft,
                  units=min(units, _most(instance, loan.terms, term)), epoch=epoch, now=now)  # fmt: skip


def decide_consumption(
    statement: Consumption,
    *,
    instance: InstanceState,
    loan: LoanState,
    last: Consumption | None,
    reported: Reported,
    is_known: bool,
) -> SettleDecision | None:
    """Decide a verified consumption statement; None where it says nothing new.

    ``last`` is the statement with the largest number so far, ``is_known`` that its voucher was signed for this
    instance. Of two statements the one with the larger number must count at least as much: else there are two
    signers, and that is a fork. Raises ``Rejected`` (``wrong_instance``, ``wrong_loan``, ``voucher_unknown``).
    """
    _demand_ours(statement, instance, loan, "consumption statement")
    if not is_known:
        raise Rejected.because("voucher_unknown", "consumption statement", got=statement.voucher.hex()[:16])
    digest = hashlib.sha256(statement.dump()).digest()
    if last is not None and _contradict(statement, last):
        return _settled(_stopped(instance, AlarmKind.FORK, digest, f"consumption statement {statement.number}"))
    if instance.written_off:
        return None  # its escrow is empty: all of it counts as spent already
    if contradicts(statement, reported, loan.terms):  # an older one too: what it says is held against the reports
        return _settled(_stopped(instance, AlarmKind.FORK, digest, f"usage at statement {statement.number}"))
    if last is not None and statement.number <= last.number:
        return None
    if _beyond_reach(instance, statement.used, {}):
        return _settled(_stopped(instance, AlarmKind.OVERDRAWN, digest, f"consumption statement {statement.number}"))
    taken = _told(instance, statement.used)
    settled = _newer(instance, statement.used)
    details: dict[str, DetailValue] = {
        "loan": instance.loan,
        "req_digest": digest.hex(),
        "seq": statement.number,
        "units": settled.get(LOAN_METER, 0),
        "used": taken.instance.used.get(LOAN_METER, 0),
    }
    event = Event(kind=EventKind.VOUCHER_SETTLED, actor=instance.id, subject=instance.loan, details=details)
    return SettleDecision(
        instance=taken.instance,
        settled=settled,
        postings=taken.postings,
        alarms=(),
        events=(*taken.events, event),
    )


def _demand_ours(message: VoucherRequest | Consumption, instance: InstanceState, loan: LoanState, what: str) -> None:
    if message.instance != instance.id:
        raise Rejected.because("wrong_instance", what, got=message.instance, want=instance.id)
    if message.loan != instance.loan or instance.loan != loan.terms.loan:
        raise Rejected.because("wrong_loan", what, got=message.loan, want=loan.terms.loan)


def _demand_issuable(
    request: VoucherRequest,
    instance: InstanceState,
    loan: LoanState,
    *,
    epoch: int,
    now: datetime,
    quiet_until: datetime | None,
) -> OfflineTerm:
    """Return the offline term. Raises ``Rejected`` with every reason why there is no voucher."""
    term = loan.terms.clauses.offline
    reasons, _ = stops(instance, loan, told_epoch=request.epoch, epoch=epoch, now=now)
    if quiet_until is not None and now < quiet_until:
        reasons = (*reasons, Reason(code="recovering", subject="custodian"))
    if term is None or reasons:
        reasons = reasons if term else (Reason(code="no_offline_term", subject="loan"), *reasons)
        raise Rejected("; ".join(map(str, reasons)), reasons=reasons)
    return term


def _issue(
    request: VoucherRequest,
    digest: bytes,
    *,
    instance: InstanceState,
    loan: LoanState,
    term: OfflineTerm,
    overdraft: int,
    units: int,
    epoch: int,
    now: datetime,
) -> VoucherDecision:
    taken = _told(instance, request.used)
    after, meters = taken.instance, meters_in(loan.terms)
    raises = {meter: _raise(request, after, loan, meter, units) for meter in meters}
    debits = {meter: count for meter, count in raises.items() if count}
    limits = {**after.limits, **{meter: after.limits.get(meter, 0) + raises[meter] for meter in meters}}
    if limits[LOAN_METER] <= after.used.get(LOAN_METER, 0) and not overdraft:
        raise Rejected.because("allowance_exhausted", LOAN_METER, got="0", want="at least 1")
    reply = Voucher(
        instance=instance.id,
        loan=instance.loan,
        epoch=epoch,
        seq=request.seq,
        req_digest=digest,
        chain_head=request.chain_head,
        limits=limits,
        overdraft=overdraft,
        lasts=term.lasts,
        models=standing_models(loan),
        consumers=standing_consumers(loan),
        policy_digest=loan.policy_digest,
        block_version=loan.block_version,
        issued_at=now,
    )
    ends = [now + lifetime(term.lasts), *([instance.voucher_until] if instance.voucher_until else [])]
    escrowed = tuple(moved(instance, meter, ALLOWANCE, escrow(instance.id), count) for meter, count in debits.items())
    return VoucherDecision(
        reply=reply,
        instance=replace(
            after,
            limits=limits,
            reach={meter: max(after.reach.get(meter, 0), limits[meter] + overdraft) for meter in limits},
            voucher_until=max(ends),
            dead_at=max(instance.dead_at, now + lifetime(loan.terms.holds)),
        ),
        debits=debits,
        postings=(*taken.postings, *escrowed),
        alarms=(),
        events=(*taken.events, _issued(reply)),
    )


def _most(instance: InstanceState, terms: Terms, term: OfflineTerm) -> int:
    """Return the most units of one voucher: the clause's.

    Under a clock that its host may freeze a voucher has no end but this count: where the loan names a ceiling for
    such clocks, that bounds it too.
    """
    untrusted = None if instance.clock_trusted else terms.untrusted_ceiling
    return term.units if untrusted is None else min(term.units, untrusted)


def _raise(request: VoucherRequest, instance: InstanceState, loan: LoanState, meter: Meter, units: int) -> int:
    """Return by how much a ceiling rises: what is wanted, no more than ``units`` unserved, no more than there is."""
    if meter in blocked_meters(loan):
        return 0
    unserved = min(MAX_UNITS, instance.used.get(meter, 0) + units)
    wanted = max(0, min(request.want.get(meter, 0), unserved) - instance.limits.get(meter, 0))
    return min(wanted, loan.balances.get(meter, 0))


def _issued(reply: Voucher) -> Event:
    details: dict[str, DetailValue] = {
        "block_version": reply.block_version,
        "limit": reply.limits.get(LOAN_METER, 0),
        "loan": reply.loan,
        "reply_digest": hashlib.sha256(reply.dump()).hexdigest(),
        "req_digest": reply.req_digest.hex(),
        "seq": reply.seq,
        "units": reply.overdraft,
    }
    return Event(kind=EventKind.VOUCHER_ISSUED, actor="custodian", subject=reply.instance, details=details)


def _newer(instance: InstanceState, used: Units) -> dict[Meter, int]:
    """Return the units that were not known before."""
    known = instance.used
    return {meter: units - known.get(meter, 0) for meter, units in used.items() if units > known.get(meter, 0)}


def _told(instance: InstanceState, used: Units) -> Booked:
    """Take counters that came in a file. They may be older or newer than those of the last lease request."""
    ahead = _newer(instance, used)
    taken = take_used(instance, used)
    filed = {**instance.filed, **{meter: instance.filed.get(meter, 0) + units for meter, units in ahead.items()}}
    return replace(taken, instance=replace(taken.instance, filed=filed))


def _beyond_reach(instance: InstanceState, used: Units, reserved: Units) -> bool:
    if instance.written_off:
        return False  # it gets nothing any more, and after a recovery our own counters may be the older ones
    meters = {*used, *reserved}
    return any(used.get(meter, 0) + reserved.get(meter, 0) > reach_of(instance, meter) for meter in meters)


def _contradict(one: Consumption, other: Consumption) -> bool:
    """Tell whether one honest instance cannot have signed both: its counts go with its numbers.

    Where both end at one record, they say the same of it.
    """
    if one.number == other.number:
        return one != other
    early, late = sorted((one, other), key=lambda item: item.number)
    back = any(late.used.get(meter, 0) < units for meter, units in early.used.items())
    if early.last == late.last:
        ahead = any(early.used.get(meter, 0) < units for meter, units in late.used.items())
        return back or ahead or not hmac.compare_digest(early.chain_head, late.chain_head)
    return back or late.last < early.last


def _stopped(instance: InstanceState, kind: AlarmKind, digest: bytes, detail: str) -> VoucherDecision:
    """Stop the instance and store none of the counters."""
    status, code, event = _FOUND[kind]
    details: dict[str, DetailValue] = {"codes": code, "loan": instance.loan, "req_digest": digest.hex()}
    if instance.status is InstanceStatus.ACTIVE:
        instance = replace(instance, status=status)
    return VoucherDecision(
        reply=None,
        instance=instance,
        debits={},
        postings=(),
        alarms=(Alarm(kind=kind, instance=instance.id, detail=detail),),
        events=(Event(kind=event, actor=instance.id, subject=instance.loan, details=details),),
    )


def _settled(stopped: VoucherDecision) -> SettleDecision:
    return SettleDecision(
        instance=stopped.instance, settled={}, postings=(), alarms=stopped.alarms, events=stopped.events
    )
