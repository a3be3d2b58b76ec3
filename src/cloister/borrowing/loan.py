"""A loan as its borrower sees it: units by meter, requests for more, instances, and what was spent lately.

Parsed out of the custodian's answers; members that are not known are left alone, for the API grows. Not done here:
asking for them (``books``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Self, TypeVar

from cloister.errors import Malformed
from cloister.lending.forecast import Forecast, Spent, forecast
from cloister.wire import Fields, Json

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

__all__ = ["LOAN", "Ask", "Instance", "Loan", "Meter", "Spending"]

T = TypeVar("T")
LOAN = "loan"
"""The meter that the whole loan is counted by."""
_CONSUMER, _MODEL = "consumer:", "model:"
_MOST = 10_000
_MOST_STEPS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """Where the units of one meter are: ``balance`` with the custodian, ``held`` by enclaves, the others gone."""

    name: str
    granted: int
    balance: int
    held: int
    spent: int
    written_off: int
    owed: int

    @classmethod
    def from_json(cls, name: str, value: Json) -> Self:
        """Parse. Raises ``Malformed``."""
        fields = Fields(value, what="loan: meter")
        parts = ("granted", "balance", "held", "spent", "written_off", "owed")
        return cls(name=name, **{part: fields.integer(part) for part in parts})

    @property
    def left(self) -> int:
        """Units that can still be spent."""
        return self.balance + self.held

    @property
    def subject(self) -> str:
        """What is counted, without the kind."""
        return self.name.partition(":")[2] or "the whole loan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request for more, and what became of it."""

    id: str
    meter: str
    units: int
    reason: str
    state: str
    created_at: datetime
    decided_at: datetime | None
    granted: int | None
    answer: str

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """Parse. Raises ``Malformed``."""
        fields = Fields(value, what="loan: request")
        return cls(
            id=fields.text("id", cap=64),
            meter=fields.text("meter", cap=128),
            units=fields.integer("units"),
            reason=fields.text("reason"),
            state=fields.text("state", cap=32),
            created_at=fields.time("created_at"),
            decided_at=_perhaps(fields, "decided_at", Fields.time),
            granted=_perhaps(fields, "granted", Fields.integer),
            answer=_perhaps(fields, "answer", Fields.text) or "",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One enclave of the loan, as the custodian knows it."""

    id: str
    tee: str
    state: str
    live: bool
    attested_at: datetime
    dead_at: datetime
    limit: int
    used: int

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """Parse. Raises ``Malformed``."""
        fields = Fields(value, what="loan: instance")
        limits, used = fields.members("limits", cap=_MOST), fields.members("used", cap=_MOST)
        return cls(
            id=fields.text("id", cap=128),
            tee=fields.text("tee", cap=64),
            state=fields.text("state", cap=32),
            live=fields.boolean("live"),
            attested_at=fields.time("attested_at"),
            dead_at=fields.time("dead_at"),
            limit=_units(limits),
            used=_units(used),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Loan:
    """The loan now. A block stops it within ``bound_s`` seconds or ``bound_units`` units, whichever comes first."""

    id: str
    borrower: str
    state: str
    bound_s: float
    bound_units: int
    models: tuple[tuple[str, str], ...]
    meters: tuple[Meter, ...]
    asks: tuple[Ask, ...]
    instances: tuple[Instance, ...]
    blocked_models: tuple[str, ...]
    blocked_consumers: tuple[str, ...]

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """Parse the answer of ``GET /v1/loans/{loan}/summary``. Raises ``Malformed``."""
        fields = Fields(value, what="loan")
        bound = fields.fields("bound")
        meters = fields.members("meters", cap=_MOST)
        if LOAN not in meters:
            msg = "loan: meters: no meter of the whole loan"
            raise Malformed(msg)
        return cls(
            id=fields.text("loan", cap=64),
            borrower=fields.text("borrower", cap=400),
            state=fields.text("state", cap=32),
            bound_s=bound.number("seconds", floor=0, cap=1e12),
            bound_units=bound.integer("units"),
            models=tuple(_model(item) for item in fields.items("models", cap=_MOST)),
            meters=tuple(Meter.from_json(name, item) for name, item in meters.items()),
            asks=tuple(Ask.from_json(item) for item in fields.items("requests", cap=_MOST)),
            instances=tuple(Instance.from_json(item) for item in fields.items("instances", cap=_MOST)),
            blocked_models=fields.texts("blocked_models", cap=_MOST),
            blocked_consumers=fields.texts("blocked_consumers", cap=_MOST),
        )

    @property
    def whole(self) -> Meter:
        """The meter of the whole loan."""
        return next(meter for meter in self.meters if meter.name == LOAN)

    @property
    def of_models(self) -> tuple[Meter, ...]:
        """The meters of models that have one."""
        return tuple(meter for meter in self.meters if meter.name.startswith(_MODEL))

    @property
    def of_consumers(self) -> tuple[Meter, ...]:
        """The meters of consumers that have one: the ids that the contract has, and no other word on who they are."""
        return tuple(meter for meter in self.meters if meter.name.startswith(_CONSUMER))

    @property
    def open_asks(self) -> tuple[Ask, ...]:
        """Requests that nobody has answered."""
        return tuple(ask for ask in self.asks if ask.state == "open")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What was spent lately, step by step, oldest first; the last step is not over yet.

    ``added`` is what the custodian added in each step, less what it took back. ``total`` is what was spent since the
    loan began, units that were written off among it.
    """

    start: datetime
    end: datetime
    step: timedelta
    steps: tuple[int, ...]
    added: tuple[int, ...]
    total: int

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """Parse the answer of ``GET /v1/loans/{loan}/spending``. Raises ``Malformed``."""
        fields = Fields(value, what="spending")
        loans = fields.items("loans", cap=1)
        one = Fields(loans[0] if loans else {}, what="spending: loan")
        return cls(
            start=fields.time("from"),
            end=fields.time("to"),
            step=timedelta(seconds=fields.integer("step_s", floor=1)),
            steps=tuple(_unit(item) for item in one.items("spent_steps", cap=_MOST_STEPS)),
            added=tuple(_signed(item) for item in one.items("added_steps", cap=_MOST_STEPS)),
            total=one.integer("spent") + one.integer("written_off"),
        )

    @property
    def lately(self) -> int:
        """Units spent within the steps."""
        return sum(self.steps)

    def sums(self) -> tuple[Spent, ...]:
        """Return what was spent in all, as of the end of each step."""
        spent = self.total - self.lately
        found = [Spent(at=self.start, units=spent)]
        for number, units in enumerate(self.steps, start=1):
            spent += units
            found.append(Spent(at=min(self.start + self.step * number, self.end), units=spent))
        return tuple(found)

    def left(self, now: int) -> tuple[Spent, ...]:
        """Return what was left as of the end of each step, where ``now`` units are left."""
        units = now + self.lately - sum(self.added)
        found = [Spent(at=self.start, units=units)]
        for number, (spent, added) in enumerate(zip(self.steps, self.added, strict=False), start=1):
            units += added - spent
            found.append(Spent(at=min(self.start + self.step * number, self.end), units=max(0, units)))
        return tuple(found)

    def outlook(self, left: int) -> Forecast:
        """Say when ``left`` units are used up, going on as in these steps."""
        return forecast(self.sums(), left=left, now=self.end, window=self.end - self.start)


def _perhaps(fields: Fields, name: str, take: Callable[[Fields, str], T]) -> T | None:
    """Return a member that may be null."""
    value = fields.take(name)
    return None if value is None else take(Fields({name: value}, what="loan: request"), name)


def _units(members: dict[str, Json]) -> int:
    """Return the units by the loan's own meter, which counts every one."""
    return _unit(members.get(LOAN, 0))


def _unit(value: Json) -> int:
    return Fields({"units": value}, what="units").integer("units")


def _signed(value: Json) -> int:
    """Return units that may be fewer than none."""
    if isinstance(value, int) and not isinstance(value, bool) and value < 0:
        return -_unit(-value)
    return _unit(value)


def _model(value: Json) -> tuple[str, str]:
    fields = Fields(value, what="loan: model")
    return fields.text("name", cap=64), fields.text("digest", cap=64)
