"""Group commit: calls that wait for the writer anyway are done in one transaction.

Whoever comes first does everything that waits; the others find theirs done when their turn comes. Alone, a
call is done at once and nothing is waited for. What a commit costs (fsync of the log, the checkpoint outside, the
epoch read and written) is then paid once for many calls, and still before any of them is answered.

Not done here: what is done, and that it is durable when ``run`` returns.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from cloister.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["MOST", "Turns"]

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

MOST = 16  # calls in one transaction: it bounds how long a block waits for the writer


@dataclass(slots=True)
class _Place(Generic[Asked, Answer]):
    """One call that waits, and what came of it."""

    asked: Asked
    done: bool = False
    answer: Answer | None = None
    error: BaseException | None = None


class Turns(Generic[Asked, Answer]):
    """Groups calls. Safe to call from several threads, which is what it is for.

    ``run`` does some calls, all of them or none, and returns for each its answer or why that one alone was
    refused. Where it raises because of one call, each is done again alone, so that none suffers from another;
    ``Unavailable`` is everybody's.
    """

    def __init__(self, run: Callable[[Sequence[Asked]], Sequence[Answer | Rejected]]) -> None:
        """Keep ``run``; nothing is done yet."""
        self._run = run
        self._turn = threading.Lock()
        self._list = threading.Lock()
        self._waiting: list[_Place[Asked, Answer]] = []

    def take(self, asked: Asked) -> Answer:
        """Return the answer once it is durable. Raises what ``run`` raises, or returned, for this call."""
        place: _Place[Asked, Answer] = _Place(asked)
        with self._list:
            self._waiting.append(place)
        with self._turn:
            while not place.done:
                self._next()
        if place.error is not None:
            raise place.error
        return place.answer  # type: ignore[return-value]  # done and without error: run gave an answer

    def _next(self) -> None:
        with self._list:
            group, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        try:
            self._settle(group)
        except BaseException as exc:  # noqa: BLE001 - raised to whoever asked
            if len(group) == 1 or isinstance(exc, Unavailable):
                _fail(group, exc)
                return
            for place in group:
                self._alone(place)

    def _alone(self, place: _Place[Asked, Answer]) -> None:
        try:
            self._settle([place])
        except BaseException as exc:  # noqa: BLE001 - raised to whoever asked
            _fail([place], exc)

    def _settle(self, group: list[_Place[Asked, Answer]]) -> None:
        found = self._run([place.asked for place in group])
        for place, answer in zip(group, found, strict=True):
            if isinstance(answer, Rejected):
                place.error = answer
            else:
                place.answer = answer
            place.done = True


def _fail(group: list[_Place[Asked, Answer]], error: BaseException) -> None:
    for place in group:
        place.error, place.done = error, True
