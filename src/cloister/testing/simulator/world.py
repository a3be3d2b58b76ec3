"""What every simulated party stands on: time, network, randomness, one root of simulated TEEs, a folder."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread

from cloister.errors import UsageError
from cloister.testing.simulated_root import SimulatedRoot
from cloister.testing.simulator.loop import SimulatedLoop
from cloister.testing.simulator.wire import Network

if TYPE_CHECKING:
    import random
    from collections.abc import Coroutine
    from pathlib import Path

    from cloister.testing.simulator.clock import SimulatedTime

__all__ = ["World"]

T = TypeVar("T")
_LIMIT_S = 86_400.0  # simulated seconds that one call may take


@dataclass(slots=True)
class _Threads:
    """The threads that the custodian's web framework works in: one at a time, so that runs repeat."""

    limiter: anyio.CapacityLimiter | None = None

    def busy(self) -> bool:
        """Tell whether one works now."""
        return self.limiter is not None and self.limiter.borrowed_tokens > 0

    async def take(self) -> None:
        """Get hold of the loop's limiter."""
        self.limiter = anyio.to_thread.current_default_thread_limiter()
        self.limiter.total_tokens = 1


class World:
    """Time, network and chance of one simulation."""

    def __init__(self, time: SimulatedTime, chance: random.Random, folder: Path) -> None:
        """Start with nobody in it."""
        self.time = time
        self.chance = chance
        self.folder = folder
        self.network = Network(time)
        self.root = SimulatedRoot(chance.randbytes(32))
        self._threads = _Threads()
        self.loop = SimulatedLoop(time, self._threads.busy)
        self._running: set[asyncio.Task[Any]] = set()
        self.run(self._threads.take())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` to its end while everything else goes on; returns or raises what it does."""
        return self.loop.run_until_complete(_bounded(work))

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start ``work``; it goes on whenever time passes."""
        task = self.loop.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def quiet(self) -> None:
        """Wait until no thread works."""
        while self._threads.busy():  # noqa: ASYNC110 - threads know no events of ours
            await asyncio.sleep(0)

    def close(self) -> None:
        """End whatever still runs, and the loop."""
        if self.loop.is_closed():
            return
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(_settled(tasks))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


async def _bounded(work: Coroutine[Any, Any, T]) -> T:
    try:
        async with asyncio.timeout(_LIMIT_S) as limit:
            return await work
    except TimeoutError as exc:
        if not limit.expired():
            raise
        msg = f"simulator: not done after {_LIMIT_S:.0f} simulated seconds"
        raise UsageError(msg, hint="advance in steps; or is an answer lost that somebody waits for?") from exc


async def _settled(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
