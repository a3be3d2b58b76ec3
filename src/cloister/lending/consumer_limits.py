"""How much and how fast one consumer may ask: rates and budgets as a clause (docs/spec/consumer-limits.md).

Both are **for each enclave instance's part**: a budget is divided by how many instances may live at once, a rate is
each instance's own. Not done here: counting (``consumer_meters``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from cloister.lending.names import NAME
from cloister.wire import Fields, Json

__all__ = ["MAX_BUDGETS", "SLOTS", "Budget", "ConsumerLimits", "Limits", "Rate"]

MAX_BUDGETS = 4  # budgets of one consumer
MAX_NAMED = 1000  # consumers with limits of their own
SLOTS = 60  # parts that a window is counted in
_MAX_WINDOW_S = 31 * 86_400  # seconds
_MAX_COUNT = 10**9  # units


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """``units`` in every ``per_s`` seconds, at most ``burst`` of them at once."""

    units: int
    per_s: int
    burst: int

    def to_json(self) -> Json:
        """Return the JSON object of docs/spec/consumer-limits.md."""
        return {"burst": self.burst, "per_s": self.per_s, "units": self.units}

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """Parse. Raises ``Malformed``."""
        fields = Fields(value, what="rate")
        rate = cls(
            units=fields.integer("units", floor=1, cap=_MAX_COUNT),
            per_s=fields.integer("per_s", floor=1, cap=_MAX_WINDOW_S),
            burst=fields.integer("burst", floor=1, cap=_MAX_COUNT),
        )
        fields.end()
        return rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """``units`` in any ``window_s`` seconds; ``fixed``: in each that is counted from 1970-01-01 UTC."""

    units: int
    window_s: int
    fixed: bool = False

    def to_json(self) -> Json:
        """Return the JSON object of docs/spec/consumer-limits.md."""
        members: dict[str, Json] = {"units": self.units, "window_s": self.window_s}
        return members | ({"fixed": True} if self.fixed else {})

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """Parse. Raises ``Malformed``."""
        fields = Fields(value, what="budget")
        budget = cls(
            units=fields.integer("units", floor=1, cap=_MAX_COUNT),
            window_s=fields.integer("window_s", floor=SLOTS, cap=_MAX_WINDOW_S),
            fixed="fixed" in fields,
        )
        if budget.fixed and not fields.boolean("fixed"):
            fields.fail("fixed", "want true, or no such member")
        if budget.window_s % SLOTS:
            fields.fail("window_s", f"want a multiple of {SLOTS}")
        fields.end()
        return budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one consumer is held to: a rate, budgets, or nothing."""

    rate: Rate | None = None
    budgets: tuple[Budget, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """Return the JSON members: those that say something."""
        members: dict[str, Json] = {}
        if self.budgets:
            members["budgets"] = [budget.to_json() for budget in self.budgets]
        if self.rate is not None:
            members["rate"] = self.rate.to_json()
        return members

    @classmethod
    def take(cls, fields: Fields) -> Self:
        """Take the members out of ``fields``. Raises ``Malformed``."""
        budgets: tuple[Budget, ...] = ()
        if "budgets" in fields:
            budgets = tuple(Budget.from_json(item) for item in fields.items("budgets", cap=MAX_BUDGETS))
            windows = [budget.window_s for budget in budgets]
            if not budgets or windows != sorted(set(windows)):
                fields.fail("budgets", "want at least one, in order of their windows, each window once")
        return cls(rate=fields.optional("rate", lambda name: Rate.from_json(fields.take(name))), budgets=budgets)

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """Parse limits that say something. Raises ``Malformed``."""
        fields = Fields(value, what="limits")
        limits = cls.take(fields)
        fields.end()
        if limits == NO_LIMITS:
            fields.fail("rate", "want a rate or budgets")
        return limits


NO_LIMITS = Limits()
"""Whoever has no limits but the loan's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerLimits:
    """The limits of every consumer: of ``each``, of some by name in its place, of all guests together.

    A guest is whoever a sub-allowance lets in. A borrower can make as many of these as it likes, so all of them are
    one consumer: ``guests``, else what is said of each.
    """

    each: Limits | None = None
    guests: Limits | None = None
    named: tuple[tuple[str, Limits], ...] = ()

    @property
    def every(self) -> tuple[Limits, ...]:
        """What is said of anybody."""
        return (*(item for item in (self.each, self.guests) if item is not None), *(item for _, item in self.named))

    def of(self, name: str) -> Limits:
        """Return the limits of a consumer by name."""
        return next((limits for known, limits in self.named if known == name), self.each or NO_LIMITS)

    @property
    def of_guests(self) -> Limits:
        """The limits of all sub-allowances together."""
        return self.guests or self.each or NO_LIMITS

    def to_json(self) -> Json:
        """Return the JSON object of docs/spec/consumer-limits.md."""
        members: dict[str, Json] = {}
        if self.each is not None:
            members["each"] = self.each.to_json()
        if self.guests is not None:
            members["guests"] = self.guests.to_json()
        if self.named:
            members["named"] = [{"id": name, **limits.to_json()} for name, limits in self.named]
        return members

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """Parse. Raises ``Malformed``."""
        fields = Fields(value, what="consumer limits")
        has_named = "named" in fields
        found = cls(
            each=fields.optional("each", lambda member: Limits.from_json(fields.take(member))),
            guests=fields.optional("guests", lambda member: Limits.from_json(fields.take(member))),
            named=tuple(_named(item) for item in fields.items("named", cap=MAX_NAMED)) if has_named else (),
        )
        fields.end()
        names = [known for known, _ in found.named]
        if names != sorted(set(names)) or (has_named and not names):
            fields.fail("named", "want at least one, in order of their ids, each once")
        if not found.every:
            fields.fail("each", "want limits of somebody")
        return found


def _named(value: Json) -> tuple[str, Limits]:
    """Return one consumer and its limits; none at all is said by its id alone."""
    fields = Fields(value, what="limits of a consumer")
    found = fields.match("id", NAME), Limits.take(fields)
    fields.end()
    return found
