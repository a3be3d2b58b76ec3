"""No request twice: the Date inside the request and a cache of encapsulated keys (RFC 9458 section 6.5).

A request whose ``Date`` is more than ``DATE_SKEW`` away is refused; within that, its encapsulated key
is remembered longer than the Date can stay good, so that the same bytes are never served again. The
cache is bounded and closed when full: it forgets nothing early. Keys live no longer than the process,
so neither does the cache.

Not done here: who may ask. A gateway checks the consumer's token first, for strangers can encapsulate
too, and would fill the cache.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cloister.channel.fields import value_of
from cloister.errors import Malformed, Rejected, Unavailable, UsageError

if TYPE_CHECKING:
    from cloister.channel.fields import FieldLines

__all__ = ["DATE_SKEW", "DEFAULT_WINDOW", "ReplayCache", "dump_http_date", "parse_http_date", "verify_date"]

DATE_SKEW = timedelta(seconds=60)  # how far a Date may be from our clock, either way
DEFAULT_WINDOW = timedelta(minutes=3)  # how long an encapsulated key is remembered
DEFAULT_CAPACITY = 100_000  # encapsulated keys; about 20 MB

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_IMF_FIXDATE = re.compile(r"[A-Z][a-z]{2}, (\d{2}) ([A-Z][a-z]{2}) (\d{4}) (\d{2}):(\d{2}):(\d{2}) GMT", re.ASCII)


class ReplayCache:
    """Remembers the encapsulated keys of the last ``window``. Safe for use by several threads."""

    __slots__ = ("_capacity", "_latest", "_lock", "_seen", "_window")

    def __init__(self, *, window: timedelta = DEFAULT_WINDOW, capacity: int = DEFAULT_CAPACITY) -> None:
        """Start empty.

        Raises ``UsageError`` for a window so short that a Date is still good when its key is forgotten.
        """
        if window <= 2 * DATE_SKEW or capacity < 1:
            msg = f"replay cache: window {window} and capacity {capacity}, want more than {2 * DATE_SKEW} and 0"
            raise UsageError(msg)
        self._window = window
        self._capacity = capacity
        self._seen: OrderedDict[bytes, datetime] = OrderedDict()
        self._latest: datetime | None = None
        self._lock = threading.Lock()

    def admit(self, enc: bytes, now: datetime) -> None:
        """Take note of ``enc``; from then on it is refused for the window.

        Raises ``Rejected`` (``replayed``) for one we know, ``Unavailable`` when full, and when the clock
        went back so far that a Date could be good again whose key is forgotten.
        """
        name = hashlib.sha256(enc).digest()
        with self._lock:
            if self._latest is not None and now <= self._latest - (self._window - 2 * DATE_SKEW):
                msg = "replay cache: the clock went back"
                raise Unavailable(msg)
            self._latest = now if self._latest is None else max(now, self._latest)
            self._forget(self._latest)
            if name in self._seen:
                raise Rejected.because("replayed", "ohttp request")
            if len(self._seen) >= self._capacity:
                msg = f"replay cache: full with {self._capacity} requests"
                raise Unavailable(msg, retry_after_s=int(self._window.total_seconds()))
            self._seen[name] = self._latest

    def _forget(self, now: datetime) -> None:
        while self._seen:
            name, seen = next(iter(self._seen.items()))
            if now - seen < self._window:
                return
            del self._seen[name]


def verify_date(headers: FieldLines, now: datetime) -> None:
    """Prove that a request says it was made within ``DATE_SKEW`` of ``now``.

    Raises ``Malformed`` for a Date that is none or there twice, ``Rejected`` (``date_missing``,
    ``date_skewed``).
    """
    value = value_of(headers, "date")
    if value is None:
        raise Rejected.because("date_missing", "inner request")
    date = parse_http_date(value)
    if abs(now - date) > DATE_SKEW:
        raise Rejected.because("date_skewed", "inner request", got=value, want=dump_http_date(now))


def dump_http_date(moment: datetime) -> str:
    """Return ``moment`` (aware) as IMF-fixdate (RFC 9110 section 5.6.7), whole seconds."""
    utc = moment.astimezone(UTC)
    day, month = _DAYS[utc.weekday()], _MONTHS[utc.month - 1]
    return f"{day}, {utc.day:02d} {month} {utc.year:04d} {utc.hour:02d}:{utc.minute:02d}:{utc.second:02d} GMT"


def parse_http_date(text: str) -> datetime:
    """Return the aware datetime of an IMF-fixdate; no obsolete form, the day of the week must fit.

    Raises ``Malformed``.
    """
    found = _IMF_FIXDATE.fullmatch(text)
    try:
        if found is None or found[2] not in _MONTHS:
            raise ValueError(text)  # noqa: TRY301 - one way out of this block
        month = _MONTHS.index(found[2]) + 1
        hour, minute, second = (int(found[at]) for at in (4, 5, 6))
        moment = datetime(int(found[3]), month, int(found[1]), hour, minute, second, tzinfo=UTC)
    except ValueError as exc:
        msg = "field date: not an http date"
        raise Malformed(msg) from exc
    if dump_http_date(moment) != text:
        msg = "field date: day of the week does not fit"
        raise Malformed(msg)
    return moment
