"""How long runs of one model take, by the size of their inputs: which ones are too brief for a thread (ADR 0037).

Handing a run to a thread and waking up for its end costs more than the run of a small model itself. A run that is
foreseen to be brief is computed where the request is read. It is foreseen from the runs before it: those of each size
go to threads until one took less than ``BRIEF_S`` there, and then in place until they take too long on average, or one
far too long; then they go to threads again, for longer each time. All are measured in processor time, so that waiting
for others does not count.

Only for models whose time follows from the sizes of their inputs (``RunningModel.steady``): where a value decides how
long a loop turns, one request would hold up every other, and the renewal of the lease.
"""

from __future__ import annotations

__all__ = ["BRIEF_S", "Pace"]

BRIEF_S = 500e-6  # seconds; about what a thread costs on a busy machine
_TOO_LONG_S = 1e-3  # seconds: an average in place that sends runs back to threads
_LONG_S = 10e-3  # seconds: one such run in place sends runs back at once
_BARRED_RUNS = 10  # runs in threads after that, and four times as many after each that follows soon
_MOST_STRIKES = 6
_CLEAN_RUNS = 1000  # brief runs in place after which one strike is forgotten: some are the memory's housekeeping
_WEIGHT = 1 / 8  # of the latest run in the average


class Pace:
    """What one model in memory was seen to take. Called from the event loop alone."""

    __slots__ = ("_barred", "_clean", "_seen", "_steady", "_strikes")

    def __init__(self, *, steady: bool) -> None:
        """Start with nothing seen."""
        self._steady = steady
        self._barred = self._strikes = self._clean = 0
        self._seen: dict[int, float] = {}  # seconds by the bits of the size: within one, sizes differ by a factor of 2

    def is_brief(self, size: int) -> bool:
        """Tell whether a run over ``size`` bytes of input is foreseen to be brief."""
        return not self._barred and self._seen.get(size.bit_length(), _LONG_S) < _TOO_LONG_S

    def note(self, size: int, seconds: float, *, aside: bool) -> None:
        """Take what one run of that size took, in place or ``aside`` in a thread."""
        if not self._steady:
            return
        bits = size.bit_length()
        if aside:
            self._barred = max(0, self._barred - 1)
            if seconds < BRIEF_S:
                self._seen[bits] = seconds
        elif bits in self._seen:
            self._seen[bits] += _WEIGHT * (seconds - self._seen[bits])
            if seconds > _LONG_S or self._seen[bits] > _TOO_LONG_S:
                del self._seen[bits]
                self._barred = _BARRED_RUNS * 4**self._strikes
                self._strikes, self._clean = min(self._strikes + 1, _MOST_STRIKES), 0
            else:
                self._clean += 1
                if self._clean >= _CLEAN_RUNS:
                    self._strikes, self._clean = max(0, self._strikes - 1), 0
