"""The custodian's side of usage: take reports in order, hold requests and closes against them (docs/spec/usage.md).

One pure decision per report, as ``lease_grant`` decides over requests. What two signed words of one instance
contradict is fork evidence, exactly as in C3 and C5; what an honest instance can bring about by lost, late or
repeated messages never is.

Not done here: the transaction, storing the bytes, statements (``usage_statement``).
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

from cloister.crypto.sign import Statement
from cloister.errors import Rejected
from cloister.lending.events import Event, EventKind
from cloister.lending.messages import UsageAck, UsageReport
from cloister.lending.overdraft import reach_of
from cloister.lending.receipt import GENESIS, next_head
from cloister.lending.state import Alarm, AlarmKind, InstanceState, InstanceStatus
from cloister.lending.terms import LOAN_METER, ConsumerId, ModelDigest, consumer_meter, model_meter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cloister.crypto.sign import SigningKey, VerifyKey
    from cloister.lending.messages import Units, UsageRecord
    from cloister.lending.terms import Meter, Terms

__all__ = [
    "Counted",
    "ReportDecision",
    "Reported",
    "Totals",
    "contradicts",
    "decide_report",
    "head_of",
    "sign_ack",
    "ticketed_units",
    "totals_of",
    "units_by_meter",
    "units_of",
    "verify_report",
]

Totals: TypeAlias = "Mapping[tuple[ModelDigest, ConsumerId | None], int]"
"""Units by model and named consumer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What the custodian holds of one instance's usage.

    ``index`` is that of the last record, ``head`` the chain head after it, ``latest`` its minute, ``totals`` all
    units. ``asked`` is the head after the record that a message calls its last, None where no report ends there.
    ``ticketed`` are the units of all tickets that the instance was granted. ``told`` is the message that came before
    the reports it speaks of: a consumption statement, None where there was none.
    """

    index: int = 0
    head: bytes = GENESIS
    latest: int = 0
    totals: Totals = field(default_factory=dict)
    asked: bytes | None = None
    ticketed: int = 0
    told: Counted | None = None


class Counted(Protocol):
    """A message that says where its instance stands: a lease request, a close, and those that come as files."""

    @property
    def used(self) -> Units:
        """What was served."""

    @property
    def served(self) -> int:
        """The index of the last record."""

    @property
    def chain_head(self) -> bytes:
        """The chain head after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportDecision:
    """What to write for a report, and what to say.

    ``ack`` None means: refused with ``code``, after what the decision says is written. ``fresh`` says that the
    report is to be stored; else it was there before. ``reported`` is what is reported then.
    """

    ack: UsageAck | None
    instance: InstanceState
    reported: Reported
    code: str = ""
    fresh: bool = False
    alarms: tuple[Alarm, ...] = ()
    events: tuple[Event, ...] = ()


def verify_report(statement: bytes, key: VerifyKey) -> UsageReport:
    """Return the report once the instance is proven to have signed it. Raises ``Malformed`` and ``Rejected``."""
    return UsageReport.parse(Statement.parse(statement, label=UsageReport.LABEL).verify([key]))


def head_of(report: UsageReport) -> bytes:
    """Return the chain head after a report."""
    head = report.previous
    for record in report.records:
        head = next_head(head, record)
    return head


def totals_of(report: UsageReport) -> Totals:
    """Return a report's units by model and named consumer."""
    totals: Counter[tuple[ModelDigest, ConsumerId | None]] = Counter()
    for record in report.records:
        totals[record.model, record.consumer] += record.units
    return dict(totals)


def units_by_meter(totals: Totals, terms: Terms) -> dict[Meter, int]:
    """Return what the totals come to on each meter of the loan: a record falls under the meters it names.

    A record names the sealed model, a meter the name it is lent under: where two names share one sealed model,
    the records cannot tell them apart, and their meters are left out. Records of ticketed models fall under none:
    their tickets were the charge (``ticketed_units``).
    """
    paid = _ticketed(terms)
    names = Counter(digest for model in terms.models for digest in model.versions)
    metered = {
        digest: model_meter(model.name)
        for model in terms.models
        if model.metered
        for digest in model.versions
        if names[digest] == 1
    }
    units: Counter[Meter] = Counter()
    for (model, consumer), count in totals.items():
        if model in paid:
            continue
        units[LOAN_METER] += count
        if model in metered:
            units[metered[model]] += count
        if consumer is not None:
            units[consumer_meter(consumer)] += count
    return {meter: count for meter, count in units.items() if count}


def ticketed_units(totals: Totals, terms: Terms) -> int:
    """Return the units of ticketed models: what tickets must have been granted for."""
    paid = _ticketed(terms)
    return sum(count for (model, _), count in totals.items() if model in paid)


def _ticketed(terms: Terms) -> frozenset[ModelDigest]:
    return frozenset(digest for model in terms.models if model.ticketed for digest in model.versions)


def units_of(records: Iterable[UsageRecord]) -> int:
    """Return the units of records together."""
    return sum(record.units for record in records)


def decide_report(
    report: UsageReport,
    statement: bytes,
    *,
    instance: InstanceState,
    terms: Terms,
    reported: Reported,
    stored: bytes | None,
) -> ReportDecision:
    """Decide a verified report; ``stored`` is the report that begins at the same index, as it came before.

    Steps: 1. it is this instance's; 2. the same bytes again get the same answer; 3. it goes on where the last
    one ended, to the head that was told before; 4. its times do not run back; 5. what it comes to was granted. Raises
    ``Rejected`` (``wrong_instance``, ``usage_gap``, ``usage_disordered``); then nothing is written.
    """
    if report.instance != instance.id or report.loan != instance.loan:
        raise Rejected.because("wrong_instance", "usage report", got=report.instance, want=instance.id)
    if stored is not None and hmac.compare_digest(stored, statement):
        return ReportDecision(ack=_ack(report, head_of(report)), instance=instance, reported=reported)
    if report.first > reported.index + 1:
        want = f"records from {reported.index + 1} on"
        raise Rejected.because("usage_gap", "usage report", got=str(report.first), want=want)
    if report.first <= reported.index or not hmac.compare_digest(report.previous, reported.head):
        return _alarm(report, statement, instance, AlarmKind.FORK, reported)
    if reported.told is not None and _belies(report, reported.told):
        return _alarm(report, statement, instance, AlarmKind.FORK, reported)
    if report.records[0].minute < reported.latest:
        raise Rejected.because("usage_disordered", "usage report", want="times that do not run back")
    totals = Counter(reported.totals)
    totals.update(totals_of(report))
    itemised = units_by_meter(totals, terms)
    beyond = any(units > reach_of(instance, meter) for meter, units in itemised.items())
    if beyond or ticketed_units(totals, terms) > reported.ticketed:
        return _alarm(report, statement, instance, AlarmKind.OVERDRAWN, reported)
    ack = _ack(report, head_of(report))
    latest = report.records[-1].minute
    return ReportDecision(
        ack=ack,
        instance=instance,
        reported=replace(reported, index=report.last, head=ack.head, latest=latest, totals=dict(totals)),
        fresh=True,
        events=(_event(report, statement, EventKind.USAGE_REPORTED),),
    )


def contradicts(message: Counted, reported: Reported, terms: Terms) -> bool:
    """Tell whether a message's last index, head and counts are not those of the reports: two histories, one key.

    Nor may its head be another than that of a statement that ended at the same record.

    What is not reported yet contradicts nothing. Of an index further back only the head is known.
    """
    told = reported.told
    if (
        told is not None
        and told.served == message.served
        and not hmac.compare_digest(told.chain_head, message.chain_head)
    ):
        return True
    if message.served > reported.index:
        return False
    head = reported.head if message.served == reported.index else reported.asked
    if head is None or not hmac.compare_digest(head, message.chain_head):
        return True
    return message.served == reported.index and _differ(message.used, units_by_meter(reported.totals, terms))


def _belies(report: UsageReport, told: Counted) -> bool:
    """Tell whether a report passes the record where a message ended and has another chain head there."""
    if not report.first <= told.served <= report.last:
        return False
    upto = replace(report, records=report.records[: told.served - report.first + 1])
    return not hmac.compare_digest(head_of(upto), told.chain_head)


def _differ(used: Units, itemised: Mapping[Meter, int]) -> bool:
    """Tell whether two counts differ on a meter that both know how to count.

    A model's meter is left out where the terms have none for it.
    """
    meters = {meter for meter in (*used, *itemised) if meter in itemised or not meter.startswith("model:")}
    return any(used.get(meter, 0) != itemised.get(meter, 0) for meter in meters)


def sign_ack(ack: UsageAck, key: SigningKey) -> bytes:
    """Return the signed acknowledgement: deterministic, so that the same report gets the same bytes."""
    return Statement.sign(key, UsageAck.LABEL, ack.dump()).dump()


def _ack(report: UsageReport, head: bytes) -> UsageAck:
    return UsageAck(instance=report.instance, last=report.last, head=head)


def _alarm(
    report: UsageReport, statement: bytes, instance: InstanceState, kind: AlarmKind, reported: Reported
) -> ReportDecision:
    """Store nothing of the report; stop the instance, where it still runs, and say so once.

    After a write-off our own limits may be the older ones (C11): then too much is no evidence.
    """
    code, status, event = {
        AlarmKind.FORK: ("fork_detected", InstanceStatus.FORKED, EventKind.FORK_DETECTED),
        AlarmKind.OVERDRAWN: ("overdrawn", InstanceStatus.OVERDRAWN, EventKind.OVERDRAFT_DETECTED),
    }[kind]
    if instance.status is status or (kind is AlarmKind.OVERDRAWN and instance.written_off):
        return ReportDecision(ack=None, code=code, instance=instance, reported=reported)
    final = instance.status is not InstanceStatus.ACTIVE
    return ReportDecision(
        ack=None,
        code=code,
        instance=instance if final else replace(instance, status=status),
        reported=reported,
        alarms=(Alarm(kind=kind, instance=instance.id, detail=f"usage report from {report.first}"),),
        events=(_event(report, statement, event),),
    )


def _event(report: UsageReport, statement: bytes, kind: EventKind) -> Event:
    return Event(
        kind=kind,
        actor=report.instance,
        subject=report.loan,
        details={
            "first": report.first,
            "last": report.last,
            "loan": report.loan,
            "req_digest": hashlib.sha256(statement).hexdigest(),
            "units": units_of(report.records),
        },
    )
