"""Many inferences at once, by threads or tasks over one plan: in order, ended cleanly.

The first error that stays stops what was not asked yet, lets what is under way end, and is raised with everything that
was answered.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.client.batch import Answers, demand_rows
from cloister.errors import CloisterError, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cloister.client.batch import Group
    from cloister.client.inference import Inference

__all__ = ["Incomplete", "Progress", "Run"]

MAX_CONCURRENCY = 64


class Incomplete(CloisterError):
    """Some questions were not answered. ``answered`` has the proven answers there are, ``cause`` the reason."""

    def __init__(self, answered: Answers, cause: CloisterError) -> None:
        """Say how far it came and why no farther."""
        super().__init__(f"{answered.done} of {answered.total} answered: {cause.message}", hint=cause.hint)
        self.answered = answered
        self.cause = cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is: rows, and what they cost and left."""

    done: int
    total: int
    units: int
    remaining: int


class Run:
    """What the workers of one call share; safe for threads."""

    def __init__(
        self, groups: tuple[Group, ...], concurrency: int, on_progress: Callable[[Progress], None] | None
    ) -> None:
        """Start with nothing answered. Raises ``UsageError``."""
        if not 1 <= concurrency <= MAX_CONCURRENCY:
            msg = f"infer_many: concurrency {concurrency}, want 1 to {MAX_CONCURRENCY}"
            raise UsageError(msg)
        self.workers = min(concurrency, len(groups))
        self._groups = groups
        self._answers: list[Inference | None] = [None] * len(groups)
        self._tell = on_progress
        self._lock = threading.Lock()
        self._next = self._done = self._units = 0
        self._stopped = False
        self._cause: CloisterError | None = None

    def take(self) -> tuple[int, Group] | None:
        """Return the next request to make; None when there is none, or the run has stopped."""
        with self._lock:
            if self._stopped or self._next == len(self._groups):
                return None
            self._next += 1
            return self._next - 1, self._groups[self._next - 1]

    def stop(self, cause: CloisterError | None = None) -> None:
        """Let nothing more be asked; the first cause is the one."""
        with self._lock:
            self._stopped = True
            self._cause = self._cause or cause

    def add(self, place: int, answer: Inference) -> None:
        """Keep an answer, and tell how far it is. Raises ``Malformed`` as ``demand_rows``; the answer is kept."""
        group = self._groups[place]
        with self._lock:
            self._answers[place] = answer
            self._done += sum(group.rows)
            self._units += answer.units
            if self._tell is not None:
                total = sum(sum(item.rows) for item in self._groups)
                self._tell(Progress(done=self._done, total=total, units=self._units, remaining=answer.remaining))
        demand_rows(group, answer)

    def result(self) -> Answers:
        """Return every answer. Raises ``Incomplete`` where something stopped the run."""
        found = Answers(groups=self._groups, answers=tuple(self._answers))
        if self._cause is not None:
            raise Incomplete(found, self._cause) from self._cause
        return found

    def threads(self, ask: Callable[[Group], Inference]) -> Answers:
        """Ask everything by threads. Raises ``Incomplete``."""

        def work() -> None:
            while (taken := self.take()) is not None:
                try:
                    self.add(taken[0], ask(taken[1]))
                except CloisterError as exc:
                    self.stop(exc)
                except BaseException:
                    self.stop()
                    raise

        with ThreadPoolExecutor(max(1, self.workers), thread_name_prefix="cloister-infer") as pool:
            try:
                for future in [pool.submit(work) for _ in range(self.workers)]:
                    future.result()
            finally:
                self.stop()  # an interrupt of the caller's too: what is under way ends, nothing more begins
        return self.result()

    async def tasks(self, ask: Callable[[Group], Awaitable[Inference]]) -> Answers:
        """Ask everything by tasks. Raises ``Incomplete``; a cancellation ends what is under way."""

        async def work() -> None:
            while (taken := self.take()) is not None:
                try:
                    self.add(taken[0], await ask(taken[1]))
                except CloisterError as exc:
                    self.stop(exc)
                except BaseException:
                    self.stop()
                    raise

        async with asyncio.TaskGroup() as group:
            for _ in range(self.workers):
                group.create_task(work())
        return self.result()
