"""The time part of a lease: until when an instance may serve, when it renews, when it must end.

Rules two, E3, E7, E9 and E10 of 30-metering. Time never runs back here: a reading slightly before the
latest one counts as the latest; a larger step voids the lease. Pure: every reading is passed in.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.lending.clock import STEP
from cloister.wire.values import hot_value

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["LeaseClock", "Passed"]

_RENEW_AT = 3  # the first try at T/3 after the last success
_RETRY_AT = 10  # then one every T/10, so that three lost renewals are tolerated
_END_AT = 2  # the model is unloaded at 2T without renewal (E9)


@hot_value
class Passed:
    """Time that was seen to pass since the first reading: no step of a clock makes it more."""

    began: datetime
    lasted: timedelta


class LeaseClock:
    """Deadline, renewal times and end of one instance, from readings that may lie."""

    __slots__ = (
        "_began",
        "_end_after",
        "_end_at",
        "_not_before",
        "_passed",
        "_renewed_at",
        "_sent_at",
        "_stepped",
        "_tried_at",
        "deadline",
        "seen",
    )

    def __init__(self, *, end_after: int = _END_AT) -> None:
        """Start without any time: nothing may be served. The end comes ``end_after`` lives after the last success."""
        self._end_after = end_after
        self.deadline: datetime | None = None
        self.seen: datetime | None = None
        """The latest reading; None before the first."""
        self._began: datetime | None = None
        self._passed = timedelta(0)
        self._sent_at: datetime | None = None
        self._tried_at: datetime | None = None
        self._renewed_at: datetime | None = None
        self._not_before: datetime | None = None
        self._end_at: datetime | None = None
        self._stepped = False

    @property
    def live(self) -> bool:
        """Tell whether the lease had time left at the latest reading."""
        return self.deadline is not None and self.seen is not None and self.seen < self.deadline

    @property
    def stepped(self) -> bool:
        """Tell whether a clock step voided the lease and none was renewed since."""
        return self._stepped

    def observe(self, now: datetime) -> datetime:
        """Take a reading and return the time to act at; a step back of more than ``STEP`` voids (E7)."""
        seen = self.seen
        if seen is None:
            self._began = self.seen = now
        elif now > seen:
            self._passed += now - seen
            self.seen = now
        elif now < seen - STEP:
            self.void(now)
        else:
            return seen
        return now

    @property
    def passed(self) -> Passed | None:
        """The time that was seen to pass, None before the first reading. A step that voids is not in it."""
        return None if self._began is None else Passed(began=self._began, lasted=self._passed)

    def void(self, now: datetime) -> None:
        """Void the time of the lease and of the request under way; go on from ``now``.

        What was left until the end stays left, so that stepping a clock wins no life either.
        """
        if self.seen is not None and self._end_at is not None:
            self._end_at += now - self.seen
        self.seen = now
        self._stepped = True
        self.deadline = self._sent_at = self._tried_at = self._renewed_at = self._not_before = None

    def sent(self, moment: datetime, *, first: bool, ttl: timedelta) -> None:
        """Note that a request was sent; only the ``first`` sending of it counts (rule two)."""
        self._tried_at = moment
        if first:
            self._sent_at = moment
        if self._end_at is None:
            self._end_at = moment + self._end_after * ttl

    def extend(self, ttl: timedelta) -> None:
        """Take a lease of ``ttl`` that answers the request under way: deadline = max(deadline, sent + ttl)."""
        if self._sent_at is None:
            return  # the clock stepped while the request was out: its lease gives units, but no time
        until = self._sent_at + ttl
        self.deadline = until if self.deadline is None else max(self.deadline, until)
        self.hold(self._sent_at, self._end_after * ttl)
        self._renewed_at, self._sent_at = self._sent_at, None
        if self.seen is not None and self.seen >= self._renewed_at + ttl / _RENEW_AT:
            self._tried_at = None  # it came so late that the next is due: waiting T/10 could end the instance
        self._not_before, self._stepped = None, False

    def hold(self, moment: datetime, life: timedelta) -> None:
        """Put the end off to ``life`` after ``moment``; it never comes sooner for that."""
        end = moment + life
        self._end_at = end if self._end_at is None else max(self._end_at, end)

    @property
    def has_end(self) -> bool:
        """Tell whether an end was set: before the first request there is none."""
        return self._end_at is not None

    @property
    def renewed_at(self) -> datetime | None:
        """When the last request that was answered by time was sent; None before, and after a clock step."""
        return self._renewed_at

    def wait(self, retry_after: timedelta) -> None:
        """Take a refusal that asks to come back later."""
        self._sent_at = None
        if self.seen is not None:
            self._not_before = self.seen + retry_after

    def due(self, moment: datetime, *, ttl: timedelta, hurry: bool, jitter: float) -> datetime:
        """Return when to send next: T/3 after the last success, then every T/10; ``hurry`` skips the T/3."""
        at_once = hurry or not self.live
        due = moment if at_once or self._renewed_at is None else self._renewed_at + ttl / _RENEW_AT
        if self._tried_at is not None:
            due = max(due, self._tried_at + ttl / _RETRY_AT * (0.75 + 0.5 * jitter))
        return due if self._not_before is None else max(due, self._not_before)

    def over(self, moment: datetime) -> bool:
        """Tell whether the end has come: 2T after the sending of the last renewed request (E9)."""
        return self._end_at is not None and moment >= self._end_at
