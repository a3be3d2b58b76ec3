"""Questions under way, and answers for as long as somebody looks at them; in memory alone, and bounded.

A question belongs to the visitor that asked it; for everybody else there is none. The inputs of a question are let go
with its answer; they are kept where the allowance is exhausted, so that it can wait without being asked anew.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING

from cloister.errors import CloisterError, Rejected
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime

    from cloister.asking.limits import Limits
    from cloister.asking.readers import Panel
    from cloister.client.datatypes import Array
    from cloister.client.inference import Inference

__all__ = ["EXHAUSTED", "Question", "Questions", "State"]

EXHAUSTED = "allowance_exhausted"
_ID_BYTES, _KEY_BYTES = 16, 18


class State(Enum):
    """Where a question is."""

    ASKING = "asking"
    WAITING = "waiting"
    ANSWERED = "answered"
    REFUSED = "refused"


@dataclass(slots=True, kw_only=True)
class Question:
    """One question of one visitor. ``key`` makes a second try free; ``panel`` is who could read when it was asked."""

    id: str
    visitor: str
    model: str
    key: str
    asked_at: datetime
    panel: Panel
    inputs: Mapping[str, Array] | None = field(repr=False)
    inference: Inference | None = field(default=None, repr=False)
    error: CloisterError | None = None
    until: datetime | None = None
    """How long it waits for units; None where it does not."""
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def state(self) -> State:
        """Where it is."""
        if self.inference is not None:
            return State.ANSWERED
        if self.error is not None:
            return State.REFUSED
        return State.ASKING if self.until is None else State.WAITING

    @property
    def can_wait(self) -> bool:
        """Whether it was refused for want of units, and may wait for more."""
        error = self.error
        return isinstance(error, Rejected) and error.code == EXHAUSTED and self.inputs is not None

    @property
    def kept_bytes(self) -> int:
        """What its answer takes, or its inputs while they are kept."""
        kept = sum(array.nbytes for array in (self.inputs or {}).values())
        if self.inference is not None:
            kept += len(self.inference.request) + 2 * len(self.inference.response)
        return kept


class Questions:
    """The questions of all visitors. Of one event loop."""

    def __init__(
        self,
        ask: Callable[[Question, timedelta | None], Awaitable[Inference]],
        *,
        clock: Callable[[], datetime],
        rng: Callable[[int], bytes],
        limits: Limits,
    ) -> None:
        """Ask by ``ask``, which is told how long to wait for units."""
        self._ask, self._clock, self._rng, self._limits = ask, clock, rng, limits
        self._all: OrderedDict[str, Question] = OrderedDict()

    def start(self, visitor: str, model: str, inputs: Mapping[str, Array], panel: Panel) -> Question:
        """Begin to ask. Raises ``Rejected`` (``busy``) where too many are under way."""
        self._demand_room(visitor)
        question = Question(
            id=dump_b64u(self._rng(_ID_BYTES)),
            visitor=visitor,
            model=model,
            key=dump_b64u(self._rng(_KEY_BYTES)),
            asked_at=self._clock(),
            panel=panel,
            inputs=inputs,
        )
        self._all[question.id] = question
        self._run(question, None)
        return question

    def find(self, visitor: str, question_id: str) -> Question:
        """Return a question of this visitor. Raises ``Rejected`` (``not_found``)."""
        self._forget_old()
        found = self._all.get(question_id)
        if found is None or found.visitor != visitor:
            raise Rejected.because("not_found", "answer", hint="answers are kept for a quarter of an hour")
        return found

    def wait(self, question: Question) -> None:
        """Let a question wait for units. Raises ``Rejected`` where it cannot, or where too many are under way."""
        if not question.can_wait:
            raise Rejected.because("not_found", "question that waits", hint="ask again")
        self._demand_room(question.visitor)
        wait = timedelta(seconds=self._limits.max_wait_s)
        question.error, question.until = None, self._clock() + wait
        self._run(question, wait)

    def forget(self, question: Question) -> None:
        """End a question, and let go of what is kept of it."""
        if question.task is not None:
            question.task.cancel()
        self._all.pop(question.id, None)

    async def settled(self, question: Question) -> None:
        """Wait until there is an answer or a refusal, for as long as a page may take."""
        if question.task is not None and question.state is not State.WAITING:
            await asyncio.wait((question.task,), timeout=self._limits.patience_s)

    async def close(self) -> None:
        """End all of them."""
        tasks = [question.task for question in self._all.values() if question.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._all.clear()

    def _run(self, question: Question, wait: timedelta | None) -> None:
        question.task = asyncio.create_task(self._asked(question, wait))

    async def _asked(self, question: Question, wait: timedelta | None) -> None:
        try:
            question.inference = await self._ask(question, wait)
        except CloisterError as exc:
            question.error = exc
        except Exception as exc:  # noqa: BLE001 - the server's edge: a page shall not wait for ever
            question.error = CloisterError(f"internal error ({type(exc).__name__})")
        question.until = None
        if not question.can_wait:
            question.inputs = None
        self._forget_old()

    def _demand_room(self, visitor: str) -> None:
        running = [item for item in self._all.values() if item.state in (State.ASKING, State.WAITING)]
        mine = sum(1 for item in running if item.visitor == visitor)
        if len(running) >= self._limits.max_running or mine >= self._limits.max_running_each:
            raise Rejected.because("busy", "page", hint="wait for an answer, then ask again")

    def _forget_old(self) -> None:
        """Let go of what is too old, too much of one visitor, or too much in all; of what runs, nothing."""
        end = self._clock() - timedelta(seconds=self._limits.kept_s)
        mine: dict[str, int] = {}
        size = 0
        for question in reversed(list(self._all.values())):
            if question.state in (State.ASKING, State.WAITING):
                continue
            mine[question.visitor] = mine.get(question.visitor, 0) + 1
            size += question.kept_bytes
            newest = size == question.kept_bytes
            if (
                question.asked_at < end
                or mine[question.visitor] > self._limits.max_kept_each
                or (size > self._limits.max_kept_bytes and not newest)
            ):
                self._all.pop(question.id)
