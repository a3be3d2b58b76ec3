"""What the enclave reports of each inference, and the custodian's word that it has it (docs/spec/usage.md)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from cloister.crypto.sign import Label
from cloister.errors import Malformed
from cloister.lending.messages.form import DIGEST_BYTES, open_payload, take_instance
from cloister.lending.terms import (
    DIGEST,
    LOAN_ID,
    MAX_CONSUMERS,
    MAX_STANDING,
    MAX_UNITS,
    NAME,
    ConsumerId,
    InstanceId,
    LoanId,
    ModelDigest,
)
from cloister.wire import Json, dump_b64u, dump_json, dump_time, parse_b64u
from cloister.wire.values import hot_value

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "MAX_RECORDS",
    "MAX_REPORT_BYTES",
    "MINUTE",
    "UsageAck",
    "UsageRecord",
    "UsageReport",
    "minute_number",
    "minute_of",
]

MAX_RECORDS = 1000  # records in one report
MAX_REPORT_BYTES = 512 * 1024  # bytes of one report's payload

MINUTE = timedelta(minutes=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MINUTE = (datetime(9999, 12, 31, 23, 59, tzinfo=UTC) - _EPOCH) // MINUTE
_COLUMNS = 5


def minute_number(moment: datetime) -> int:
    """Return the minute that ``moment`` lies in as a number, from 1970 on."""
    return (moment - _EPOCH) // MINUTE


def minute_of(moment: datetime) -> datetime:
    """Return the whole minute that ``moment`` lies in: all that a record says of time (T61)."""
    if moment.tzinfo is UTC:
        return moment.replace(second=0, microsecond=0)
    return _EPOCH + minute_number(moment) * MINUTE


@hot_value
class UsageRecord:
    """One charged inference as the custodian may know it: no commitment, no second, no name nobody meters.

    ``content`` is SHA-256 over both salted commitments (``receipt.content_of``), None where the units were
    charged and no receipt was given. ``at`` is a whole minute of the enclave's clock.
    """

    index: int
    model: ModelDigest
    consumer: ConsumerId | None
    units: int
    at: datetime
    content: bytes | None

    @property
    def minute(self) -> int:
        """The minute as a number, from 1970 on."""
        return minute_number(self.at)

    def dump(self) -> bytes:
        """Return the canonical bytes that the chain runs over.

        Written out and not by ``dump_json``: it stands on the request path. Nothing in a record needs an escape.
        """
        consumer = "null" if self.consumer is None else f'"{self.consumer}"'
        content = "null" if self.content is None else f'"{dump_b64u(self.content)}"'
        return (
            f'{{"at":"{dump_time(self.at)}","consumer":{consumer},"content":{content},'
            f'"index":{self.index},"model":"{self.model}","units":{self.units}}}'
        ).encode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    """E to K: the records from one index on, in order, and the chain head before them. Signed by the instance key."""

    LABEL: ClassVar = Label.USAGE_REPORT

    instance: InstanceId
    loan: LoanId
    previous: bytes
    records: tuple[UsageRecord, ...]

    @property
    def first(self) -> int:
        """The index of the first record."""
        return self.records[0].index

    @property
    def last(self) -> int:
        """The index of the last record."""
        return self.records[-1].index

    def dump(self) -> bytes:
        """Return the canonical payload: models and consumers once, one short row for each record.

        Written out and not by ``dump_json``: all inferences wait while a busy instance writes its thousand rows.
        """
        models, consumers = _tables(self.records)
        at_model = {model: number for number, model in enumerate(models)}
        at_consumer: dict[ConsumerId | None, int | str] = {name: number for number, name in enumerate(consumers)}
        at_consumer[None] = "null"
        minutes = {at: minute_number(at) for at in {record.at for record in self.records}}
        rows = ",".join(
            [
                f"[{minutes[record.at]},{at_model[record.model]},{at_consumer[record.consumer]},{record.units},"
                + ("null]" if record.content is None else f'"{dump_b64u(record.content)}"]')
                for record in self.records
            ]
        )
        return (
            f'{{"consumers":{_texts(consumers)},"first":{self.first},"instance":"{self.instance}",'
            f'"loan":"{self.loan}","models":{_texts(models)},"previous":"{dump_b64u(self.previous)}",'
            f'"records":[{rows}],"v":1}}'
        ).encode("ascii")

    @classmethod
    def parse(cls, data: bytes) -> UsageReport:
        """Parse. Raises ``Malformed``."""
        fields = open_payload(data, "usage report", cap=MAX_REPORT_BYTES)
        instance = take_instance(fields)
        loan = LoanId(fields.match("loan", LOAN_ID))
        first = fields.integer("first", floor=1)
        previous = fields.b64u("previous", size=DIGEST_BYTES)
        models = fields.texts("models", cap=MAX_STANDING, item_cap=64)
        consumers = fields.texts("consumers", cap=MAX_CONSUMERS, item_cap=64)
        rows = fields.items("records", cap=MAX_RECORDS)
        fields.end()
        if not rows:
            fields.fail("records", "want at least one")
        if not all(DIGEST.fullmatch(model) for model in models):
            fields.fail("models", "want sha-256 digests")
        if not all(NAME.fullmatch(consumer) for consumer in consumers):
            fields.fail("consumers", "want consumer ids")
        if first + len(rows) - 1 > MAX_UNITS:
            fields.fail("first", "too large")
        records = tuple(_record(row, first + at, models, consumers) for at, row in enumerate(rows))
        if _tables(records) != (list(models), list(consumers)):
            fields.fail("models", "want models and consumers once each, in the order of their records")
        if any(one.at > other.at for one, other in pairwise(records)):
            fields.fail("records", "a time that runs back")
        return cls(instance=instance, loan=loan, previous=previous, records=records)


def _texts(names: Sequence[str]) -> str:
    """Return names as a JSON array; none has a character that JSON escapes."""
    return "[" + ",".join([f'"{name}"' for name in names]) + "]"


def _tables(records: tuple[UsageRecord, ...]) -> tuple[list[ModelDigest], list[ConsumerId]]:
    """Return the models and the named consumers of records, each once, in the order in which they come."""
    models = dict.fromkeys(record.model for record in records)
    consumers = dict.fromkeys(record.consumer for record in records if record.consumer is not None)
    return list(models), list(consumers)


def _record(row: Json, index: int, models: tuple[str, ...], consumers: tuple[str, ...]) -> UsageRecord:
    """Return one row of a report as the record it stands for. Without ``Fields``, which a thousand rows wait for."""
    if not isinstance(row, list) or len(row) != _COLUMNS:
        msg = f"record: want {_COLUMNS} cells"
        raise Malformed(msg)
    minute, model, consumer, units, content = row
    if content is not None and not isinstance(content, str):
        msg = "record: content: want base64url or null"
        raise Malformed(msg)
    return UsageRecord(
        index=index,
        model=ModelDigest(models[_count(model, "model", len(models) - 1)]),
        consumer=None if consumer is None else ConsumerId(consumers[_count(consumer, "consumer", len(consumers) - 1)]),
        units=_count(units, "units", MAX_UNITS),
        at=_EPOCH + _count(minute, "minute", _LAST_MINUTE) * MINUTE,
        content=None if content is None else parse_b64u(content, what="record: content", size=DIGEST_BYTES),
    )


def _count(cell: Json, name: str, cap: int) -> int:
    """Return a cell that is a whole number from 0 to ``cap``. Raises ``Malformed``."""
    if type(cell) is not int or not 0 <= cell <= cap:
        msg = f"record: {name}: want 0 to {cap}"
        raise Malformed(msg)
    return cell


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageAck:
    """K to E: the records up to ``last`` are stored, and the chain head after them is ``head``."""

    LABEL: ClassVar = Label.USAGE_ACK

    instance: InstanceId
    last: int
    head: bytes

    def dump(self) -> bytes:
        """Return the canonical payload."""
        return dump_json({"head": dump_b64u(self.head), "instance": self.instance, "last": self.last, "v": 1})

    @classmethod
    def parse(cls, data: bytes) -> UsageAck:
        """Parse. Raises ``Malformed``."""
        fields = open_payload(data, "usage ack")
        message = cls(
            instance=take_instance(fields),
            last=fields.integer("last", floor=1),
            head=fields.b64u("head", size=DIGEST_BYTES),
        )
        fields.end()
        return message
