"""How often, and how much at once: rates per caller and for all, and places for verifications.

A verification costs processor time, and maybe a vendor's answer that is waited for. They run in threads, for the time
goes to signatures in C, which let others run, and to waiting; so many at once, so many in line, and the next are told
to come back. Failed logins are counted by address.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from cloister.errors import Rejected
from cloister.serving.rates import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from cloister.verifier.settings import Settings

__all__ = ["Limits", "Places"]

T = TypeVar("T")
_ALL = "all"
_FAILURES_PER_MINUTE = 60
_WAITING_PAGES = 8
_LOOKUPS = 2  # threads: a disk that hangs holds those of its own service and no event loop


class Places:
    """Runs work in threads: ``at_once``, and ``waiting`` in line. Used on one event loop."""

    def __init__(self, *, at_once: int, waiting: int) -> None:
        """Start no thread yet."""
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="verification")
        self._most = at_once + waiting
        self._taken = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns. Raises ``Rejected`` (``too_many_requests``) where no place is left.

        Work whose asker went away is done to its end: a thread cannot be stopped, and its place is not free before.
        """
        if self._taken >= self._most:
            raise Rejected.because("too_many_requests", "verifications at once", want=f"at most {self._most}")
        self._taken += 1
        done = asyncio.get_running_loop().run_in_executor(self._pool, work)
        done.add_done_callback(self._leave)
        return await asyncio.shield(done)

    def close(self) -> None:
        """Take no more work; what runs is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _leave(self, done: asyncio.Future[T]) -> None:
        self._taken -= 1
        if not done.cancelled():
            done.exception()  # looked at, also where nobody waits for it any more


class Limits:
    """Every rate of one service."""

    def __init__(self, settings: Settings) -> None:
        """Nothing was asked yet."""
        self.failures = RateLimit(per_minute=_FAILURES_PER_MINUTE, subject="failed logins")
        self.pages = RateLimit(per_minute=settings.pages_per_minute, subject="explanations")
        self._challenges = RateLimit(per_minute=settings.challenges_per_minute, subject="challenges")
        self._requests = RateLimit(per_minute=settings.requests_per_minute, subject="verifications")
        self._all = RateLimit(per_minute=settings.all_per_minute, subject="verifications of all callers")
        self.page_places = Places(at_once=1, waiting=_WAITING_PAGES)  # who looks takes no place of who verifies
        self.places = Places(at_once=settings.verifications, waiting=settings.waiting)
        self.lookups = Places(at_once=_LOOKUPS, waiting=settings.connections)  # of files: who asks and which keys

    def close(self) -> None:
        """Take no more work."""
        self.places.close()
        self.lookups.close()
        self.page_places.close()

    def take_challenge(self, caller: str, now: datetime) -> None:
        """Use one of a caller's challenges. Raises ``Rejected`` (``too_many_requests``)."""
        self._challenges.take(caller, now)

    def take_verification(self, caller: str, now: datetime) -> None:
        """Use one of a caller's verifications, and one of everybody's; a caller beyond its own costs nobody any."""
        self._requests.take(caller, now)
        self._all.take(_ALL, now)
