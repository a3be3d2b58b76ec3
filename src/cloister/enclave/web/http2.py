"""One HTTP/2 connection (RFC 9113) over ``h2``: many requests at once, each an exchange like any other.

What HTTP/2 adds to attack is bounded here: streams at once, streams that are opened and reset (CVE-2023-44487), frames
that carry nothing, windows that are never opened. Bodies and readers keep the listener's deadlines.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes

from cloister.enclave.web.exchange import Answer, Head, Outcome
from cloister.enclave.web.http1 import MAX_HEAD_BYTES, NEVER
from cloister.enclave.web.http1_head import LENGTH, MAX_HEADERS, TARGET
from cloister.errors import Rejected

if TYPE_CHECKING:
    from cloister.enclave.web.exchange import Application, Exchange
    from cloister.enclave.web.listener import Connections

__all__ = ["Http2Connection"]

_MAX_STREAMS = 100
_WINDOW_BYTES = 1 << 20
_MAX_EMPTY = 1000  # events without a request in between: pings, settings, empty frames
_MAX_RESETS = 200  # more streams reset than answered


class _Stream:
    """One request on a connection."""

    def __init__(self, head: Head, deadline: float) -> None:
        self.head = head
        self.deadline = deadline
        self.exchange: Exchange | None = None
        self.body = bytearray()
        self.task: asyncio.Task[None] | None = None
        self.opened = asyncio.Event()  # set whenever there may be room to send

    def end(self, outcome: Outcome) -> None:
        """End the exchange, once."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.end(outcome)


class Http2Connection(asyncio.Protocol):
    """Speaks for one connection; made by the listener where TLS agreed on ``h2``."""

    def __init__(self, application: Application, connections: Connections) -> None:
        """Answer by ``application``."""
        self._application = application
        self._connections = connections
        self._limits = connections.limits
        self._loop = connections.loop
        self._http = H2Connection(H2Configuration(client_side=False, header_encoding="latin-1"))
        self._streams: dict[int, _Stream] = {}
        self._empty = 0
        self._surplus_resets = 0
        self._placed = False
        self._certificates: tuple[bytes, ...] = ()
        self._writable = asyncio.Event()
        self._writable.set()
        self.deadline = NEVER

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place, and say what holds here."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=1, low=0)  # each chunk waits until the one before is out (E5)
        self._certificates = self._connections.shown(transport)
        self._placed = self._connections.add(self)
        self._http.local_settings.update(
            {
                SettingCodes.MAX_CONCURRENT_STREAMS: _MAX_STREAMS,
                SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD_BYTES,
                SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW_BYTES,
            }
        )
        self._http.initiate_connection()
        self._http.increment_flow_control_window(_WINDOW_BYTES)
        self._flush()
        self._rest(self._limits.body_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back, and stop answering."""
        del exc
        self.deadline = NEVER
        self._connections.remove(self)
        for number in tuple(self._streams):
            self._forget(number)
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Take what was read."""
        try:
            events = self._http.receive_data(data)
            self._empty += len(events)
            for event in events:
                self._take(event)
        except H2Error:
            self._flush()  # the library wrote why
            self._transport.close()
            return
        if self._empty > _MAX_EMPTY or self._surplus_resets > _MAX_RESETS:
            self._http.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            self._flush()
            self._transport.close()
            return
        self._flush()
        self._watch()

    def pause_writing(self) -> None:
        """Let whatever is next wait, and take no more: each request or ping would be answered into memory."""
        self._writable.clear()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Let it go on."""
        self._writable.set()
        self._transport.resume_reading()

    # The listener's side

    def expire(self) -> None:
        """End what has not got on in time."""
        now = self._loop.time()
        late = [number for number, stream in self._streams.items() if stream.deadline <= now]
        for number in late:
            stream = self._streams[number]
            if stream.exchange is not None and stream.task is None:
                self._refuse(number, stream.exchange.late())
            else:  # a reader that does not read
                self._reset(number)
        if not late:
            self.finish()
        self._flush()
        self._watch()

    def finish(self) -> None:
        """End when no stream is left; the library would send nothing more after a GOAWAY, so that comes last."""
        if not self._streams and not self._transport.is_closing():
            self._http.close_connection()
            self._flush()
            self._transport.close()

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()

    # Reading

    def _take(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._begin(event.stream_id, [(str(name), str(value)) for name, value in event.headers])
        elif isinstance(event, DataReceived):
            self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self._grow(event.stream_id, event.data)
        elif isinstance(event, StreamEnded):
            self._ask(event.stream_id)
        elif isinstance(event, StreamReset):
            self._surplus_resets += 1
            self._forget(event.stream_id)
        elif isinstance(event, TrailersReceived):
            self._surplus_resets += 1
            self._reset(event.stream_id)
        elif isinstance(event, WindowUpdated):
            for stream in self._streams.values():
                stream.opened.set()
        elif isinstance(event, ConnectionTerminated):
            self._transport.close()

    def _begin(self, number: int, lines: list[tuple[str, str]]) -> None:
        """Take the head of a request; ``h2`` has proven that it is one (RFC 9113 section 8.3)."""
        self._empty = 0
        pseudo = {name: value for name, value in lines if name.startswith(":")}
        headers = [(name, value) for name, value in lines if not name.startswith(":")]
        if ":authority" in pseudo:
            headers = [("host", pseudo[":authority"]), *(line for line in headers if line[0] != "host")]
        target = pseudo.get(":path", "")
        head = Head(
            method=pseudo.get(":method", ""),
            target=target,
            headers=tuple(headers),
            pinned=self._connections.pinned,
            certificates=self._certificates,
        )
        stream = _Stream(head, self._loop.time() + self._limits.body_timeout_s)
        self._streams[number] = stream
        if not self._placed or self._connections.ending:
            self._refuse(number, Answer(status=503, headers=(("retry-after", "1"),)))
        elif len(headers) > MAX_HEADERS or not TARGET.fullmatch(target) or _length(head) is None:
            self._refuse(number, Answer(status=400))
        else:
            begun = self._application.begin(head)
            if isinstance(begun, Answer):
                self._refuse(number, begun)
                return
            stream.exchange = begun
            refused = begun.fits(_length(head) or 0)
            if refused is not None:
                self._refuse(number, refused)

    def _grow(self, number: int, data: bytes) -> None:
        stream = self._streams.get(number)
        if stream is None or stream.exchange is None or stream.task is not None:
            return  # refused before: what still comes is dropped
        if data:
            self._empty = 0
        refused = stream.exchange.arrived(len(data))
        if refused is None:
            stream.body += data
        else:
            self._refuse(number, refused)

    def _ask(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is not None and stream.exchange is not None and stream.task is None:
            stream.deadline = NEVER
            stream.task = self._loop.create_task(self._run(number, stream, stream.exchange))
            # A task that is cancelled before its first step never runs, not even its end.
            stream.task.add_done_callback(lambda _: stream.end(Outcome.FAILED))

    # Answering

    async def _run(self, number: int, stream: _Stream, exchange: Exchange) -> None:
        outcome = Outcome.FAILED
        try:
            body, stream.body = stream.body, bytearray()
            answer = await exchange.answer(body)
            outcome = Outcome.CUT
            with suppress(OSError, H2Error):
                outcome = await self._send(number, stream, answer)
        finally:
            stream.task = None
            stream.end(outcome)
            self._streams.pop(number, None)
        self._surplus_resets = max(0, self._surplus_resets - 1)
        self._flush()
        if self._connections.ending:
            self.finish()
        self._watch()

    async def _send(self, number: int, stream: _Stream, answer: Answer) -> Outcome:
        """Send an answer as its reader takes it. Raises ``OSError`` and ``H2Error`` where that has gone."""
        empty = answer.chunks is None and (not answer.body or stream.head.method == "HEAD")
        self._http.send_headers(number, self._lines(answer), end_stream=empty)
        if empty:
            return Outcome.ANSWERED
        outcome = Outcome.ANSWERED
        if answer.chunks is None:
            await self._data(number, stream, answer.body)
        else:
            try:
                for chunk in answer.chunks:
                    await self._data(number, stream, chunk)
            except Rejected:
                outcome = Outcome.CUT
        self._http.end_stream(number)
        self._flush()
        return outcome

    async def _data(self, number: int, stream: _Stream, data: bytes | memoryview) -> None:
        left = memoryview(data)
        while left:
            room = min(self._http.local_flow_control_window(number), self._http.max_outbound_frame_size, len(left))
            if room > 0:
                self._http.send_data(number, left[:room])
                left = left[room:]
                self._empty = 0  # windows are opened for this
                self._flush()
            stream.deadline = self._loop.time() + self._limits.send_timeout_s
            self._watch()
            if room <= 0:
                stream.opened.clear()
                await stream.opened.wait()
            await self._writable.wait()
            if self._transport.is_closing():
                raise ConnectionResetError
        stream.deadline = NEVER

    def _lines(self, answer: Answer) -> list[tuple[str, str]]:
        name, _, date = self._connections.date.partition(": ")
        lines = [(":status", str(answer.status)), *answer.headers, (name, date)]
        return lines if answer.chunks is not None else [*lines, ("content-length", str(len(answer.body)))]

    def _refuse(self, number: int, answer: Answer) -> None:
        """Answer in the middle of a request, and take nothing more of it."""
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.end(Outcome.FAILED)
        stream.body = bytearray()
        stream.deadline = NEVER
        stream.task = self._loop.create_task(self._tell(number, stream, answer))

    async def _tell(self, number: int, stream: _Stream, answer: Answer) -> None:
        with suppress(OSError, H2Error):
            await self._send(number, stream, answer)
            if self._http.streams.get(number) is not None and not self._http.streams[number].closed:
                self._http.reset_stream(number, ErrorCodes.NO_ERROR)  # RFC 9113 section 8.1: answered before the end
        self._streams.pop(number, None)
        self._flush()
        self._watch()

    def _reset(self, number: int) -> None:
        with suppress(H2Error):
            self._http.reset_stream(number, ErrorCodes.CANCEL)
        self._forget(number)

    def _forget(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is None:
            return
        if stream.task is not None:
            stream.task.cancel()
        else:
            stream.end(Outcome.FAILED)

    def _flush(self) -> None:
        data = self._http.data_to_send()
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _watch(self) -> None:
        """Bring the deadline up to date: the nearest of the streams', or how long nothing may be asked."""
        if self._streams:
            self._connections.busy(self)
            self.deadline = min(stream.deadline for stream in self._streams.values())
        elif not self._transport.is_closing():
            self._rest(self._limits.idle_timeout_s)

    def _rest(self, seconds: float) -> None:
        self.deadline = self._loop.time() + seconds
        self._connections.rest(self)


def _length(head: Head) -> int | None:
    """Return the length that a head tells, 0 where it tells none; None where it tells two or what is no length."""
    lengths = head.all("content-length")
    if len(lengths) > 1 or not all(LENGTH.fullmatch(length) for length in lengths):
        return None
    return int("".join(lengths) or "0")
