"""The files of a dispute: an honest instance's receipts and records, and what an honest custodian states of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cloister.attest.rats import Nonce
from cloister.crypto.sign import SigningKey, Statement
from cloister.lending.dispute import Claim
from cloister.lending.messages import (
    Receipt,
    Status,
    UsageLine,
    UsageRecord,
    UsageReport,
    UsageSpan,
    UsageStatement,
)
from cloister.lending.receipt import GENESIS, head_after, next_head, record_of
from cloister.lending.terms import ConsumerId, LoanId, ModelDigest, instance_id
from cloister.lending.usage_report import units_of

if TYPE_CHECKING:
    from collections.abc import Sequence

CUSTODIAN = SigningKey(bytes(range(32)))
INSTANCE = SigningKey(bytes(range(32, 64)))
OTHER = SigningKey(bytes(range(64, 96)))
ME = instance_id(INSTANCE.verify_key.raw)
LOAN = LoanId("loan-" + "a" * 16)
MODEL = ModelDigest("ab" * 32)
START = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def receipts(count: int = 4, key: SigningKey = INSTANCE, salt: bytes = b"") -> list[Receipt]:
    """Return the receipts of an honest instance, one a minute, of ann who is metered and of others in turn."""
    found: list[Receipt] = []
    head = GENESIS
    for index in range(1, count + 1):
        receipt = Receipt(
            instance=instance_id(key.verify_key.raw),
            index=index,
            loan=LOAN,
            model=MODEL,
            consumer=ConsumerId("ann"),
            metered=index % 2 == 1,
            units=index,
            request=bytes([index]) * 32,
            response=(salt or b"a") * 32,
            previous=head,
            policy_digest="cd" * 32,
            issued_at=START + timedelta(minutes=index, seconds=7),
        )
        found.append(receipt)
        head = head_after(receipt)
    return found


def report(records: Sequence[UsageRecord], previous: bytes = GENESIS, key: SigningKey = INSTANCE) -> UsageReport:
    return UsageReport(instance=instance_id(key.verify_key.raw), loan=LOAN, previous=previous, records=tuple(records))


def head_behind(records: Sequence[UsageRecord]) -> bytes:
    head = GENESIS
    for record in records:
        head = next_head(head, record)
    return head


def stated(records: Sequence[UsageRecord], *, granted: int = 100, ended: bool = True) -> UsageStatement:
    """Return what an honest custodian says of these records of one instance."""
    pairs = dict.fromkeys((record.model, record.consumer) for record in records)
    lines = tuple(
        UsageLine(
            model=model,
            consumer=consumer,
            inferences=sum(1 for item in mine if item.content is not None),
            units=units_of(mine),
            cut_units=units_of(item for item in mine if item.content is None),
        )
        for model, consumer in pairs
        for mine in [[item for item in records if (item.model, item.consumer) == (model, consumer)]]
    )
    span = UsageSpan(
        key=INSTANCE.verify_key, after=0, upto=len(records), previous=GENESIS, head=head_behind(records),
        units=units_of(records), reported=len(records), itemised=units_of(records), granted=granted, ended=ended,
    )  # fmt: skip
    return UsageStatement(
        custodian=CUSTODIAN.verify_key, loan=LOAN, start=START, end=START + HOUR, lines=lines, spans=(span,),
        issued_at=START + HOUR,
    )  # fmt: skip


def claims(kept: Sequence[Receipt], status: bytes | None = None) -> list[Claim]:
    return [Claim(name=f"{item.index}.json", receipt=item, status=status) for item in kept]


def with_span(statement: UsageStatement, **changes: object) -> UsageStatement:
    return replace(statement, spans=(replace(statement.spans[0], **changes),))  # type: ignore[arg-type]  # by name


def a_status(key: SigningKey, instance: SigningKey = INSTANCE, loan: LoanId = LOAN) -> bytes:
    message = Status(
        instance=instance_id(instance.verify_key.raw), nonce=Nonce(bytes(32)), operator="borrower", loan=loan,
        kem_digest=bytes(32), models=(MODEL,), state="active", valid_for=timedelta(0), block_version=0, issued_at=START,
    )  # fmt: skip
    return Statement.sign(key, Status.LABEL, message.dump()).dump()


KEPT = receipts()
RECORDS = [record_of(item) for item in KEPT]
TRUE = stated(RECORDS)
