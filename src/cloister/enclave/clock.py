"""The two clocks of the machine, as readings that may lie (30-metering E7; threat T37).

``CLOCK_BOOTTIME`` drives the lease, for it goes on while the machine sleeps; ``CLOCK_REALTIME`` is compared
with it and dates messages. Not done here: judging them (``lending.clock.ClockGuard``).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Where time comes from; tests pass their own."""

    def monotonic(self) -> timedelta:
        """Return time since some fixed moment, sleep included."""
        ...

    def wall(self) -> datetime:
        """Return the time of day, aware."""
        ...


class SystemClock:
    """The clocks of this machine."""

    def monotonic(self) -> timedelta:
        """Return CLOCK_BOOTTIME."""
        return timedelta(microseconds=time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000)

    def wall(self) -> datetime:
        """Return CLOCK_REALTIME in UTC."""
        return datetime.now(UTC)
