"""The network between the parties: links that cut, drop, delay, duplicate, replay, reorder and hold messages.

A ``Link`` joins a party that asks to one that answers and has two ways, ``requests`` and ``answers``. Each way
keeps a log of everything sent on it, whether or not it arrived: what an eavesdropper who ends TLS would have.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from cloister.testing.simulator.messages import Answer, Request

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

__all__ = ["Link", "Lost", "Way"]

M = TypeVar("M", Request, Answer)


class Lost(Exception):
    """The message does not arrive. Never leaves the network: a caller sees a timeout."""


class Way(Generic[M]):
    """One direction of a link. Faults of ``next`` messages are used up by them; the others last until undone."""

    def __init__(self) -> None:
        """Carry everything at once."""
        self.log: list[M] = []
        self.is_cut = False
        self._latency = 0.0
        self._losses = 0
        self._doubles = 0
        self._planned: deque[Callable[[M], M]] = deque()
        self._holding = False
        self._held: list[tuple[M, asyncio.Future[M]]] = []
        self._watchers: list[Callable[[M], None]] = []

    # faults that last

    def cut(self) -> None:
        """Let nothing through; whoever waits runs into its own timeout."""
        self.is_cut = True

    def heal(self) -> None:
        """Undo ``cut`` and ``delay``."""
        self.is_cut = False
        self._latency = 0.0

    def delay(self, seconds: float) -> None:
        """Let every message travel for so long."""
        self._latency = seconds

    def watch(self, watcher: Callable[[M], None]) -> None:
        """Call ``watcher`` with each message as it is sent, before any fault; it may set faults."""
        self._watchers.append(watcher)

    # faults of the next messages

    def drop(self, count: int = 1) -> None:
        """Lose the next messages."""
        self._losses += count

    def duplicate(self, count: int = 1) -> None:
        """Deliver the next messages twice: a request is answered twice, an answer comes again for the next request."""
        self._doubles += count

    def replay(self, message: M) -> None:
        """Deliver an earlier message in place of the next one."""
        self._planned.append(lambda _: message)

    def alter(self, change: Callable[[M], M]) -> None:
        """Deliver what ``change`` makes of the next message."""
        self._planned.append(change)

    # holding back

    def hold(self) -> None:
        """Keep every message back until ``release``."""
        self._holding = True

    @property
    def held(self) -> tuple[M, ...]:
        """Messages that are being kept back, oldest first."""
        return tuple(message for message, _ in self._held)

    def release(self, *, reverse: bool = False, crossed: bool = False) -> int:
        """Deliver what was held, in reverse order or each in the next one's place; returns how many."""
        self._holding = False
        held, self._held = self._held, []
        messages: list[M] = [message for message, _ in held]
        if crossed and messages:
            messages.append(messages.pop(0))
        waiters = [waiting for _, waiting in held]
        pairs = list(zip(messages, waiters, strict=True))
        for message, waiting in reversed(pairs) if reverse else pairs:
            if not waiting.done():
                waiting.set_result(message)
        return len(pairs)

    async def carry(self, message: M) -> M:
        """Return what arrives for ``message``, when it arrives. Raises ``Lost``."""
        self.log.append(message)
        for watcher in self._watchers:
            watcher(message)
        if self.is_cut or self._losses:
            self._losses -= not self.is_cut
            raise Lost
        arriving = self._planned.popleft()(message) if self._planned else message
        if self._doubles and isinstance(message, Answer):
            self._doubles -= 1
            self._planned.append(lambda _: message)
        if self._holding:
            waiting: asyncio.Future[M] = asyncio.get_running_loop().create_future()
            self._held.append((arriving, waiting))
            arriving = await waiting
        await asyncio.sleep(self._latency)
        if self.is_cut:
            raise Lost
        return arriving

    def take_double(self) -> bool:
        """Tell whether this request is to be delivered twice."""
        self._doubles, double = max(0, self._doubles - 1), self._doubles > 0
        return double


class Link:
    """What lies between ``source``, who asks, and ``target``, who answers."""

    def __init__(self, source: str, target: str) -> None:
        """Carry everything at once, both ways."""
        self.source, self.target = source, target
        self.requests: Way[Request] = Way()
        self.answers: Way[Answer] = Way()
        self.chunk_seconds = 0.0
        """How long the asking side takes to read one chunk of an answer, before the next one leaves."""
        self.chunks_cut: int | None = None
        """Break the connection behind so many chunks of each answer; None for never."""

    def cut(self) -> None:
        """Cut both ways."""
        self.requests.cut()
        self.answers.cut()

    def heal(self) -> None:
        """Heal both ways."""
        self.requests.heal()
        self.answers.heal()

    def delay(self, seconds: float) -> None:
        """Delay both ways."""
        self.requests.delay(seconds)
        self.answers.delay(seconds)

    def last_answer(self) -> datetime | None:
        """Return when the last byte of an answer left the server, None where there was none."""
        return max((chunk.at for answer in self.answers.log for chunk in answer.chunks), default=None)

    def seen(self) -> bytes:
        """Return every byte that travelled here."""
        asked, answered = self.requests.log, self.answers.log
        return b"\n".join([*(item.dump() for item in asked), *(item.dump() for item in answered)])
