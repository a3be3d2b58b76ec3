"""One simulated time for all, and the clocks through which each party sees it.

``SimulatedTime`` is what really passes; a ``PartyClock`` may be wrong about it: it has an offset, a pace, and
two readings, time of day and time since boot, that a hostile host can set apart (threat T37).
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

__all__ = ["START", "PartyClock", "SimulatedTime"]

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
_MICRO = 1_000_000
_DUST = 5e-4  # microseconds


class SimulatedTime:
    """The time that passes, in whole microseconds; nothing but the simulator moves it."""

    __slots__ = ("_micros", "start")

    def __init__(self, start: datetime = START) -> None:
        """Start at ``start``."""
        self.start = start
        self._micros = 0

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._micros / _MICRO

    @property
    def passed(self) -> timedelta:
        """Time since the start."""
        return timedelta(microseconds=self._micros)

    @property
    def now(self) -> datetime:
        """The true time of day."""
        return self.start + self.passed

    def jump(self, seconds: float) -> None:
        """Let ``seconds`` pass, rounded up to a microsecond but for what sums of floats leave over."""
        self._micros += max(0, math.ceil(seconds * _MICRO - _DUST))


class PartyClock:
    """The clocks of one party's machine: call it for the time of day, or read ``wall`` and ``monotonic``.

    ``skew`` is how many seconds the time of day is ahead of the true time, ``pace`` how fast both clocks run.
    """

    def __init__(self, time: SimulatedTime, *, skew: float = 0.0, pace: float = 1.0) -> None:
        """Start right but for ``skew`` and ``pace``."""
        self._time = time
        self._pace = pace
        self._since = time.passed
        self._boot = timedelta(hours=1)
        self._wall = time.now + timedelta(seconds=skew)

    def __call__(self) -> datetime:
        """Return the time of day."""
        return self.wall()

    def wall(self) -> datetime:
        """Return the time of day, as this machine has it."""
        return self._wall + self._elapsed()

    def monotonic(self) -> timedelta:
        """Return the time since boot, as this machine has it."""
        return self._boot + self._elapsed()

    def step(self, seconds: float) -> None:
        """Set the time of day, as whoever has root can."""
        self._settle()
        self._wall += timedelta(seconds=seconds)

    def step_boot(self, seconds: float) -> None:
        """Move the time since boot, as only a hostile hypervisor can."""
        self._settle()
        self._boot += timedelta(seconds=seconds)

    def run_at(self, pace: float) -> None:
        """Let both clocks run ``pace`` times as fast from now on; 0 freezes them."""
        self._settle()
        self._pace = pace

    def _elapsed(self) -> timedelta:
        return (self._time.passed - self._since) * self._pace

    def _settle(self) -> None:
        elapsed = self._elapsed()
        self._wall += elapsed
        self._boot += elapsed
        self._since = self._time.passed
