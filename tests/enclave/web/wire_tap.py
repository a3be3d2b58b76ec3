"""A connection without a socket: bytes in pieces go in, what would leave is kept, and nothing may be left behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from web_stage import LIMITS, Echo

from cloister.enclave.web.exchange import Outcome
from cloister.enclave.web.http2 import Http2Connection
from cloister.enclave.web.listener import Connections

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloister.enclave.web.exchange import Answer, Exchange, Head
    from cloister.enclave.web.http1 import Http1Connection

__all__ = ["CountedEcho", "Tap", "through"]


class CountedEcho(Echo):
    """Counts the exchanges that it began."""

    begun = 0

    def begin(self, head: Head) -> Exchange | Answer:
        found = super().begin(head)
        self.begun += head.path != "/none"
        return found


class Tap(asyncio.Transport):
    """Takes at most ``room`` bytes, then asks the connection to wait, as a reader does who does not read."""

    def __init__(self, connection: Any, room: int | None) -> None:
        super().__init__()
        self._connection = connection
        self._room = room
        self.written = bytearray()
        self.closing = False
        self.reading = True
        self.paused = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing waits here."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data
        if self._room is not None and len(self.written) > self._room and not self.paused:
            self.paused = True
            self._connection.pause_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Nothing more is written."""

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


async def through(
    kind: type[Http1Connection | Http2Connection], pieces: Iterable[bytes], *, room: int | None = None, turns: int = 4
) -> tuple[Tap, CountedEcho, int]:
    """Put ``pieces`` through a connection until it reads no more, end it, and return what came of it.

    The number is how many pieces it read. Raises whatever comes out of it, and where an exchange was not ended once.
    """
    loop, faults = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    connections, echo = Connections(LIMITS, encrypted=True, pinned=True), CountedEcho()
    echo.gate.set()
    connection: Any = kind(echo, connections)
    tap, read = Tap(connection, room), 0
    connection.connection_made(tap)
    for piece in pieces:
        if tap.closing or not tap.reading:
            break
        read += 1
        _feed(connection, piece)
        for _ in range(turns):
            await asyncio.sleep(0)
    connection.expire()
    connection.connection_lost(None)
    for _ in range(4):
        await asyncio.sleep(0)
    assert not faults, faults
    assert len(echo.ends) == echo.begun, "each exchange ends, and once"
    assert all(isinstance(end, Outcome) for end in echo.ends)
    assert len(connections) == 0
    return tap, echo, read


def _feed(connection: Any, piece: bytes) -> None:
    if isinstance(connection, Http2Connection):
        connection.data_received(piece)
        return
    left = memoryview(piece)
    while left and not connection._transport.closing:
        buffer = connection.get_buffer(-1)
        assert len(buffer), "nowhere to read to"
        size = min(len(buffer), len(left))
        buffer[:size] = left[:size]
        left = left[size:]
        connection.buffer_updated(size)
