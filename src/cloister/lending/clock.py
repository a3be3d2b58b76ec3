"""Time that can be trusted only as far as it was seen (30-metering, rule two and E7; threats T37, T52).

An enclave has no clock of its own that the host cannot touch. ``ClockGuard`` turns two clocks of the
machine into one ``now`` and tells when they disagree; then the lease is void and the count alone
protects until the next renewal. ``custodian_time`` is the same thought for the custodian's restart.

Not detected: both clocks slowed or frozen together. The stated bound then is N further units.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cloister.errors import Rejected, Unavailable

__all__ = ["CUSTODIAN_STEP", "DRIFT", "SLACK", "STEP", "ClockGuard", "custodian_time", "lifetime"]

DRIFT = 1e-3  # how much slower than the custodian's clock an enclave's clock may run
SLACK = timedelta(seconds=1)  # what a bound allows on top of drift
STEP = timedelta(seconds=1)  # how far time may run back, or two clocks apart, before it counts as a step
CUSTODIAN_STEP = timedelta(seconds=5)  # how far the custodian's clock may stand behind its database


def lifetime(ttl: timedelta) -> timedelta:
    """Return T(1 + drift) + slack: after it, nothing is served under a lease committed before."""
    return ttl * (1 + DRIFT) + SLACK


class ClockGuard:
    """Maps a monotonic clock to ``now`` and compares its pace with the wall clock (rule E7)."""

    __slots__ = ("_last", "_origin", "_start")

    def __init__(self, *, monotonic: timedelta, wall: datetime) -> None:
        """Start: from here on ``now`` is the first wall time plus what the monotonic clock advanced."""
        self._start = monotonic
        self._origin = wall
        self._last = monotonic

    def now(self, *, monotonic: timedelta, wall: datetime) -> datetime:
        """Return the time to give to a ``LeaseHolder``.

        Raises ``Rejected`` (``clock_step``) when the monotonic clock ran back or the two clocks moved
        apart by more than ``STEP`` plus drift; the caller then calls ``LeaseHolder.void`` with the
        guard's fresh time. The guard starts anew from these readings.
        """
        elapsed = monotonic - self._start
        apart = abs((wall - self._origin) - elapsed)
        if monotonic < self._last or apart > STEP + abs(elapsed) * DRIFT:
            step = "backwards" if monotonic < self._last else f"{apart.total_seconds():.3f} s apart"
            self._start, self._origin, self._last = monotonic, wall, monotonic
            raise Rejected.because("clock_step", "clock", got=step, want=f"at most {STEP.total_seconds():.0f} s")
        self._last = monotonic
        return self._origin + elapsed


def custodian_time(now: datetime, *, latest: datetime) -> datetime:
    """Return the time a custodian acts at: never before ``latest``, the largest time it has stored.

    Raises ``Unavailable`` when the clock stands more than ``CUSTODIAN_STEP`` behind (threat T52).
    """
    if now < latest - CUSTODIAN_STEP:
        behind = (latest - now).total_seconds()
        msg = f"clock: {behind:.0f} s behind the database, want at most {CUSTODIAN_STEP.total_seconds():.0f}"
        raise Unavailable(msg, hint="set the clock right, then start again")
    return max(now, latest)
