"""The custodian's word on what a loan used in a period (docs/spec/usage.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cloister.crypto.sign import Label, VerifyKey
from cloister.lending.messages.form import DIGEST_BYTES, open_payload, take_consumer
from cloister.lending.terms import (
    DIGEST,
    LOAN_ID,
    MAX_UNITS,
    ConsumerId,
    InstanceId,
    LoanId,
    ModelDigest,
    instance_id,
)
from cloister.wire import Fields, Json, dump_b64u, dump_json, dump_time

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["MAX_LINES", "MAX_SPANS", "UsageLine", "UsageSpan", "UsageStatement"]

MAX_LINES = 2000  # pairs of model and consumer in one statement
MAX_SPANS = 1000  # instances in one statement


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLine:
    """What one consumer used of one model; ``consumer`` None: everybody who has no meter of their own.

    ``inferences`` have a receipt each; ``cut_units`` is the part of ``units`` that was charged without one.
    """

    model: ModelDigest
    consumer: ConsumerId | None
    inferences: int
    units: int
    cut_units: int

    def to_json(self) -> Json:
        """Return the JSON object of docs/spec/usage.md."""
        return {
            "consumer": self.consumer,
            "cut_units": self.cut_units,
            "inferences": self.inferences,
            "model": self.model,
            "units": self.units,
        }

    @classmethod
    def from_json(cls, value: Json) -> UsageLine:
        """Parse. Raises ``Malformed``."""
        fields = Fields(value, what="usage line")
        line = cls(
            model=ModelDigest(fields.match("model", DIGEST)),
            consumer=take_consumer(fields),
            inferences=fields.integer("inferences"),
            units=fields.integer("units", cap=MAX_UNITS),
            cut_units=fields.integer("cut_units", cap=MAX_UNITS),
        )
        fields.end()
        return line


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSpan:
    """Which records of one instance a statement sums: those behind index ``after`` up to ``upto``.

    ``previous`` and ``head`` are the chain heads at both ends, ``units`` what lies between. Beyond the period:
    ``reported`` is the last index that the custodian has and ``itemised`` the units up to it; ``granted`` is
    what the instance was given and did not give back. ``ended``: it gets no more, and what is granted and not
    itemised counts as spent.
    """

    key: VerifyKey
    after: int
    upto: int
    previous: bytes
    head: bytes
    units: int
    reported: int
    itemised: int
    granted: int
    ended: bool

    @property
    def instance(self) -> InstanceId:
        """The instance's id."""
        return instance_id(self.key.raw)

    @property
    def not_itemised(self) -> int:
        """Units that were written off with the instance and that no record accounts for."""
        return max(0, self.granted - self.itemised) if self.ended else 0

    def to_json(self) -> Json:
        """Return the JSON object of docs/spec/usage.md."""
        return {
            "after": self.after,
            "ended": self.ended,
            "granted": self.granted,
            "head": dump_b64u(self.head),
            "itemised": self.itemised,
            "key": self.key.dump(),
            "previous": dump_b64u(self.previous),
            "reported": self.reported,
            "units": self.units,
            "upto": self.upto,
        }

    @classmethod
    def from_json(cls, value: Json) -> UsageSpan:
        """Parse. Raises ``Malformed``."""
        fields = Fields(value, what="usage span")
        span = cls(
            key=VerifyKey.take(fields, "key"),
            after=fields.integer("after"),
            upto=fields.integer("upto"),
            previous=fields.b64u("previous", size=DIGEST_BYTES),
            head=fields.b64u("head", size=DIGEST_BYTES),
            units=fields.integer("units", cap=MAX_UNITS),
            reported=fields.integer("reported"),
            itemised=fields.integer("itemised", cap=MAX_UNITS),
            granted=fields.integer("granted", cap=MAX_UNITS),
            ended=fields.boolean("ended"),
        )
        fields.end()
        if not span.after <= span.upto <= span.reported:
            fields.fail("upto", "want after <= upto <= reported")
        return span


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageStatement:
    """K to anybody: what was used of a loan in ``[start, end)``, and the records it is summed from.

    Signed by the custodian. Times are those of the records: whole minutes of each enclave's clock.
    """

    LABEL: ClassVar = Label.USAGE_STATEMENT

    custodian: VerifyKey
    loan: LoanId
    start: datetime
    end: datetime
    lines: tuple[UsageLine, ...]
    spans: tuple[UsageSpan, ...]
    issued_at: datetime

    @property
    def units(self) -> int:
        """Everything itemised in the period."""
        return sum(line.units for line in self.lines)

    @property
    def not_itemised(self) -> int:
        """What the instances of this statement were charged and no record accounts for, whenever it was."""
        return sum(span.not_itemised for span in self.spans)

    def dump(self) -> bytes:
        """Return the canonical payload."""
        return dump_json(
            {
                "custodian": self.custodian.dump(),
                "from": dump_time(self.start),
                "issued_at": dump_time(self.issued_at),
                "lines": [line.to_json() for line in self.lines],
                "loan": self.loan,
                "not_itemised": self.not_itemised,
                "spans": [span.to_json() for span in self.spans],
                "to": dump_time(self.end),
                "units": self.units,
                "v": 1,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> UsageStatement:
        """Parse. Raises ``Malformed``, also where a total is not the sum of its parts."""
        fields = open_payload(data, "usage statement")
        statement = cls(
            custodian=VerifyKey.take(fields, "custodian"),
            loan=LoanId(fields.match("loan", LOAN_ID)),
            start=fields.time("from"),
            end=fields.time("to"),
            lines=tuple(UsageLine.from_json(item) for item in fields.items("lines", cap=MAX_LINES)),
            spans=tuple(UsageSpan.from_json(item) for item in fields.items("spans", cap=MAX_SPANS)),
            issued_at=fields.time("issued_at"),
        )
        fields.literal("units", statement.units)
        fields.literal("not_itemised", statement.not_itemised)
        fields.end()
        if len({(line.model, line.consumer) for line in statement.lines}) != len(statement.lines):
            fields.fail("lines", "a model and consumer twice")
        if len({span.key for span in statement.spans}) != len(statement.spans):
            fields.fail("spans", "an instance twice")
        if sum(span.units for span in statement.spans) != statement.units:
            fields.fail("units", "lines and spans differ")
        return statement
