"""The clocks of the machine, as readings that may lie (docs/spec/lease.md section 10, E7; threat T37).

``CLOCK_BOOTTIME`` drives the lease, for it goes on while the machine sleeps; ``CLOCK_REALTIME`` dates messages;
``CLOCK_MONOTONIC_RAW`` and the processor time of this process are compared with it. Not done here: judging them
(``lending.clock.ClockGuard``), saying what the TEE vouches for (``clock_source``).
"""

from __future__ import annotations

import resource
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from cloister.lending.clock import Readings

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Clock", "SystemClock", "WatchedClock", "reader_of"]

_ACCOUNT_NS = 5_000_000  # nanoseconds that an account of the processor serves
_ACCOUNT_USES = 16  # and times


class Clock(Protocol):
    """Where time comes from; tests pass their own."""

    def monotonic(self) -> timedelta:
        """Return time since some fixed moment, sleep included."""
        ...

    def wall(self) -> datetime:
        """Return the time of day, aware."""
        ...


@runtime_checkable
class WatchedClock(Clock, Protocol):
    """A clock with two more to hold it against."""

    def raw(self) -> timedelta:
        """Return time since some fixed moment that nobody steers, sleep left out."""
        ...

    def cpu(self) -> timedelta:
        """Return the processor time of this process so far, all threads."""
        ...


def reader_of(clock: Clock) -> Callable[[], Readings]:
    """Return what reads every clock there is. Which there are is found here: asking at each reading costs more."""
    if isinstance(clock, SystemClock):
        return clock.readings
    if isinstance(clock, WatchedClock):
        watched = clock
        return lambda: Readings(
            raw=watched.raw(), cpu=watched.cpu(), monotonic=watched.monotonic(), wall=watched.wall()
        )
    return lambda: Readings(monotonic=clock.monotonic(), wall=clock.wall())


class SystemClock:
    """The clocks of this machine."""

    def __init__(self) -> None:
        """Start without an account of the processor."""
        self._cpu = timedelta(0)
        self._read_ns = 0
        self._left = 0  # times that the account may be given again

    def monotonic(self) -> timedelta:
        """Return CLOCK_BOOTTIME."""
        return timedelta(microseconds=time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000)

    def wall(self) -> datetime:
        """Return CLOCK_REALTIME in UTC."""
        return datetime.now(UTC)

    def raw(self) -> timedelta:
        """Return CLOCK_MONOTONIC_RAW."""
        return timedelta(microseconds=time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) // 1000)

    def cpu(self) -> timedelta:
        """Return user and system time, from the kernel's accounts and not from a clock.

        The kernel adds up every thread for it, so an account serves for 5 ms, and for so many times at most: should
        the clock that says so stand still, the count does not.
        """
        return self._worked(time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW))

    def readings(self) -> Readings:
        """Return all four, as ``reader_of`` reads them: in one call, for it is made several times an inference."""
        raw = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        return Readings(
            raw=timedelta(0, 0, raw // 1000),
            cpu=self._worked(raw),
            monotonic=timedelta(0, 0, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000),
            wall=datetime.now(UTC),
        )

    def _worked(self, now: int) -> timedelta:
        if self._left <= 0 or now - self._read_ns >= _ACCOUNT_NS:
            usage = resource.getrusage(resource.RUSAGE_SELF)
            self._cpu = timedelta(seconds=usage.ru_utime + usage.ru_stime)
            self._read_ns, self._left = now, _ACCOUNT_USES
        self._left -= 1
        return self._cpu
