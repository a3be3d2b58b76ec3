"""The clauses of a loan beyond models, consumers and counts: purpose, hours, outputs, limits, outage, refund.

Every clause is optional and absent means its default; a default spelled out is refused, so that one loan has
one spelling (docs/spec/contract.md, section 2). Not done here: obeying them (``conditions``, ``lease_grant``),
signing them (``contract``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from cloister.crypto.sign import VerifyKey
from cloister.errors import UsageError
from cloister.lending.consumer_limits import ConsumerLimits
from cloister.lending.output_rule import OutputRule, take_output_rules
from cloister.lending.watch import Watch, take_watches
from cloister.wire import MAX_INT, Fields, Json

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from datetime import datetime, timedelta

__all__ = [
    "MAX_PRECISION",
    "MAX_PURPOSE_CHARS",
    "MAX_WINDOWS",
    "NO_CLAUSES",
    "Clauses",
    "OfflineTerm",
    "RefundRule",
    "Window",
    "take_hours",
]

MAX_WINDOWS = 64  # windows of one loan
MAX_PURPOSE_CHARS = 1000  # characters
MAX_OFFLINE_S = 90 * 86_400  # seconds an offline term may last
MAX_PRECISION = 15  # decimal places; a double has no more
_DAYS = 7
_DAY_MINUTES = 24 * 60


class RefundRule(Enum):
    """What happens to units that a closing instance never served."""

    NONE = "none"
    UNUSED = "unused"
    """They go back, and only where the instance's memory provably cannot be copied."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Window:
    """Minutes of one day of the week in which the loan may be used; all times are UTC.

    ``day`` is 1 (Monday) to 7 (ISO 8601), ``start`` and ``end`` minutes after midnight, ``end`` exclusive. What
    passes midnight is two windows.
    """

    day: int
    start: int
    end: int

    def __post_init__(self) -> None:
        """Refuse what is no window. Raises ``UsageError``."""
        if not (1 <= self.day <= _DAYS and 0 <= self.start < self.end <= _DAY_MINUTES):
            got = f"day {self.day}, minutes {self.start} to {self.end}"
            msg = f"window: {got}, want day 1 to 7 and 0 <= start < end <= {_DAY_MINUTES}"
            raise UsageError(msg)

    def holds(self, now: datetime) -> bool:
        """Tell whether ``now``, in UTC, lies in this window."""
        return now.isoweekday() == self.day and self.start <= now.hour * 60 + now.minute < self.end

    def to_json(self) -> Json:
        """Return the JSON object of docs/spec/lease.md."""
        return {"day": self.day, "end": self.end, "start": self.start}

    @classmethod
    def from_json(cls, value: Json) -> Window:
        """Parse. Raises ``Malformed``."""
        fields = Fields(value, what="window")
        day = fields.integer("day", floor=1, cap=_DAYS)
        start = fields.integer("start", cap=_DAY_MINUTES - 1)
        end = fields.integer("end", floor=start + 1, cap=_DAY_MINUTES)
        fields.end()
        return cls(day=day, start=start, end=end)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineTerm:
    """What an instance may do under a signed voucher while it cannot reach its custodian: its own bound.

    ``lasts`` is the longest life of one voucher, ``units`` the most that one may carry, ``overdraft`` how many
    units beyond it may be served and settled later.
    """

    lasts: timedelta
    units: int
    overdraft: int = 0

    def to_json(self) -> Json:
        """Return the JSON object of docs/spec/lease.md."""
        members: dict[str, Json] = {"lasts_s": int(self.lasts.total_seconds()), "units": self.units}
        return members | ({"overdraft": self.overdraft} if self.overdraft else {})

    @classmethod
    def from_json(cls, value: Json) -> OfflineTerm:
        """Parse. Raises ``Malformed``."""
        fields = Fields(value, what="offline term")
        term = cls(
            lasts=fields.seconds("lasts_s", floor=1, cap=MAX_OFFLINE_S),
            units=fields.integer("units", floor=1),
            overdraft=fields.integer("overdraft", floor=1) if "overdraft" in fields else 0,
        )
        fields.end()
        return term


@dataclass(frozen=True, slots=True, kw_only=True)
class Clauses:
    """What a loan says beyond its counts.

    ``purpose`` is for people; ``hours`` None means at any time; ``precision`` is the decimal places that floating
    outputs are rounded to, None for all; ``budget`` the units agreed on at the start; ``borrower`` the key with
    which the borrower signs the contract, None for a loan nobody countersigns; ``sub_allowances`` says that the
    borrower may let others in by sub-allowances that it signs, ``revocations`` that none counts without a list in time
    of those that it called back. ``consumer_limits`` says how much and how fast each consumer may ask, ``outputs`` what
    is held back of the models' outputs, ``watches`` what is watched for in how consumers ask.
    """

    purpose: str = ""
    hours: tuple[Window, ...] | None = None
    precision: int | None = None
    budget: int | None = None
    offline: OfflineTerm | None = None
    refund: RefundRule = RefundRule.NONE
    borrower: VerifyKey | None = None
    sub_allowances: bool = False
    revocations: bool = False
    consumer_limits: ConsumerLimits | None = None
    outputs: tuple[OutputRule, ...] = ()
    watches: tuple[Watch, ...] = ()

    def misfit(self, models: AbstractSet[str], *, max_instances: int) -> str | None:
        """Return what does not fit the terms around these clauses, None where all does."""
        unknown = sorted({rule.model for rule in self.outputs} - models)
        if unknown:
            return f"outputs: no model {unknown[0]}"
        held = () if self.consumer_limits is None else self.consumer_limits.every
        if any(budget.units < max_instances for limits in held for budget in limits.budgets):
            return f"consumer_limits: a budget below max_instances ({max_instances}) leaves an instance nothing"
        return None

    def open_at(self, now: datetime) -> bool:
        """Tell whether the loan may be used at ``now``, in UTC."""
        return self.hours is None or any(window.holds(now) for window in self.hours)

    def to_json(self) -> dict[str, Json]:
        """Return the JSON object of docs/spec/lease.md: the clauses that are not at their default."""
        refund = None if self.refund is RefundRule.NONE else self.refund.value
        members: dict[str, Json] = {
            "borrower": None if self.borrower is None else self.borrower.dump(),
            "budget": self.budget,
            "consumer_limits": None if self.consumer_limits is None else self.consumer_limits.to_json(),
            "hours": None if self.hours is None else [window.to_json() for window in self.hours],
            "offline": None if self.offline is None else self.offline.to_json(),
            "outputs": [rule.to_json() for rule in self.outputs] or None,
            "precision": self.precision,
            "purpose": self.purpose or None,
            "refund": refund,
            "revocations": self.revocations or None,
            "sub_allowances": self.sub_allowances or None,
            "watches": [watch.to_json() for watch in self.watches] or None,
        }
        return {name: value for name, value in members.items() if value is not None}

    @classmethod
    def from_json(cls, value: Json) -> Clauses:
        """Parse. Raises ``Malformed``, also for a default that is spelled out."""
        fields = Fields(value, what="clauses")
        clauses = cls(
            purpose=fields.text("purpose", cap=MAX_PURPOSE_CHARS, floor=1) if "purpose" in fields else "",
            hours=take_hours(fields, "hours") if "hours" in fields else None,
            precision=fields.optional("precision", lambda name: fields.integer(name, cap=MAX_PRECISION)),
            budget=fields.optional("budget", lambda name: fields.integer(name, cap=MAX_INT)),
            offline=fields.optional("offline", lambda name: OfflineTerm.from_json(fields.take(name))),
            refund=_refund(fields) if "refund" in fields else RefundRule.NONE,
            borrower=fields.optional("borrower", lambda name: VerifyKey.take(fields, name)),
            sub_allowances="sub_allowances" in fields,
            revocations="revocations" in fields,
            consumer_limits=fields.optional(
                "consumer_limits", lambda name: ConsumerLimits.from_json(fields.take(name))
            ),
            outputs=take_output_rules(fields, "outputs") if "outputs" in fields else (),
            watches=take_watches(fields, "watches") if "watches" in fields else (),
        )
        if clauses.sub_allowances and (not fields.boolean("sub_allowances") or clauses.borrower is None):
            fields.fail("sub_allowances", "want true beside the borrower's key, or no such member")
        if clauses.revocations and (not fields.boolean("revocations") or not clauses.sub_allowances):
            fields.fail("revocations", "want true beside sub_allowances, or no such member")
        fields.end()
        return clauses


NO_CLAUSES = Clauses()
"""A loan that says nothing but its counts."""


def take_hours(fields: Fields, name: str) -> tuple[Window, ...]:
    """Return the windows: at least one, in order, none twice. None at all would be never open. Raises ``Malformed``."""
    windows = tuple(Window.from_json(item) for item in fields.items(name, cap=MAX_WINDOWS))
    if not windows or list(windows) != sorted(set(windows)):
        fields.fail(name, "want at least one window, in order, each once")
    return windows


def _refund(fields: Fields) -> RefundRule:
    fields.literal("refund", RefundRule.UNUSED.value)
    return RefundRule.UNUSED
