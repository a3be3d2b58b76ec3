"""Numbers as a person reads them at a glance: units, rates, ages."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.lending.forecast import span_words

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["age", "byte_words", "clock", "per_minute", "short_units"]

_THOUSAND = 1000
_HUNDRED = 100
_SIGNS = ("", "k", "M", "G", "T", "P")
_BYTES = ("bytes", "KiB", "MiB", "GiB", "TiB")
_KIB = 1024


def short_units(units: float) -> str:
    """Return units in at most six characters: ``999``, ``12.3k``, ``4.5M``. Cut, never rounded up to more."""
    if units < 0:
        return "-" + short_units(-units)
    sign = 0
    value = float(units)
    while value >= _THOUSAND and sign < len(_SIGNS) - 1:
        value, sign = value / _THOUSAND, sign + 1
    if value >= _HUNDRED:
        return f"{int(value)}{_SIGNS[sign]}"
    return f"{int(value * 10) / 10:g}{_SIGNS[sign]}"


def per_minute(units_a_second: float) -> str:
    """Return a rate as units a minute; little is not nothing."""
    rate = units_a_second * 60
    if 0 < rate < 1:
        return "<1"
    return short_units(rate)


def age(since: datetime, now: datetime) -> str:
    """Return how long ago something was; what is ahead of our clock is now."""
    return span_words(max(timedelta(0), now - since))


def clock(at: datetime) -> str:
    """Return the time of day, in UTC as everywhere in the log."""
    return at.strftime("%H:%M:%S")


def byte_words(count: float) -> str:
    """Return bytes as a person reads them."""
    value, sign = float(count), 0
    while value >= _KIB and sign < len(_BYTES) - 1:
        value, sign = value / _KIB, sign + 1
    return f"{value:.0f} {_BYTES[sign]}" if sign == 0 or value >= _HUNDRED else f"{value:.1f} {_BYTES[sign]}"
