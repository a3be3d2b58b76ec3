"""Results that are kept for a while, for people who look at them: bounded, in memory, gone with their tokens."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from cloister.errors import Rejected

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.verifier.tokens import Issued

__all__ = ["Results"]

MAX_RESULTS_BYTES = 64 << 20  # bytes of all results together


class Results:
    """Finds a result by its id, which nobody guesses (128 random bits): who has it may look."""

    def __init__(self, *, cap: int) -> None:
        """Keep at most ``cap``; the oldest makes room."""
        self._cap = cap
        self._kept: OrderedDict[str, Issued] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def keep(self, issued: Issued) -> None:
        """Remember a result until its token ends, or others take its place."""
        if self._cap == 0:
            return
        with self._lock:
            self._kept[issued.id] = issued
            self._bytes += len(issued.payload)
            while len(self._kept) > self._cap or self._bytes > MAX_RESULTS_BYTES:
                _, old = self._kept.popitem(last=False)
                self._bytes -= len(old.payload)

    def find(self, result_id: str, now: datetime) -> Issued:
        """Return a result. Raises ``Rejected`` (``not_found``), also for one whose token has ended."""
        with self._lock:
            found = self._kept.get(result_id)
        if found is None or now >= found.expires_at:
            raise Rejected.because("not_found", "result", hint="results are kept while their tokens live")
        return found

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._kept)
