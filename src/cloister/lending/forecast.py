"""When an allowance is used up: from what was spent lately, as a span of time and never as one exact moment.

The rate is robust. What was spent within the window is cut into equal steps, and the rates over all stretches of at
least a quarter of it are put in order: the middle one is the rate, the tenth and ninetieth of a hundred are its low and
high. One burst moves the middle little and the span much, and both are said.

Nothing here knows of nights, weekends or what is planned: it says what comes of going on as lately. Not done here:
reading the clock (``now`` comes in), counting units (``ledger``), drawing.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, assert_never

from cloister.wire import Json, dump_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

__all__ = ["Forecast", "Outlook", "Rate", "Spent", "forecast", "rates_between", "span_words"]

WINDOW = timedelta(hours=1)
"""How far back is looked where nobody says otherwise."""
_STEPS = 16  # equal steps that the window is cut into
_STRETCH = _STEPS // 4  # steps that a stretch has at least
_LOW, _HIGH = 0.1, 0.9
_LEAST = timedelta(seconds=60)  # of watching, before anything is said
_FURTHEST = timedelta(days=365)  # beyond which no time is named
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))  # in seconds, largest first
_TWO = 2  # a number goes on in the smaller unit until it has two of the larger
_LONGEST = 240  # of a unit that a span may end at, before its end is said in a larger one


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What was spent in all since the loan began, as of a time."""

    at: datetime
    units: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Units per second: the middle, and between what it lay."""

    low: float
    middle: float
    high: float


class Outlook(Enum):
    """What can be said of the end of an allowance."""

    UNKNOWN = "unknown"
    """Too little was seen."""
    EMPTY = "empty"
    NEVER = "never"
    """Nothing was spent within the window."""
    ENDS = "ends"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """When nothing is left: between ``earliest`` and ``latest``, which is None where it may never be.

    Both are None but for ``ENDS``. ``rate`` is None where too little was seen.
    """

    outlook: Outlook
    at: datetime
    rate: Rate | None = None
    earliest: datetime | None = None
    latest: datetime | None = None

    @property
    def words(self) -> str:
        """Say it shortly, for a table: ``empty in 2 to 4 h``."""
        match self.outlook:
            case Outlook.UNKNOWN:
                return "too little seen"
            case Outlook.EMPTY:
                return "empty"
            case Outlook.NEVER:
                return "never at this rate"
            case Outlook.ENDS:
                return self._ending()
            case _:
                assert_never(self.outlook)

    def _ending(self) -> str:
        if self.earliest is None or self.earliest - self.at > _FURTHEST:
            return "in over a year"
        if self.latest is None or self.latest - self.at > _FURTHEST:
            return f"not before {_at_least(self.earliest - self.at)}"
        return f"empty in {_between(self.earliest - self.at, self.latest - self.at)}"

    def to_json(self) -> dict[str, Json]:
        """Return it for programs: rates in units per second."""
        rate: Json = None
        if self.rate is not None:
            rate = {"high": self.rate.high, "low": self.rate.low, "middle": self.rate.middle}
        return {
            "earliest": None if self.earliest is None else dump_time(self.earliest),
            "latest": None if self.latest is None else dump_time(self.latest),
            "outlook": self.outlook.value,
            "rate": rate,
        }


def forecast(spent: Iterable[Spent], *, left: int, now: datetime, window: timedelta = WINDOW) -> Forecast:
    """Say when ``left`` units are used up, going on as within ``window`` before ``now``.

    ``spent`` may come in any order. A sum that falls (a database was brought back) begins anew there. Nothing is
    assumed behind the last one: who knows that nothing was spent since then says so by another.
    """
    rate = _rate(_within(spent, now, window))
    if left <= 0:
        return Forecast(outlook=Outlook.EMPTY, at=now, rate=rate)
    if rate is None:
        return Forecast(outlook=Outlook.UNKNOWN, at=now)
    if rate.high <= 0:
        return Forecast(outlook=Outlook.NEVER, at=now, rate=rate)
    earliest = _after(now, left / rate.high)
    latest = _after(now, left / rate.low) if rate.low > 0 else None
    return Forecast(outlook=Outlook.ENDS, at=now, rate=rate, earliest=earliest, latest=latest)


def rates_between(spent: Iterable[Spent], *, now: datetime, window: timedelta, steps: int) -> tuple[float | None, ...]:
    """Return units per second in each of ``steps`` equal steps of the window, None where nothing is known."""
    known = _within(spent, now, window)
    width = window / steps
    edges = [now - window + width * number for number in range(steps + 1)]
    sums = [_at(known, edge) for edge in edges]
    return tuple(
        None if before is None or after is None else (after - before) / width.total_seconds()
        for before, after in itertools.pairwise(sums)
    )


def span_words(span: timedelta) -> str:
    """Say how long, in one unit, as a person would: ``90 s``, ``45 min``, ``3 h``, ``12 d``."""
    size, unit = _unit(span)
    return f"{max(0.0, span.total_seconds()) / size:.0f} {unit}"


def _unit(span: timedelta) -> tuple[int, str]:
    """Return seconds and name of the largest unit of which there are two."""
    seconds = span.total_seconds()
    return next((one for one in _UNITS if seconds >= _TWO * one[0]), (1, "s"))


def _between(earliest: timedelta, latest: timedelta) -> str:
    """Say the span outwards: the first number is never too late, the last never too early."""
    size, unit = _unit(earliest)
    first, last = math.floor(earliest.total_seconds() / size), math.ceil(latest.total_seconds() / size)
    if first == last:
        return f"about {first} {unit}"
    if last <= _LONGEST:
        return f"{first} to {last} {unit}"
    larger, its = _unit(latest)
    return f"{first} {unit} to {math.ceil(latest.total_seconds() / larger)} {its}"


def _at_least(span: timedelta) -> str:
    size, unit = _unit(span)
    return f"{math.floor(span.total_seconds() / size)} {unit}"


def _after(now: datetime, seconds: float) -> datetime:
    """Return the time so many seconds on, cut at two years: no calendar bears every quotient."""
    return now + timedelta(seconds=min(seconds, 2 * _FURTHEST.total_seconds()))


def _within(spent: Iterable[Spent], now: datetime, window: timedelta) -> Sequence[Spent]:
    """Return what is known of the window, in order of time: from where the sum last fell, cut at the window's edge."""
    known: list[Spent] = []
    for one in sorted(spent, key=lambda one: one.at):
        if one.at > now:
            break
        if known and one.units < known[-1].units:
            known.clear()
        known.append(one)
    start = now - window
    inside = [one for one in known if one.at >= start]
    older = _at(known, start)
    if older is not None and inside and inside[0].at > start:
        inside.insert(0, Spent(at=start, units=math.floor(older)))
    return inside


def _at(known: Sequence[Spent], moment: datetime) -> float | None:
    """Return the sum at a time between two that are known, on the straight line; None outside."""
    if not known or not known[0].at <= moment <= known[-1].at:
        return None
    index = bisect_right(known, moment, key=lambda one: one.at)
    before = known[index - 1]
    if index == len(known):
        return before.units
    after = known[index]
    return before.units + (after.units - before.units) * ((moment - before.at) / (after.at - before.at))


def _rate(known: Sequence[Spent]) -> Rate | None:
    """Return the rate over what is known, None where that is too little."""
    if len(known) < _TWO or known[-1].at - known[0].at < _LEAST:
        return None
    width = (known[-1].at - known[0].at) / _STEPS
    inner = [_at(known, known[0].at + width * number) or 0.0 for number in range(1, _STEPS)]
    sums = [float(known[0].units), *inner, float(known[-1].units)]
    seconds = width.total_seconds()
    found = sorted(
        (sums[last] - sums[first]) / ((last - first) * seconds)
        for first in range(_STEPS + 1)
        for last in range(first + _STRETCH, _STEPS + 1)
    )
    return Rate(low=_quantile(found, _LOW), middle=_quantile(found, 0.5), high=_quantile(found, _HIGH))


def _quantile(ordered: Sequence[float], part: float) -> float:
    return ordered[round(part * (len(ordered) - 1))]
