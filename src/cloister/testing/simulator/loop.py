"""An asyncio event loop that never waits: where every task sleeps, simulated time jumps to the next timer.

So the real loops of the product (renewal, keyset, sweep, a client that waits) run unchanged, hours in
milliseconds, and in the same order each time: work for threads is done at once, on the loop's own thread, and
its result is delivered after the simulated time that it says it took (``work``).
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any

from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.testing.simulator.clock import SimulatedTime

__all__ = ["SimulatedLoop"]

_THREAD_PATIENCE_S = 0.05  # real seconds between looks at a thread that works


class _Waiter(selectors.DefaultSelector):
    """Lets simulated time pass instead of waiting; waits for real only while a thread works."""

    def __init__(self, time: SimulatedTime, is_busy: Callable[[], bool]) -> None:
        super().__init__()
        self._time = time
        self._is_busy = is_busy

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if found or (timeout is not None and timeout <= 0):
            return found
        if self._is_busy():
            return super().select(_THREAD_PATIENCE_S)
        if timeout is None:
            msg = "simulator: everything waits and no timer is set, so nothing will ever happen"
            raise UsageError(msg)
        self._time.jump(timeout)
        return found


class SimulatedLoop(asyncio.SelectorEventLoop):
    """The event loop of one simulator. ``is_busy`` tells whether a thread outside of it works."""

    def __init__(self, time: SimulatedTime, is_busy: Callable[[], bool]) -> None:
        """Run on ``time``."""
        self._simulated = time
        self._worked = 0.0
        super().__init__(_Waiter(time, is_busy))

    def time(self) -> float:
        """Return simulated seconds."""
        return self._simulated.seconds

    def work(self, seconds: float) -> None:
        """Say, from within a piece of work for a thread, that it takes so much simulated time."""
        self._worked += seconds

    def run_in_executor(  # type: ignore[override]  # the base class types it as a coroutine, and means a future
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Do the work now and deliver its outcome when it would be done."""
        del executor
        future = self.create_future()
        self._worked = 0.0
        result, error = None, None
        try:
            result = func(*args)
        except Exception as exc:  # noqa: BLE001 - as an executor: whatever it was, the waiting task gets it
            error = exc
        self.call_later(self._worked, _deliver, future, result, error)
        return future


def _deliver(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
