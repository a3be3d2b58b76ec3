"""Counters, gauges and histograms with closed sets of labels.

A table says which families there are; label values are given once, at the start, and every series begins at zero, so
that a rate has a beginning. A value that is in no set is our bug and raises. No consumer, no content, nothing free.
No library is needed for this.
"""

from __future__ import annotations

import itertools
import re
import threading
from bisect import bisect_left
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "SECONDS",
    "Bars",
    "Family",
    "Kind",
    "Label",
    "Registry",
    "Series",
    "Together",
    "counter",
    "gauge",
    "histogram",
]

Label: TypeAlias = "str | tuple[str, ...]"
"""The value of a family's one label, or those of several in the order of the table; empty for a family without."""

SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.5, 10.0)
"""Upper bounds of what is measured in seconds: from a read in memory to a call that times out."""
MAX_SERIES = 20_000
_NAME = re.compile(r"cloister_[a-z][a-z0-9_]{1,79}")
_LABEL = re.compile(r"[a-z][a-z_]{0,31}")
_VALUE = re.compile(r"[\x20-\x7e]{0,128}")


class Kind(Enum):
    """How a family behaves: only grows, is set, or counts into bars."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric: what it is, by which labels it is split, and what it means."""

    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def counter(text: str, *labels: str) -> Family:
    """Return a family that only grows; its name ends in ``_total``."""
    return Family(kind=Kind.COUNTER, help=text, labels=labels)


def gauge(text: str, *labels: str) -> Family:
    """Return a family that is set."""
    return Family(kind=Kind.GAUGE, help=text, labels=labels)


def histogram(text: str, *labels: str, buckets: tuple[float, ...] = SECONDS) -> Family:
    """Return a family that counts what is observed into bars with these upper bounds, and one above them all."""
    return Family(kind=Kind.HISTOGRAM, help=text, labels=labels, buckets=buckets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """One series of a histogram: how many fell up to each bound, the last without one, and their sum."""

    counts: tuple[int, ...]
    sum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One series as it stood: the values of its labels, and its own."""

    labels: tuple[str, ...]
    value: float | Bars


class Registry:
    """The values of one server. Every method may be called from any thread."""

    def __init__(
        self,
        families: Mapping[str, Family],
        labels: Mapping[str, Iterable[str]] | None = None,
        *,
        growing: frozenset[str] = frozenset(),
    ) -> None:
        """Start every series at zero. ``growing`` names the labels whose sets ``grow`` may add to.

        Raises ``UsageError`` for a table that no monitoring system could read.
        """
        self.families = families
        self._labels = {name: tuple(sorted(set(values))) for name, values in (labels or {}).items()}
        self._growing = growing
        self._hidden: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._values: dict[tuple[str, Label], float] = {}
        self._bars: dict[tuple[str, Label], list[float]] = {}
        for name, family in families.items():
            self._demand_sane(name, family)
            self._begin(name, family)

    def _demand_sane(self, name: str, family: Family) -> None:
        is_counter, has_bars = family.kind is Kind.COUNTER, family.kind is Kind.HISTOGRAM
        if not _NAME.fullmatch(name) or name.endswith("_total") is not is_counter:
            raise UsageError(f"metric {name[:80]}: not a name of a {family.kind.value}")
        if bool(family.buckets) is not has_bars or tuple(sorted(set(family.buckets))) != family.buckets:
            raise UsageError(f"metric {name}: bounds belong to a histogram, rising")
        for label in family.labels:
            if label not in self._labels or not _LABEL.fullmatch(label):
                raise UsageError(f"metric {name}: label {label[:32]!r} has no set of values")
        if not all(_VALUE.fullmatch(value) for label in family.labels for value in self._labels[label]):
            raise UsageError(f"metric {name}: a label's value is not printable ascii")

    def _begin(self, name: str, family: Family) -> None:
        for values in itertools.product(*(self._labels[label] for label in family.labels)):
            key = (name, _spelled(values))
            if family.kind is Kind.HISTOGRAM:
                self._bars.setdefault(key, [0.0] * (len(family.buckets) + 2))
            else:
                self._values.setdefault(key, 0)
        if len(self._values) + len(self._bars) > MAX_SERIES:
            raise UsageError(f"metrics: more than {MAX_SERIES} series")

    def grow(self, label: str, values: Iterable[str]) -> None:
        """Add to the set of a growing label. Raises ``UsageError`` for another label."""
        fresh = set(values).difference(self._labels.get(label, ()))
        if label not in self._growing:
            raise UsageError(f"metrics: the set of label {label[:32]!r} is closed")
        if not all(_VALUE.fullmatch(value) for value in fresh):
            raise UsageError(f"metrics: a value of label {label} is not printable ascii")
        if not fresh:
            return
        with self._lock:
            self._labels[label] = tuple(sorted(fresh.union(self._labels[label])))
            for name, family in self.families.items():
                if label in family.labels:
                    self._begin(name, family)

    def hide(self, *names: str) -> None:
        """Show these families no more: their values are not this server's to tell. Raises ``UsageError``."""
        for name in names:
            if name not in self.families:
                raise _unknown(name)
        self._hidden |= {*names}

    def add(self, name: str, amount: float = 1, label: Label = "") -> None:
        """Add to a series. Raises ``UsageError`` for one that is not in the table."""
        try:
            with self._lock:
                self._values[name, label] += amount
        except KeyError:
            raise _unknown(name) from None

    def set(self, name: str, value: float, label: Label = "") -> None:
        """Set a series: a gauge, or a counter that somebody else counts. Raises as ``add``."""
        key = (name, label)
        if key not in self._values:
            raise _unknown(name)
        self._values[key] = value  # one step of its own: needs no lock

    def observe(self, name: str, value: float, label: Label = "") -> None:
        """Count a value into its bar. Raises as ``add``."""
        try:
            bars, bounds = self._bars[name, label], self.families[name].buckets
        except KeyError:
            raise _unknown(name) from None
        at = bisect_left(bounds, value)  # a bound counts to its own bar
        with self._lock:
            bars[at] += 1
            bars[-1] += value

    def value(self, name: str, label: Label = "") -> float:
        """Return a series' value. Raises as ``add``."""
        try:
            return self._values[name, label]
        except KeyError:
            raise _unknown(name) from None

    def bars(self, name: str, label: Label = "") -> Bars:
        """Return a histogram's series. Raises as ``add``."""
        try:
            found = self._bars[name, label]
        except KeyError:
            raise _unknown(name) from None
        with self._lock:
            return _bars(found)

    def series(self) -> Iterator[tuple[str, Family, list[Series]]]:
        """Yield every family with its series, in the table's order, as they stood at one moment."""
        with self._lock:
            values: dict[tuple[str, Label], float | Bars] = dict(self._values)
            values |= {key: _bars(counted) for key, counted in self._bars.items()}
        found: dict[str, list[Series]] = {name: [] for name in self.families}
        for (name, label), value in values.items():
            found[name].append(Series(labels=_values_of(self.families[name], label), value=value))
        for name, family in self.families.items():
            if name not in self._hidden:
                yield name, family, sorted(found[name], key=lambda one: one.labels)


class Together:
    """Registries of one server that are shown as one: no family is in two of them."""

    def __init__(self, *registries: Registry) -> None:
        """Show these."""
        self._registries = list(registries)

    def join(self, registry: Registry) -> None:
        """Show another one too. Raises ``UsageError`` where a family of it is shown already."""
        if any(other.families.keys() & registry.families.keys() for other in self._registries):
            raise UsageError("metrics: a family twice")
        self._registries.append(registry)

    def series(self) -> Iterator[tuple[str, Family, list[Series]]]:
        """Yield every family of all, as ``Registry.series``."""
        for registry in self._registries:
            yield from registry.series()


def _bars(found: list[float]) -> Bars:
    return Bars(counts=tuple(int(count) for count in found[:-1]), sum=found[-1])


def _spelled(values: tuple[str, ...]) -> Label:
    """Return label values as callers spell them: nothing, one string, or a tuple of several."""
    return values[0] if len(values) == 1 else values or ""


def _values_of(family: Family, label: Label) -> tuple[str, ...]:
    if not family.labels:
        return ()
    return label if isinstance(label, tuple) else (label,)


def _unknown(name: str) -> UsageError:
    return UsageError(f"metric {name[:80]}: name or label is not in the table")
