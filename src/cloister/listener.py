"""What the listening sockets of both servers share: a client that does not get its request out is dropped.

uvicorn bounds how long an idle connection is kept, but not how long a first request may take: silence, or a
byte now and then, would hold a place for ever (T82). Not done here: bodies, which the applications time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

__all__ = ["impatient"]


class _Impatient(H11Protocol):
    """Drops a connection whose request line and headers are not there in time."""

    patience_s: int
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the parent has it
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._calm()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Count from the first moment, never anew for another byte, until the headers are whole."""
        if self.conn.their_state is not h11.IDLE:
            self._calm()
        elif self._late is None:
            self._late = self.loop.call_later(self.patience_s, self.transport.close)

    def _calm(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def impatient(patience_s: int) -> type[H11Protocol]:
    """Return the protocol for ``uvicorn.Config(http=...)`` that waits ``patience_s`` seconds for a request's head."""
    return cast("type[H11Protocol]", type("Connection", (_Impatient,), {"patience_s": patience_s}))
