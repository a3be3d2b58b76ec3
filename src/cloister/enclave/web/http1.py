"""One HTTP/1.1 connection (RFC 9112): a head, its body, the answer, and again.

A body of known length is read by the socket (or TLS) straight into its own memory. Requests on one connection are
answered one after the other; what is sent ahead of its turn waits in the kernel. Deadlines are the listener's to
watch: ``deadline`` is when this connection has to have got on.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, cast

from cloister.channel.phrases import PHRASES
from cloister.enclave.web.chunked import ChunkedBody
from cloister.enclave.web.exchange import Answer, Outcome
from cloister.enclave.web.http1_head import CHUNKED, RequestHead, parse_head
from cloister.errors import Malformed, Rejected

if TYPE_CHECKING:
    from cloister.enclave.web.exchange import Application, Exchange
    from cloister.enclave.web.listener import Connections

__all__ = ["MAX_HEAD_BYTES", "NEVER", "Http1Connection"]

MAX_HEAD_BYTES = 32 * 1024  # bytes of a request's head
NEVER = float("inf")


class _State(Enum):
    HEAD = "head"
    BODY = "body"
    ANSWERING = "answering"
    LINGERING = "lingering"  # refused in the middle of a request: what still comes is dropped
    OVER = "over"


class Http1Connection(asyncio.BufferedProtocol):
    """Speaks for one connection; made by the listener for each that it accepts."""

    def __init__(self, application: Application, connections: Connections) -> None:
        """Answer by ``application``."""
        self._application = application
        self._connections = connections
        self._limits = connections.limits
        self._loop = connections.loop
        self._state = _State.HEAD
        self._buffer = bytearray()  # where the next read goes, while it is not a body's own memory
        self._waiting = bytearray()  # what came and was not taken yet
        self._request: RequestHead | None = None
        self._exchange: Exchange | None = None
        self._body = bytearray()
        self._filled = 0  # bytes of ``_body`` that came
        self._chunked: ChunkedBody | None = None
        self._task: asyncio.Task[None] | None = None
        self._begun = False  # whether that task has made its first step
        self._drained: asyncio.Future[None] | None = None
        self._placed = False
        self._idle = False
        self._paused = False
        self._certificates: tuple[bytes, ...] = ()
        self.deadline = NEVER

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place, and the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=1, low=0)  # each chunk waits until the one before is out (E5)
        self.deadline = self._loop.time() + self._limits.body_timeout_s
        self._certificates = self._connections.shown(transport)
        self._placed = self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back, and stop answering."""
        del exc
        self._state = _State.OVER
        self.deadline = NEVER
        self._connections.remove(self)
        if self._drained is not None and not self._drained.done():
            self._drained.set_exception(ConnectionResetError())
        if self._task is not None:
            self._task.cancel()
        if self._task is None or not self._begun:  # cancelled before its first step it never runs, not even its end
            self._end(Outcome.FAILED)
        self._body, self._waiting = bytearray(), bytearray()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the body's own memory where a body is read, a buffer elsewhere."""
        del sizehint
        if self._state is _State.BODY and self._chunked is None:
            return memoryview(self._body)[self._filled :]
        return self._connections.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        if self._state is _State.BODY and self._chunked is None:
            self._filled += nbytes
            self._grow(nbytes)
        elif self._state is not _State.LINGERING:
            self._waiting += self._connections.buffer[:nbytes]
            if self._state is not _State.ANSWERING:
                self._read()
            elif len(self._waiting) >= MAX_HEAD_BYTES:  # what is sent ahead waits in the kernel
                self._transport.pause_reading()
                self._paused = True

    def pause_writing(self) -> None:
        """Let the next chunk wait."""
        self._drained = self._loop.create_future()
        self._drained.add_done_callback(_retrieved)

    def resume_writing(self) -> None:
        """Let it go on."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    # The listener's side

    def expire(self) -> None:
        """End what has not got on in time: a slow body is told so, the rest is cut."""
        if self._state is _State.BODY and self._exchange is not None:
            self._refuse(self._exchange.late())
        else:
            self.abort()

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()

    def finish(self) -> None:
        """End as soon as nothing is being answered."""
        if self._state is not _State.ANSWERING:
            self._transport.close()

    # Reading

    def _read(self) -> None:
        if self._idle:
            self._idle = False
            self._connections.busy(self)
            self.deadline = self._loop.time() + self._limits.body_timeout_s
        while self._waiting:
            if self._state is _State.HEAD:
                self._take_head()
            elif self._state is _State.BODY:
                self._take_body()
            if self._state is not _State.BODY:
                return

    def _take_head(self) -> None:
        """Take a head from what waits, where it is whole."""
        at = self._waiting.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
        if at < 0:
            if len(self._waiting) >= MAX_HEAD_BYTES:
                self._refuse(Answer(status=431))
            return
        try:
            request = parse_head(
                bytes(self._waiting[: at + 4]), pinned=self._connections.pinned, certificates=self._certificates
            )
        except Malformed:
            self._refuse(Answer(status=400))
            return
        del self._waiting[: at + 4]
        self._request = request
        if not self._placed:
            self._refuse(Answer(status=503, headers=(("retry-after", "1"),)))
            return
        begun = self._application.begin(request.head)
        if not isinstance(begun, Answer):
            self._begin(begun, request)
        elif request.length:
            self._refuse(begun)
        else:
            self._write(begun)
            if self._drained is None:
                self._next()
            else:  # who sends requests ahead and reads no answers must not fill our memory with them
                self._state = _State.ANSWERING
                self._task = self._loop.create_task(self._read_by())

    def _begin(self, exchange: Exchange, request: RequestHead) -> None:
        self._exchange = exchange
        self._filled, self._chunked = 0, ChunkedBody() if request.length == CHUNKED else None
        if request.length == 0:
            self._ask()
            return
        if request.length > 0:
            refused = exchange.fits(request.length)
            if refused is not None:
                self._refuse(refused)
                return
            self._body = bytearray(request.length)  # of zero pages: memory is taken as bytes come
        self._state = _State.BODY
        self.deadline = self._loop.time() + self._limits.body_timeout_s
        if request.waits and not self._waiting:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _take_body(self) -> None:
        """Take of a body what came together with its head, or came in chunks."""
        if self._chunked is None:
            size = min(len(self._waiting), len(self._body) - self._filled)
            self._body[self._filled : self._filled + size] = memoryview(self._waiting)[:size]
            del self._waiting[:size]
            self._filled += size
            self._grow(size)
            return
        before = len(self._chunked.body)
        try:
            self._waiting = bytearray(self._chunked.feed(self._waiting))
        except Malformed:
            self._refuse(Answer(status=400))
            return
        self._grow(len(self._chunked.body) - before)

    def _grow(self, size: int) -> None:
        """Tell of more bytes of the body, and ask once it is whole."""
        refused = None if self._exchange is None else self._exchange.arrived(size)
        if refused is not None:
            self._refuse(refused)
        elif self._chunked is not None:
            if self._chunked.done:
                self._body, self._chunked = self._chunked.body, None
                self._ask()
        elif self._filled == len(self._body):
            self._ask()

    # Answering

    def _ask(self) -> None:
        self._state = _State.ANSWERING
        self.deadline = NEVER
        self._begun = False
        self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        self._begun = True
        exchange, body, outcome = self._exchange, self._body, Outcome.FAILED
        self._body = bytearray()
        if exchange is None:
            return
        try:
            answer = await exchange.answer(body)
            outcome = Outcome.CUT
            try:
                outcome = await self._send(answer)
            except OSError:  # the connection is gone
                outcome = Outcome.CUT
        finally:
            self._task = None
            self._end(outcome)
        self._next()

    async def _read_by(self) -> None:
        """Go on once what was written has been read."""
        try:
            with suppress(OSError):
                await self._drain()
        finally:
            self._task = None
        self._next()

    async def _send(self, answer: Answer) -> Outcome:
        """Write the answer as its reader takes it. Raises ``OSError`` where the connection is gone."""
        if self._transport.is_closing():  # whoever asked left just before, and what was charged was signed all the same
            raise ConnectionResetError
        if answer.chunks is None:
            self._write(answer)
            await self._drain()
            return Outcome.ANSWERED
        start, outcome = self._start(answer, None), Outcome.ANSWERED
        try:
            for chunk in answer.chunks:
                self._transport.write(b"%b%x\r\n%b\r\n" % (start, len(chunk), chunk))
                start = b""
                await self._drain()
        except Rejected:
            outcome = Outcome.CUT
        self._transport.write(start + b"0\r\n\r\n")
        await self._drain()
        return outcome

    def _write(self, answer: Answer) -> None:
        start = self._start(answer, len(answer.body))
        if self._request is not None and self._request.head.method == "HEAD":
            self._transport.write(start)
        else:
            self._transport.write(b"".join((start, answer.body)))

    async def _drain(self) -> None:
        """Wait until the kernel has it all. Raises ``OSError`` where the connection is gone."""
        if self._transport.is_closing():
            raise ConnectionResetError
        if self._drained is not None:
            self.deadline = self._loop.time() + self._limits.send_timeout_s
            await self._drained
            self.deadline = NEVER

    def _start(self, answer: Answer, length: int | None) -> bytes:
        """Return the head of an answer; chunks follow where ``length`` is None."""
        lines = [f"HTTP/1.1 {answer.status} {PHRASES.get(answer.status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        lines.append("transfer-encoding: chunked" if length is None else f"content-length: {length}")
        if not self._keeps_alive:
            lines.append("connection: close")
        lines += (self._connections.date, "", "")
        return "\r\n".join(lines).encode("latin-1")

    @property
    def _keeps_alive(self) -> bool:
        return self._request is not None and self._request.keeps_alive and not self._connections.ending

    def _refuse(self, answer: Answer) -> None:
        """Answer in the middle of a request, and end: the rest of it is not taken.

        It is read for a while all the same, for a socket that is closed over unread bytes takes the answer with it.
        """
        self._request = None
        self._waiting.clear()
        self._body = bytearray()
        self._write(answer)
        self._end(Outcome.FAILED)
        self._state = _State.LINGERING
        self.deadline = self._loop.time() + self._limits.body_timeout_s
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _next(self) -> None:
        """Go on with the next request, or end."""
        if self._transport.is_closing():
            return
        if not self._keeps_alive:
            self._transport.close()
            return
        self._state, self._request, self._idle = _State.HEAD, None, True
        self.deadline = self._loop.time() + self._limits.idle_timeout_s
        self._connections.rest(self)
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        if self._waiting:
            self._loop.call_soon(self._read)

    def _end(self, outcome: Outcome) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.end(outcome)


def _retrieved(future: asyncio.Future[None]) -> None:
    """Look at what nobody waits for, so that it is not complained of."""
    if not future.cancelled():
        future.exception()
