"""Paths that the product does not have, in front of an enclave's own resources on the same web server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from cloister.enclave.web.exchange import Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cloister.enclave.web.exchange import Application, Body, Exchange, Head, Outcome

    Handler: TypeAlias = Callable[[Head, Body], Awaitable[Answer]]

__all__ = ["Added"]


@dataclass
class Added:
    """An application with more paths than ``product`` has."""

    product: Application
    handlers: dict[str, Handler] = field(default_factory=dict)

    def add(self, path: str, handler: Handler) -> None:
        """Answer requests for ``path`` by ``handler``."""
        self.handlers[path] = handler

    def begin(self, head: Head) -> Exchange | Answer:
        """Find who answers."""
        handler = self.handlers.get(head.path)
        return self.product.begin(head) if handler is None else _Handled(handler, head)


class _Handled:
    def __init__(self, handler: Handler, head: Head) -> None:
        self._handler = handler
        self._head = head

    def fits(self, size: int) -> Answer | None:
        """Take any."""

    def arrived(self, size: int) -> Answer | None:
        """Take any."""

    def late(self) -> Answer:
        """Say so."""
        return Answer(status=408)

    async def answer(self, body: Body) -> Answer:
        """Answer by the handler."""
        return await self._handler(self._head, body)

    def end(self, outcome: Outcome) -> None:
        """Count nothing."""
