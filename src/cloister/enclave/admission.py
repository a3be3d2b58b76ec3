"""How much may be under way at once: exchanges, and bytes of requests that have not fully arrived (T82).

One for all the ways into the enclave, so that none of them gets around another's bounds.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from cloister.enclave.problems import plain

if TYPE_CHECKING:
    from cloister.enclave.config import Limits
    from cloister.enclave.metrics import Metrics
    from cloister.enclave.web.exchange import Answer, Outcome

__all__ = ["Admission", "Admitted"]


class Admission:
    """The gate. ``draining`` closes it."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        """Admit what ``limits`` allow."""
        self.limits = limits
        self.metrics = metrics
        self.draining = False
        self.waiting_bytes = 0
        self._running = 0
        self._idle: asyncio.Event | None = None  # set once nothing runs; there is one while somebody waits for that

    def refusal(self) -> Answer | None:
        """Return the answer to whoever comes now and cannot be taken, None where there is room."""
        if self.draining:
            return plain(503, retry_after_s=5)
        if self._running >= self.limits.max_exchanges:
            self.metrics.add("cloister_exchanges_total", label="busy")
            return plain(429, retry_after_s=1)
        return None

    async def drain(self, seconds: float) -> None:
        """Take no more exchanges and wait until the running ones are over, but not longer."""
        self.draining = True
        if not self._running:
            return
        self._idle = self._idle or asyncio.Event()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return

    def enter(self) -> None:
        """Count one more that runs."""
        self._running += 1
        self.metrics.set("cloister_exchanges_running", self._running)

    def leave(self) -> None:
        """Count one less."""
        self._running -= 1
        self.metrics.set("cloister_exchanges_running", self._running)
        if not self._running and self._idle is not None:
            self._idle.set()


class Admitted:
    """The bounds of one exchange; what both ways in build on."""

    def __init__(self, admission: Admission) -> None:
        """Enter."""
        self._admission = admission
        self._size = 0
        self._arriving = True
        self._outcome: str | None = None
        self._begun = time.monotonic()
        admission.enter()

    def fits(self, size: int) -> Answer | None:
        """Refuse a body that is too long by what its head says."""
        if size > self._admission.limits.max_request_bytes:
            return self._refused("too_large", 413)
        return None

    def arrived(self, size: int) -> Answer | None:
        """Count bytes; refuse a body too long, and one that all the others leave no room for."""
        self._size += size
        self._admission.waiting_bytes += size
        if self._size > self._admission.limits.max_request_bytes:
            return self._refused("too_large", 413)
        if self._admission.waiting_bytes > self._admission.limits.max_waiting_bytes:
            return self._refused("busy", 429, retry_after_s=1)
        return None

    def late(self) -> Answer:
        """Say that the body took too long."""
        return self._refused("failed", 408)

    def whole(self) -> None:
        """Note that the body is there."""
        if self._arriving:
            self._arriving = False
            self._admission.waiting_bytes -= self._size

    def end(self, outcome: Outcome) -> None:
        """Leave, and count how it ended unless that was said before."""
        self.whole()
        self._admission.metrics.add("cloister_exchanges_total", label=self._outcome or outcome.value)
        self._admission.metrics.observe("cloister_exchange_seconds", time.monotonic() - self._begun)
        self._admission.leave()

    def _refused(
        self, outcome: str, status: int, kind: str = "about:blank", retry_after_s: int | None = None
    ) -> Answer:
        self._outcome = outcome
        return plain(status, kind, retry_after_s=retry_after_s)
