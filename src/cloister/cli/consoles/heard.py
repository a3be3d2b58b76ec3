"""What a custodian said, as values: loans with what they spent, instances, alarms, entries of the log.

Texts are as they came: ``glyphs`` makes them fit to be shown. A member that is missing or of another type is
``Malformed``, as any answer that is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cloister.cli.consoles.doc import Doc
from cloister.errors import Malformed
from cloister.lending.forecast import Forecast, Spent, forecast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.wire import Json

_MAX_STEP_S, _MAX_STEPS = 86_400, 500  # as the API has them
_LAST_YEAR = 9000  # beyond which no time is added to

__all__ = ["AlarmHeard", "EntryHeard", "InstanceHeard", "LoanHeard", "Spending"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What a loan spent lately: units by step, the last one up to ``until``."""

    start: datetime
    until: datetime
    step: timedelta
    granted: int
    spent: int
    written_off: int
    steps: tuple[int, ...]
    added: tuple[int, ...]

    @classmethod
    def all_of(cls, value: object) -> dict[str, Spending]:
        """Return the spending of each loan in an answer. Raises ``Malformed``."""
        doc = Doc(value)
        start, until, step_s = doc.time("from"), doc.time("to"), doc.count("step_s")
        if not (0 < step_s <= _MAX_STEP_S and start <= until and until.year < _LAST_YEAR):
            msg = f"custodian's answer: spending: steps of {step_s} s between {start} and {until}"
            raise Malformed(msg)
        return {
            one.text("loan"): cls._of(one, start=start, until=until, step=timedelta(seconds=step_s))
            for one in doc.docs("loans")
        }

    @classmethod
    def _of(cls, doc: Doc, *, start: datetime, until: datetime, step: timedelta) -> Spending:
        steps, added = doc.counts("spent_steps"), doc.counts("added_steps")
        if len(steps) != len(added) or not 0 < len(steps) <= _MAX_STEPS or until - start > step * len(steps):
            msg = f"custodian's answer: spending: {len(steps)} steps, want 1 to {_MAX_STEPS} that fill the time"
            raise Malformed(msg)
        return cls(
            start=start,
            until=until,
            step=step,
            granted=doc.count("granted"),
            spent=doc.count("spent"),
            written_off=doc.count("written_off"),
            steps=tuple(steps),
            added=tuple(added),
        )

    @property
    def window(self) -> timedelta:
        """How far back it goes."""
        return self.until - self.start

    def sums(self, *, since: datetime) -> Iterator[Spent]:
        """Return what was spent since the first step, at the end of each, from when the loan was there."""
        total = 0
        if self.start >= since:
            yield Spent(at=self.start, units=0)
        for number, units in enumerate(self.steps, 1):
            total += units
            at = min(self.start + self.step * number, self.until)
            if at >= since:
                yield Spent(at=at, units=total)

    def rates(self) -> list[float]:
        """Return units a second in each step; of the last one in what is over of it, where that says anything."""
        width = self.step.total_seconds()
        rates = [units / width for units in self.steps]
        over = (self.until - self.start - self.step * (len(self.steps) - 1)).total_seconds()
        if rates and over < width / 2:
            return rates[:-1]
        return [*rates[:-1], self.steps[-1] / over] if rates and over > 0 else rates


@dataclass(frozen=True, slots=True, kw_only=True)
class LoanHeard:
    """A loan. ``left`` is what it may still spend, and what instances hold of that."""

    loan: str
    borrower: str
    state: str
    left: int
    held: int
    bound_s: float
    live: int
    models: tuple[str, ...]
    created_at: datetime
    spending: Spending | None
    forecast: Forecast
    """When nothing is left of it, by what was spent within the window."""

    @classmethod
    def of(cls, value: object, spending: dict[str, Spending]) -> LoanHeard:
        """Return the loan that an answer shows. Raises ``Malformed``."""
        doc = value if isinstance(value, Doc) else Doc(value)
        bound, name, created_at = doc.doc("bound"), doc.text("loan"), doc.time("created_at")
        held = bound.count("units")
        left, spent = doc.doc("balances").count("loan") + held, spending.get(name)
        return cls(
            loan=name,
            borrower=doc.text("borrower"),
            state=doc.text("state"),
            left=left,
            held=held,
            bound_s=bound.number("seconds"),
            live=doc.count("live_instances"),
            models=tuple(one.text("name") for one in doc.docs("models")),
            created_at=created_at,
            spending=spent,
            forecast=_forecast(spent, left=left, since=created_at),
        )

    @property
    def granted(self) -> int:
        """What it was granted in all, as far as we know."""
        return self.spending.granted if self.spending is not None else self.left

    def to_json(self) -> dict[str, Json]:
        """Return it for programs."""
        spending = self.spending
        return {
            "borrower": self.borrower,
            "bound_s": self.bound_s,
            "forecast": self.forecast.to_json(),
            "granted": None if spending is None else spending.granted,
            "held": self.held,
            "left": self.left,
            "live_instances": self.live,
            "loan": self.loan,
            "models": [*self.models],
            "spent": None if spending is None else spending.spent + spending.written_off,
            "spent_steps": None if spending is None else [*spending.steps],
            "state": self.state,
        }


def _forecast(spending: Spending | None, *, left: int, since: datetime) -> Forecast:
    if spending is None:
        return forecast((), left=left, now=since)
    return forecast(spending.sums(since=since), left=left, now=spending.until, window=spending.window)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceHeard:
    """An instance, with the ceiling of its lease and what it said it used of it."""

    id: str
    loan: str
    tee: str
    tier: str
    state: str
    live: bool
    ceiling: int
    used: int
    heard_at: datetime
    dead_at: datetime

    @classmethod
    def of(cls, doc: Doc) -> InstanceHeard:
        """Return the instance that an answer shows. Raises ``Malformed``."""
        limits, used = doc.doc("limits"), doc.doc("used")
        return cls(
            id=doc.text("id"),
            loan=doc.text("loan"),
            tee=doc.text("tee"),
            tier=doc.text("tier"),
            state=doc.text("state"),
            live=doc.flag("live"),
            ceiling=limits.count("loan") if "loan" in limits else 0,
            used=used.count("loan") if "loan" in used else 0,
            heard_at=doc.time("committed_at"),
            dead_at=doc.time("dead_at"),
        )

    def to_json(self) -> dict[str, Json]:
        """Return it for programs."""
        return {
            "ceiling": self.ceiling,
            "id": self.id,
            "loan": self.loan,
            "state": self.state,
            "tee": self.tee,
            "tier": self.tier,
            "used": self.used,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmHeard:
    """An alarm that is active."""

    code: str
    severity: str
    since: datetime | None
    count: int
    subjects: tuple[str, ...]

    @classmethod
    def of(cls, doc: Doc) -> AlarmHeard:
        """Return the alarm that an answer shows. Raises ``Malformed``."""
        return cls(
            code=doc.text("code"),
            severity=doc.text("severity"),
            since=None if doc.is_null("since") else doc.time("since"),
            count=doc.count("count"),
            subjects=tuple(Doc({"subject": one}).text("subject") for one in doc.values("subjects")),
        )


def _detail(name: str, value: object) -> str:
    return f"{name} {value:,}" if type(value) is int else f"{name} {value}"


_SHOWN_DETAILS = ("units", "debit", "codes", "tee", "kind", "name", "meter", "role", "reason")
_ROUTINE = frozenset({"challenge_issued", "lease_granted", "usage_reported", "usage_stated", "ticket_granted"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryHeard:
    """An entry of the audit log, shortly."""

    index: int
    at: datetime
    kind: str
    actor: str
    subject: str
    details: str = ""

    @classmethod
    def of(cls, doc: Doc) -> EntryHeard:
        """Return what an entry says. Raises ``Malformed``."""
        details = doc.doc("details")
        told = dict(details.items())
        shown = [_detail(name, told[name]) for name in _SHOWN_DETAILS if name in told]
        return cls(
            index=doc.count("index"),
            at=doc.time("at").astimezone(UTC),
            kind=doc.text("kind"),
            actor=doc.text("actor"),
            subject=doc.text("subject"),
            details=" ".join(shown),
        )

    @property
    def is_routine(self) -> bool:
        """Tell whether it comes all the time while everything is well."""
        return self.kind in _ROUTINE
