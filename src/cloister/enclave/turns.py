"""Turns at the engine: as many runs at once as there are slots, the others wait in fair order, while they may."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

from cloister.enclave.fair_queue import FairQueue, Waiting, queue_full
from cloister.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from cloister.enclave.config import Limits
    from cloister.enclave.metrics import Metrics

__all__ = ["Turns", "demand_in_time"]

T = TypeVar("T")
_SINGLE = "single"  # the line of those that run alone


class Turns:
    """Who may run now. Called from the event loop alone."""

    def __init__(self, slots: int, limits: Limits, metrics: Metrics) -> None:
        """Let ``slots`` runs go on at once."""
        self._free = slots
        self._closed = False
        self._metrics = metrics
        self._queue = FairQueue(most=limits.max_queued, most_bytes=limits.max_queued_bytes)

    async def take(self, who: Hashable, size: int, *, model: str, until: float | None) -> None:
        """Wait for a turn, which the caller gives back with ``leave``.

        Raises ``Rejected`` (``deadline_passed``) and ``Unavailable`` (no room, or this instance ends).
        """
        if not self.at_once():
            await self._turn(Waiting(who=who, size=size, line=_SINGLE, future=_future()), model, until)

    async def take_for(self, line: Hashable, *, model: str) -> bool:
        """Wait for a turn for those who wait in ``line``; False where nobody does any more, and then it is not held.

        Raises ``Unavailable`` where this instance ends.
        """
        if not self.at_once():
            await self._turn(Waiting(who=line, size=0, line=_SINGLE, future=_future(), counted=False), model, None)
        if self._queue.waiting(line):
            return True
        self.leave()
        return False

    def at_once(self) -> bool:
        """Take a turn where nobody is waited for, and tell whether it was taken. Raises ``Unavailable`` as ``take``."""
        if self._closed:
            raise _ended()
        if not self._free or self._queue.waiting(_SINGLE):
            return False
        self._free -= 1
        return True

    async def _turn(self, item: Waiting[None], model: str, until: float | None) -> None:
        try:
            await self.wait(item, model=model, until=until)
        except BaseException:
            if item.future.done() and not item.future.cancelled() and item.future.exception() is None:
                self.leave()  # the turn came just as its owner left
            raise

    async def wait(self, item: Waiting[T], *, model: str, until: float | None) -> T:
        """Wait in the queue for what ``item`` waits for; whoever leaves meanwhile leaves nothing behind.

        Raises as ``take``.
        """
        if self._closed:
            raise _ended()
        begun = time.monotonic()
        try:
            displaced = self._queue.put(item)
        except Unavailable:
            self._metrics.add("cloister_queue_refused_total", label="full")
            raise
        for other in displaced:
            self._refuse(other, "displaced", queue_full())
        self._show()
        try:
            if until is None:  # most: a timer that never goes off costs as much as the queue
                return await item.future
            async with asyncio.timeout_at(until):
                return await item.future
        except TimeoutError:
            self._metrics.add("cloister_queue_refused_total", label="deadline")
            raise deadline_passed() from None
        except asyncio.CancelledError:
            self._metrics.add("cloister_queue_refused_total", label="gone")
            raise
        finally:
            self._queue.drop(item)
            self._show()
            self._metrics.add("cloister_queue_seconds_total", time.monotonic() - begun, model)

    def leave(self) -> None:
        """Give a turn back: to who comes next, or to whoever comes."""
        item = self.next(_SINGLE)
        if item is None:
            self._free += 1
        else:
            item.future.set_result(None)

    def next(self, line: Hashable, fits: Callable[[Waiting[Any]], bool] | None = None) -> Waiting[Any] | None:
        """Return who comes next in a line, out of the queue now; None where nobody waits there, or does not fit."""
        while (item := self._queue.take(line, fits)) is not None:
            if not item.future.done():
                return item
        return None

    def close(self) -> None:
        """Refuse everybody who waits and everybody who comes: this instance ends."""
        self._closed = True
        for item in self._queue.clear():
            self._refuse(item, "ended", _ended())
        self._show()

    def _refuse(self, item: Waiting[Any], label: str, error: Unavailable) -> None:
        if not item.future.done():
            item.future.set_exception(error)
            self._metrics.add("cloister_queue_refused_total", label=label)

    def _show(self) -> None:
        self._metrics.set("cloister_queue_length", len(self._queue))


def _ended() -> Unavailable:
    return Unavailable("model: this instance has ended")


def _future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


def deadline_passed() -> Rejected:
    """Return what is said to a request that did not start in its time."""
    return Rejected.because("deadline_passed", "timeout", hint="nothing was run and nothing charged: ask again")


def demand_in_time(until: float | None) -> None:
    """Prove that a request may still start. Raises ``Rejected`` (``deadline_passed``)."""
    if until is not None and asyncio.get_running_loop().time() >= until:
        raise deadline_passed()
