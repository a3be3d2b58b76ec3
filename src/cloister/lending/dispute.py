"""Settle from files alone who used what: statement, reports and receipts (docs/spec/usage.md section 5).

Pure: bytes whose signatures were proven go in, findings come out. Every finding names who is convicted by it, or
nobody. What is not shown convicts nobody and settles nothing, so neither side wins by leaving a file out; what is
altered is not signed any more and counts for nothing.

Not proven: that an instance's key was attested (the evidence is with whoever verified it), nor the times.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from cloister.crypto.sign import Statement
from cloister.errors import CloisterError
from cloister.lending.messages import Receipt, Status, UsageRecord, UsageReport, UsageSpan, UsageStatement
from cloister.lending.receipt import fork_evidence, next_head, record_of
from cloister.lending.usage_report import units_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cloister.crypto.sign import VerifyKey
    from cloister.lending.terms import ConsumerId, InstanceId, ModelDigest

__all__ = ["Claim", "Finding", "Guilt", "Outcome", "settle", "verify_statement"]

_Pair: TypeAlias = "tuple[ModelDigest, ConsumerId | None]"


class Guilt(Enum):
    """Whom a finding convicts. NOBODY_YET: something is not shown, so nothing is settled; NOBODY: it is in order."""

    NOBODY = "nobody"
    NOBODY_YET = "nobody yet"
    CUSTODIAN = "custodian"
    INSTANCE = "instance"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A verified receipt of a consumer, and the custodian's signed status of its instance where it was kept."""

    name: str
    receipt: Receipt
    status: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that the files show. ``instance`` and ``index`` say where; ``claim`` is the receipt it is about."""

    code: str
    guilt: Guilt
    detail: str
    instance: InstanceId | None = None
    index: int | None = None
    claim: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Everything that was found. ``settled``: statement, records and receipts agree and nothing is missing."""

    statement: UsageStatement
    findings: tuple[Finding, ...]
    matched: int
    without_receipt: int

    @property
    def convictions(self) -> tuple[Finding, ...]:
        """The findings that convict somebody."""
        return tuple(item for item in self.findings if item.guilt in (Guilt.CUSTODIAN, Guilt.INSTANCE))

    @property
    def settled(self) -> bool:
        """Tell whether there is nothing left to dispute."""
        return all(item.guilt is Guilt.NOBODY for item in self.findings)


def verify_statement(statement: bytes, key: VerifyKey) -> UsageStatement:
    """Return the statement once the custodian is proven to have signed it. Raises ``Malformed`` and ``Rejected``."""
    return UsageStatement.parse(Statement.parse(statement, label=UsageStatement.LABEL).verify([key]))


@dataclass(slots=True)
class _History:
    """The records of one instance that are shown: each with the chain head after it, and the heads known."""

    span: UsageSpan
    records: dict[int, UsageRecord] = field(default_factory=dict)
    heads: dict[int, bytes] = field(default_factory=dict)
    forked: set[int] = field(default_factory=set)

    def add(self, report: UsageReport) -> None:
        """Take one verified report; where two differ, or do not join, remember the index."""
        head = report.previous
        self._head(report.first - 1, head)
        for record in report.records:
            known = self.records.setdefault(record.index, record)
            if known != record:
                self.forked.add(record.index)
            head = next_head(head, record)
            self._head(record.index, head)

    def _head(self, index: int, head: bytes) -> None:
        if self.heads.setdefault(index, head) != head:
            self.forked.add(index)

    def between(self, after: int, upto: int) -> list[UsageRecord] | None:
        """Return the records behind ``after`` up to ``upto``, None where one is not shown."""
        wanted = range(after + 1, upto + 1)
        if len(wanted) > len(self.records) or any(index not in self.records for index in wanted):
            return None
        return [self.records[index] for index in wanted]


def settle(statement: UsageStatement, reports: Iterable[UsageReport], claims: Sequence[Claim]) -> Outcome:
    """Hold a verified statement against verified reports of its instances and verified receipts.

    Steps: 1. each instance's reports agree with each other; 2. they are what the statement sums; 3. receipts
    agree with each other; 4. each receipt of this loan and period has its record, or is accounted for.
    """
    histories = {span.instance: _History(span) for span in statement.spans}
    for report in reports:
        if report.instance in histories and report.loan == statement.loan:
            histories[report.instance].add(report)
    findings = [item for history in histories.values() for item in _span_findings(history)]
    if not findings:
        findings += _line_findings(statement, histories.values())
    receipts, doubled = _distinct(claims)
    findings += doubled
    judged = [_judge(claim, statement, histories) for claim in receipts]
    findings += [finding for finding in judged if finding is not None]
    findings += _beyond(receipts, statement, histories)
    matched = sum(finding is None for finding in judged)
    records = sum(span.upto - span.after for span in statement.spans)
    return Outcome(
        statement=statement, findings=tuple(findings), matched=matched, without_receipt=max(0, records - matched)
    )


def _span_findings(history: _History) -> list[Finding]:
    """Return what is wrong between one instance's reports and the statement's word on them."""
    span = history.span
    if history.forked:
        index = min(history.forked)
        detail = "two usage reports of this instance contradict each other: its memory was copied"
        return [_finding("report_fork", Guilt.INSTANCE, detail, span, index)]
    records = history.between(span.after, span.upto)
    if records is None:
        detail = f"records {span.after + 1} to {span.upto} are not all shown: the custodian has their reports"
        return [_finding("reports_missing", Guilt.NOBODY_YET, detail, span)]
    ends = ((span.after, span.previous), (span.upto, span.head))
    wrong = [index for index, head in ends if history.heads.get(index, head) != head]
    if wrong:
        detail = "the statement's chain head is not that of the signed reports"
        return [_finding("head_wrong", Guilt.CUSTODIAN, detail, span, wrong[0])]
    if units_of(records) != span.units:
        detail = f"the statement says {span.units} units, the signed records {units_of(records)}"
        return [_finding("sum_wrong", Guilt.CUSTODIAN, detail, span)]
    everything = history.between(0, span.reported)
    if everything is not None and units_of(everything) != span.itemised:
        detail = f"the statement says {span.itemised} itemised units, the signed records {units_of(everything)}"
        return [_finding("sum_wrong", Guilt.CUSTODIAN, detail, span)]
    return []


def _line_findings(statement: UsageStatement, histories: Iterable[_History]) -> list[Finding]:
    """Return the lines that are not the sums of the records, and records outside of the statement's period."""
    counts: dict[_Pair, Counter[str]] = defaultdict(Counter)
    findings = []
    for history in histories:
        for record in history.between(history.span.after, history.span.upto) or ():
            line = counts[record.model, record.consumer]
            line["units"] += record.units
            line["cut_units"] += record.units if record.content is None else 0
            line["inferences"] += record.content is not None
            if not statement.start <= record.at < statement.end:
                detail = "a record of another time is summed in this period"
                findings.append(_finding("range_wrong", Guilt.CUSTODIAN, detail, history.span, record.index))
    said = {(line.model, line.consumer): line for line in statement.lines}
    for pair in {**said, **counts}:
        stated, count = said.get(pair), counts.get(pair, Counter())
        figures = (0, 0, 0) if stated is None else (stated.inferences, stated.units, stated.cut_units)
        if figures != (count["inferences"], count["units"], count["cut_units"]):
            detail = f"model {pair[0][:12]}, consumer {pair[1] or 'unnamed'}: not the sum of the signed records"
            findings.append(Finding(code="sum_wrong", guilt=Guilt.CUSTODIAN, detail=detail))
    return findings


def _distinct(claims: Sequence[Claim]) -> tuple[list[Claim], list[Finding]]:
    """Return each receipt once; two that contradict each other convict their instance."""
    seen: dict[tuple[InstanceId, int], Claim] = {}
    findings = []
    for claim in claims:
        known = seen.setdefault((claim.receipt.instance, claim.receipt.index), claim)
        fork = fork_evidence(known.receipt, claim.receipt)
        if fork is not None:
            detail = f"contradicts {known.name}: the instance's memory was copied"
            findings.append(_about(claim, "receipt_fork", Guilt.INSTANCE, detail))
    return list(seen.values()), findings


def _judge(claim: Claim, statement: UsageStatement, histories: Mapping[InstanceId, _History]) -> Finding | None:
    """Return what is to be said of one receipt, None where its record is in the statement."""
    receipt, record = claim.receipt, record_of(claim.receipt)
    if receipt.loan != statement.loan or not statement.start <= record.at < statement.end:
        return _about(claim, "outside", Guilt.NOBODY, "of another loan or period: this statement says nothing of it")
    history = histories.get(receipt.instance)
    if history is None:
        return _left_out_instance(claim, statement)
    if receipt.index > history.span.reported:
        return _unreported(claim, history.span)
    return _against_record(claim, history)


def _against_record(claim: Claim, history: _History) -> Finding | None:
    """Hold a receipt against the record of its index, None where the statement sums that very record."""
    receipt, span = claim.receipt, history.span
    shown = history.records.get(receipt.index)
    if shown is None:
        return _about(claim, "record_missing", Guilt.NOBODY_YET, "its usage report is not among those shown")
    if fork_evidence(receipt, shown) is not None:
        return _about(claim, "record_fork", Guilt.INSTANCE, "contradicts the signed record: the memory was copied")
    if not span.after < receipt.index <= span.upto:
        return _about(claim, "range_wrong", Guilt.CUSTODIAN, "the statement leaves out a record of its own period")
    return None


def _unreported(claim: Claim, span: UsageSpan) -> Finding:
    """Say what becomes of a receipt whose record the custodian does not claim to have."""
    if span.ended:
        return _about(claim, "not_itemised", Guilt.NOBODY, "within the units that were written off without a record")
    return _about(
        claim, "not_reported", Guilt.NOBODY_YET, "not reported when the statement was made: ask for a new one"
    )


def _beyond(
    claims: Iterable[Claim], statement: UsageStatement, histories: Mapping[InstanceId, _History]
) -> list[Finding]:
    """Return the instances whose receipts come to more than the statement admits that they were granted.

    An instance serves no more than it was granted (I1), and every grant is the custodian's own signature.
    """
    units: Counter[InstanceId] = Counter()
    for claim in claims:
        history = histories.get(claim.receipt.instance)
        if history is not None and claim.receipt.index > history.span.reported:
            units[claim.receipt.instance] += claim.receipt.units if claim.receipt.loan == statement.loan else 0
    findings = []
    for instance, count in units.items():
        span = histories[instance].span
        if span.itemised + count > span.granted:
            detail = (
                f"{span.itemised} itemised and {count} by receipt are more than the {span.granted} it says it granted"
            )
            findings.append(_finding("left_out", Guilt.CUSTODIAN, detail, span))
    return findings


def _left_out_instance(claim: Claim, statement: UsageStatement) -> Finding:
    """Judge a receipt of an instance that the statement does not name: by the custodian's own word on it, or not."""
    if claim.status is None or not _vouched(claim, claim.status, statement):
        detail = "of an instance the statement does not name, and no status of the custodian says whose it is"
        return _about(claim, "instance_unknown", Guilt.NOBODY_YET, detail)
    detail = "the custodian's signed status knows this instance of the loan, its statement leaves it out"
    return _about(claim, "instance_left_out", Guilt.CUSTODIAN, detail)


def _vouched(claim: Claim, status: bytes, statement: UsageStatement) -> bool:
    """Tell whether the custodian that signed the statement signed a status of this receipt's instance and loan."""
    try:
        known = Status.parse(Statement.parse(status, label=Status.LABEL).verify([statement.custodian]))
    except CloisterError:
        return False  # not its word: it proves nothing either way
    return (known.instance, known.loan) == (claim.receipt.instance, statement.loan)


def _about(claim: Claim, code: str, guilt: Guilt, detail: str) -> Finding:
    receipt = claim.receipt
    return Finding(
        code=code, guilt=guilt, detail=detail, instance=receipt.instance, index=receipt.index, claim=claim.name
    )


def _finding(code: str, guilt: Guilt, detail: str, span: UsageSpan, index: int | None = None) -> Finding:
    return Finding(code=code, guilt=guilt, detail=detail, instance=span.instance, index=index)
