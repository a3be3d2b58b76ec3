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
    if isinstance(clock, WatchedClock):
        watched = clock
        return lambda: Readings(
            raw=watched.raw(), cpu=watched.cpu(), monotonic=watched.monotonic(), wall=watched.wall()
        )
    return lambda: Readings(monotonic=clock.monotonic(), wall=clock.wall())


class SystemClock:
    """The clocks of this machine."""

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
        """Return user and system time, from the kernel's accounts and not from a clock."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return timedelta(seconds=usage.ru_utime + usage.ru_stime)
