"""How often: token buckets in bounded memory (T51, T82)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from cloister.errors import Rejected

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["RateLimit"]

_MAX_CLIENTS = 4096  # clients remembered at once; the one seen longest ago is forgotten first


class RateLimit:
    """Lets each client through ``per_minute`` times a minute, in bursts of as many."""

    __slots__ = ("_buckets", "_capacity", "_lock", "_subject")

    def __init__(self, *, per_minute: int, subject: str) -> None:
        """Take the rate and what is being limited, for the error."""
        self._capacity = float(per_minute)
        self._subject = subject
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, datetime]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many clients are remembered."""
        return len(self._buckets)

    def _level(self, client: str, now: datetime) -> float:
        level, then = self._buckets.get(client, (self._capacity, now))
        return min(self._capacity, level + max(0.0, (now - then).total_seconds()) * self._capacity / 60.0)

    def demand(self, client: str, now: datetime) -> None:
        """Prove that ``client`` has something left, without using it. Raises ``Rejected`` (``too_many_requests``)."""
        with self._lock:
            if self._level(client, now) < 1.0:
                raise Rejected.because("too_many_requests", self._subject, hint="wait a minute")

    def spend(self, client: str, now: datetime) -> bool:
        """Use one of the client's tries; tells whether that was the last."""
        with self._lock:
            level = max(0.0, self._level(client, now) - 1.0)
            self._buckets[client] = (level, now)
            self._buckets.move_to_end(client)
            while len(self._buckets) > _MAX_CLIENTS:
                self._buckets.popitem(last=False)
            return level < 1.0

    def take(self, client: str, now: datetime) -> None:
        """Use one of the client's tries, or refuse."""
        self.demand(client, now)
        self.spend(client, now)
