"""Time that can be trusted only as far as it was seen (docs/spec/lease.md section 10, E7; threats T37, T52).

An enclave has no clock of its own that the host cannot touch. ``ClockGuard`` turns the clocks of the
machine into one ``now`` and tells when they disagree, stand still while work is done, or leave a gap; then the
lease is void and the count alone protects until the next renewal. ``SignedTimes`` holds the same clock against the
times that the custodian signs. ``custodian_time`` is the same thought for the custodian's restart.

Not detected: every clock slowed or frozen together while the enclave is cut off and does little. The stated bound
then is N further units.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cloister.errors import Rejected, Unavailable
from cloister.wire.values import hot_value

__all__ = [
    "CUSTODIAN_STEP",
    "DRIFT",
    "GAP",
    "SLACK",
    "STEP",
    "ClockGuard",
    "Readings",
    "SignedTimes",
    "custodian_time",
    "lifetime",
]

DRIFT = 1e-3  # how much slower than the custodian's clock an enclave's clock may run
SLACK = timedelta(seconds=1)  # what a bound allows on top of drift
STEP = timedelta(seconds=1)  # how far time may run back, or two clocks apart, before it counts as a step
GAP = timedelta(seconds=5)  # between two heartbeats: a process that was stopped so long asks before it serves
_NONE = timedelta(0)
_BUSY = timedelta(seconds=1)  # processor time beyond what the clock allows before it counts as standing still
CUSTODIAN_STEP = timedelta(seconds=5)  # how far the custodian's clock may stand behind its database


def lifetime(ttl: timedelta) -> timedelta:
    """Return T(1 + drift) + slack: after it, nothing is served under a lease committed before."""
    return ttl * (1 + DRIFT) + SLACK


@hot_value
class Readings:
    """What the machine's clocks say at one moment. ``raw`` and ``cpu`` are None where there is no such clock.

    ``monotonic`` goes on in sleep and may be steered, ``raw`` stops in sleep and is steered by nobody, ``cpu`` is
    the processor time of this process, all threads.
    """

    monotonic: timedelta
    wall: datetime
    raw: timedelta | None = None
    cpu: timedelta | None = None


class ClockGuard:
    """Maps a monotonic clock to ``now`` and compares its pace with every other clock there is (rule E7).

    ``cores`` is how many threads of this process can run at once: so much faster may processor time pass.
    """

    __slots__ = ("_beat", "_cores", "_last", "_start", "_window")

    def __init__(self, first: Readings, *, cores: int = 1) -> None:
        """Start: from here on ``now`` is the first wall time plus what the monotonic clock advanced."""
        self._cores = max(1, cores)
        self._beat: timedelta | None = None
        self._restart(first)

    def _restart(self, readings: Readings) -> None:
        self._start = self._last = self._window = readings
        self._beat = None if self._beat is None else readings.monotonic

    @property
    def fresh(self) -> datetime:
        """The time at the latest reading."""
        return self._start.wall + (self._last.monotonic - self._start.monotonic)

    def now(self, readings: Readings) -> datetime:
        """Return the time to give to a ``LeaseHolder``.

        Raises ``Rejected`` and starts anew from these readings; the caller then calls ``LeaseHolder.void`` with the
        guard's fresh time. The codes: ``clock_step`` (a clock ran back, or wall and monotonic moved apart),
        ``clock_rate`` (the monotonic clock is slower than the raw one), ``clock_gap`` (the process or the machine
        stood still), ``clock_frozen`` (more processor time passed than time).
        """
        anomaly = self._anomaly(readings)
        if anomaly is not None:
            self._restart(readings)
            raise Rejected.because(anomaly[0], "clock", got=_shown(anomaly[1]))
        self._last = readings
        if readings.monotonic - self._window.monotonic >= STEP:
            self._window = readings
        return self._start.wall + (readings.monotonic - self._start.monotonic)

    def beat(self) -> None:
        """Note a heartbeat at the latest reading; from the first on, one must follow within ``GAP``."""
        self._beat = self._last.monotonic

    def _anomaly(self, readings: Readings) -> tuple[str, timedelta] | None:
        """Return code and size of the first thing that does not fit, None where all does."""
        last = self._last
        monotonic, raw, cpu = readings.monotonic, readings.raw, readings.cpu
        if monotonic < last.monotonic:
            return "clock_step", last.monotonic - monotonic
        if raw is not None and last.raw is not None and raw < last.raw:
            return "clock_step", last.raw - raw
        if cpu is not None and last.cpu is not None and cpu < last.cpu:
            return "clock_step", last.cpu - cpu
        return self._discord(readings)

    def _discord(self, readings: Readings) -> tuple[str, timedelta] | None:
        """Return where one clock does not fit another one."""
        start, window = self._start, self._window
        monotonic, raw, cpu = readings.monotonic, readings.raw, readings.cpu
        elapsed = monotonic - start.monotonic
        if raw is not None and start.raw is not None:
            ahead = raw - start.raw - elapsed
            # Behind: only the monotonic clock goes on in sleep.
            if not -STEP <= ahead <= STEP and _is_apart(ahead, elapsed):
                return "clock_rate" if ahead > _NONE else "clock_gap", abs(ahead)
        apart = readings.wall - start.wall - elapsed
        if not -STEP <= apart <= STEP and _is_apart(apart, elapsed):
            return "clock_step", abs(apart)
        if self._beat is not None and monotonic - self._beat > GAP:
            return "clock_gap", monotonic - self._beat
        if cpu is not None and window.cpu is not None:
            worked = cpu - window.cpu
            if worked > _BUSY and worked > (monotonic - window.monotonic) * self._cores + _BUSY:
                return "clock_frozen", worked
        return None


def _is_apart(difference: timedelta, elapsed: timedelta) -> bool:
    """Tell whether two clocks are further apart than drift may have brought them since the start."""
    return abs(difference) > STEP + abs(elapsed) * DRIFT


def _shown(difference: timedelta) -> str:
    return f"{difference.total_seconds():.3f} s"


class SignedTimes:
    """Holds our clock against the custodian's, from the time each lease says it was committed.

    A commit lies between the sending of its request and the receipt of its answer, so the time between two commits
    is bounded from both sides by our own; held-back or repeated answers change nothing in that. This finds clocks
    that are slowed all together, as soon as the enclave renews.
    """

    __slots__ = ("_first",)

    def __init__(self) -> None:
        """Start without any answer."""
        self._first: tuple[datetime, datetime, datetime] | None = None

    def take(self, *, sent: datetime, received: datetime, issued_at: datetime) -> None:
        """Compare one more lease with the first one; ``sent`` and ``received`` are our own times.

        Raises ``Rejected`` (``clock_slow``, ``clock_fast``) and starts anew with this lease. A custodian whose clock is
        corrected by up to ``CUSTODIAN_STEP`` is no anomaly.
        """
        first = self._first
        if first is None:
            self._first = (sent, received, issued_at)
            return
        theirs = issued_at - first[2]
        slow = theirs - (received - first[0]) * (1 + DRIFT) - CUSTODIAN_STEP
        fast = (sent - first[1]) - theirs * (1 + DRIFT) - CUSTODIAN_STEP
        for code, beyond in (("clock_slow", slow), ("clock_fast", fast)):
            if beyond > timedelta(0):
                self._first = (sent, received, issued_at)
                raise Rejected.because(code, "clock", got=_shown(beyond + CUSTODIAN_STEP), want="the custodian's pace")


def custodian_time(now: datetime, *, latest: datetime) -> datetime:
    """Return the time a custodian acts at: never before ``latest``, the largest time it has stored.

    Raises ``Unavailable`` when the clock stands more than ``CUSTODIAN_STEP`` behind (threat T52).
    """
    if now < latest - CUSTODIAN_STEP:
        behind = (latest - now).total_seconds()
        msg = f"clock: {behind:.0f} s behind the database, want at most {CUSTODIAN_STEP.total_seconds():.0f}"
        raise Unavailable(msg, hint="set the clock right, then start again")
    return max(now, latest)
