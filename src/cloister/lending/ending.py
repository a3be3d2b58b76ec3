"""How an instance ends: by a close, or by time; and how long a block can take (30-metering C8, I3, T50).

What an instance never served is written off as spent. It goes back to the allowance only where the
loan says so and the instance's memory provably cannot be copied: else a copy serves it a second time.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cloister.crypto.sign import Statement
from cloister.errors import Rejected
from cloister.lending.clock import lifetime
from cloister.lending.events import Event, EventKind
from cloister.lending.ledger import ALLOWANCE, SPENT, WRITTEN_OFF, Account, Posting, escrow
from cloister.lending.messages import Close, Units
from cloister.lending.overdraft import Booked, book, reach_of
from cloister.lending.state import Alarm, AlarmKind, InstanceState, InstanceStatus, LoanState
from cloister.lending.terms import LOAN_METER, Meter
from cloister.lending.usage_report import contradicts

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta

    from cloister.crypto.sign import VerifyKey
    from cloister.lending.events import DetailValue
    from cloister.lending.usage_report import Reported

__all__ = [
    "Bound",
    "CloseDecision",
    "WriteOff",
    "block_bound",
    "decide_close",
    "decide_write_off",
    "is_live",
    "moved",
    "take_used",
    "verify_close",
]


_FOUND_OUT = {
    InstanceStatus.FORKED: EventKind.FORK_DETECTED,
    InstanceStatus.OVERDRAWN: EventKind.OVERDRAFT_DETECTED,
}
"""What a close does not wash off, and how the log says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOff:
    """An instance that can serve no more, and the rest of its ceilings counted as spent (C8)."""

    instance: InstanceState
    postings: tuple[Posting, ...]
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """How long, and how much, can still be served after a block: whichever ends first."""

    seconds: int
    units: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseDecision:
    """What to write for a close; ``credits`` are the units to give back to each balance (usually none)."""

    instance: InstanceState
    credits: Units
    postings: tuple[Posting, ...]
    alarms: tuple[Alarm, ...]
    events: tuple[Event, ...]


def moved(instance: InstanceState, meter: Meter, debit: Account, credit: Account, units: int) -> Posting:
    """Return the posting that moves ``units`` of this instance's loan."""
    return Posting(loan=instance.loan, meter=meter, debit_account=debit, credit_account=credit, units=units)


def take_used(instance: InstanceState, used: Units) -> Booked:
    """Move what was served and not known yet from escrow to spent; what lies beyond a ceiling is booked first.

    The caller has proven ``used`` to be within reach. Counters never go back.
    """
    booked = book(instance, used)
    instance = booked.instance
    newer = {meter: units for meter, units in used.items() if units > instance.used.get(meter, 0)}
    spent = tuple(
        moved(instance, meter, escrow(instance.id), SPENT, units - instance.used.get(meter, 0))
        for meter, units in newer.items()
    )
    after = replace(instance, used={**instance.used, **newer})
    return Booked(instance=after, postings=(*booked.postings, *spent), events=booked.events)


def verify_close(statement: bytes, key: VerifyKey) -> Close:
    """Return the close once the instance is proven to have signed it. Raises ``Malformed`` and ``Rejected``."""
    return Close.parse(Statement.parse(statement, label=Close.LABEL).verify([key]))


def decide_close(
    close: Close, *, instance: InstanceState, loan: LoanState, reported: Reported, now: datetime
) -> CloseDecision | None:
    """Decide a verified close; None when this instance was closed before (nothing to write).

    Raises ``Rejected`` (``wrong_instance``, ``wrong_seq``); then nothing is written.
    """
    if close.instance != instance.id or instance.loan != loan.terms.loan:
        raise Rejected.because("wrong_instance", "close", got=close.instance, want=instance.id)
    found_out = instance.status in _FOUND_OUT
    if instance.status is InstanceStatus.CLOSED or (found_out and instance.written_off):
        return None
    if close.seq <= instance.seq:
        raise Rejected.because("wrong_seq", "close", got=str(close.seq), want=f"more than {instance.seq}")
    if instance.written_off or now >= instance.dead_at:
        # Its escrow counts as spent already; after a recovery our own counters may be the older ones.
        return _closed(close, replace(instance, status=instance.status if found_out else InstanceStatus.CLOSED))
    alarm = _misfit(close, instance)
    if alarm is None and contradicts(close, reported, loan.terms):
        alarm = AlarmKind.FORK
    if alarm is not None and found_out:
        return None
    if alarm is not None:
        status = InstanceStatus.FORKED if alarm is AlarmKind.FORK else InstanceStatus.OVERDRAWN
        return _closed(close, replace(instance, status=status), alarms=(_alarm(alarm, close),))
    taken = take_used(instance, close.used)
    gives_back = loan.refund_on_close and instance.clone_proof and instance.status is InstanceStatus.ACTIVE
    after = replace(
        taken.instance,
        chain_head=close.chain_head,
        status=instance.status if found_out else InstanceStatus.CLOSED,
        written_off=True,
    )
    rest = _rest(after, ALLOWANCE if gives_back else WRITTEN_OFF)
    credit = {posting.meter: posting.units for posting in rest} if gives_back else {}
    return _closed(close, after, credit=credit, postings=(*taken.postings, *rest), events=taken.events)


def decide_write_off(instance: InstanceState, *, now: datetime) -> WriteOff | None:
    """Count the rest of an instance's ceilings as spent once no lease or voucher of it can be alive (C8).

    Returns None while one can be, and when it was done before. Nothing goes back to the allowance. An overdraft that
    was promised counts as used: nobody will ever say how much of it was.
    """
    if instance.written_off or now < instance.dead_at:
        return None
    booked = book(instance, instance.reach)
    instance = booked.instance
    postings = _rest(instance, WRITTEN_OFF)
    status = InstanceStatus.DEAD if instance.status is InstanceStatus.ACTIVE else instance.status
    units = sum(posting.units for posting in postings if posting.meter == LOAN_METER)
    event = Event(
        kind=EventKind.INSTANCE_WRITTEN_OFF,
        actor="custodian",
        subject=instance.id,
        details={"loan": instance.loan, "units": units},
    )
    return WriteOff(
        instance=replace(instance, status=status, written_off=True),
        postings=(*booked.postings, *postings),
        events=(*booked.events, event),
    )


def block_bound(instances: Iterable[InstanceState], *, ttl: timedelta, now: datetime) -> Bound:
    """Return the bound to print wherever something can be blocked: seconds and units at most.

    An instance with a voucher hears of no block: it may serve until the voucher's end, overdraft included.
    """
    live = tuple(item for item in instances if is_live(item, now=now))
    units = sum(reach_of(item, LOAN_METER) - item.used.get(LOAN_METER, 0) for item in live)
    vouchers = (item.voucher_until - now for item in live if item.voucher_until is not None)
    return Bound(seconds=math.ceil(max((lifetime(ttl), *vouchers)).total_seconds()), units=units)


def is_live(instance: InstanceState, *, now: datetime) -> bool:
    """Tell whether this instance may still serve: it counts against ``max_instances`` until it cannot."""
    return not instance.written_off and now < instance.dead_at


def _rest(instance: InstanceState, account: Account) -> tuple[Posting, ...]:
    """Move what was never served out of an instance's escrow."""
    left = {meter: limit - instance.used.get(meter, 0) for meter, limit in instance.limits.items()}
    return tuple(moved(instance, meter, escrow(instance.id), account, units) for meter, units in left.items() if units)


def _misfit(close: Close, instance: InstanceState) -> AlarmKind | None:
    if any(close.used.get(meter, 0) < units for meter, units in instance.used.items()):
        return AlarmKind.FORK
    if any(units > reach_of(instance, meter) for meter, units in close.used.items()):
        return AlarmKind.OVERDRAWN
    return None


def _alarm(kind: AlarmKind, close: Close) -> Alarm:
    return Alarm(kind=kind, instance=close.instance, detail=f"counters of close {close.seq}")


def _closed(
    close: Close,
    instance: InstanceState,
    *,
    credit: Units | None = None,
    postings: tuple[Posting, ...] = (),
    alarms: tuple[Alarm, ...] = (),
    events: tuple[Event, ...] = (),
) -> CloseDecision:
    kinds = (*(_FOUND_OUT[instance.status] for _ in alarms), EventKind.INSTANCE_CLOSED)
    details: dict[str, DetailValue] = {
        "kind": instance.status.value,
        "req_digest": hashlib.sha256(close.dump()).hexdigest(),
        "seq": close.seq,
        "used": close.used.get(LOAN_METER, 0),
    }
    said = tuple(Event(kind=kind, actor=instance.id, subject=instance.loan, details=details) for kind in kinds)
    return CloseDecision(
        instance=instance, credits=credit or {}, postings=postings, alarms=alarms, events=(*events, *said)
    )
