"""What this machine's processor does a fixed piece of work in, for times that are compared between machines."""

from __future__ import annotations

import statistics
import time

__all__ = ["reference"]


def reference() -> float:
    """Return the processor time of a fixed loop, the median of several."""
    found = []
    for _ in range(7):
        begun = time.thread_time()
        sum(range(3000))
        found.append(time.thread_time() - begun)
    return statistics.median(found)
