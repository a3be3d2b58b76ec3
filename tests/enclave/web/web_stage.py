"""A listener on loopback with a small application, and hands that type bytes into it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ParamSpec

import uvloop

from cloister.enclave.config import Limits
from cloister.enclave.web.exchange import Answer, Outcome
from cloister.enclave.web.listener import Listener
from cloister.errors import Rejected

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from cloister.enclave.web.exchange import Body, Exchange, Head

P = ParamSpec("P")
LIMITS = Limits(body_timeout_s=1, send_timeout_s=1, idle_timeout_s=2, max_request_bytes=1 << 20, max_connections=10)


def looped(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async test in a loop of the kind that enclaves run in."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def body() -> None:
            await test(*args, **kwargs)

        uvloop.run(body())

    return run


@dataclass
class Echo:
    """Answers with what it was sent; remembers every head and how its exchange ended."""

    heads: list[Head] = field(default_factory=list)
    ends: list[Outcome] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    chunks: int = 5

    def begin(self, head: Head) -> Exchange | Answer:
        self.heads.append(head)
        return Answer(status=404, body=b"none") if head.path == "/none" else _Echoed(self, head)


class _Echoed:
    def __init__(self, echo: Echo, head: Head) -> None:
        self._echo = echo
        self._head = head
        self._size = 0

    def fits(self, size: int) -> Answer | None:
        return Answer(status=413) if size > LIMITS.max_request_bytes else None

    def arrived(self, size: int) -> Answer | None:
        self._size += size
        return self.fits(self._size)

    def late(self) -> Answer:
        return Answer(status=408)

    async def answer(self, body: Body) -> Answer:
        self._echo.bodies.append(bytes(body))
        if self._head.path == "/held":
            await self._echo.gate.wait()
        if self._head.path == "/chunks":
            return Answer(status=200, chunks=self._pieces(65_536, fail=False))
        if self._head.path == "/cut":
            return Answer(status=200, chunks=self._pieces(10, fail=True))
        if self._head.path == "/long":
            return Answer(status=200, body=bytes(30 << 20))
        return Answer(status=200, headers=(("x-size", str(len(body))),), body=bytes(body))

    def _pieces(self, size: int, *, fail: bool) -> Iterator[bytes]:
        for at in range(self._echo.chunks):
            if fail and at == 2:
                raise Rejected.because("lease_expired", "lease")
            yield b"%d" % (at % 10) * size

    def end(self, outcome: Outcome) -> None:
        self._echo.ends.append(outcome)


@dataclass
class Stage:
    """One listener that runs."""

    echo: Echo
    listener: Listener
    port: int
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self, context: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        self.writers.append(writer)
        return reader, writer

    async def close(self) -> None:
        for writer in self.writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def typed(self, data: bytes) -> bytes:
        """Send ``data`` on a connection of its own and return all that comes until the other side ends it."""
        reader, writer = await self.connect()
        writer.write(data)
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(reader.read(), 10)
        return b""

    async def asked(self, count: int = 1) -> None:
        """Wait until so many requests are being answered."""
        async with asyncio.timeout(10):
            while len(self.echo.bodies) < count:  # noqa: ASYNC110 - the application under test tells nobody
                await asyncio.sleep(0.01)

    async def ended(self, count: int) -> list[Outcome]:
        """Return how exchanges ended, once so many did."""
        async with asyncio.timeout(10):
            while len(self.echo.ends) < count:  # noqa: ASYNC110 - the application under test tells nobody
                await asyncio.sleep(0.01)
        return self.echo.ends


@contextlib.asynccontextmanager
async def stage(
    limits: Limits = LIMITS, *, context: ssl.SSLContext | None = None, pinned: bool = False
) -> AsyncIterator[Stage]:
    """Serve for the length of a block."""
    echo = Echo()
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        listener = Listener(echo, limits, context=context, pinned=pinned)
        await listener.start(listening)
        staged = Stage(echo=echo, listener=listener, port=listening.getsockname()[1])
        try:
            yield staged
        finally:
            await staged.close()
            await listener.stop(0)


def post(path: str, body: bytes, *lines: str, length: int | None = None) -> bytes:
    """Return a request as an honest client writes it."""
    head = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body) if length is None else length}", *lines]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


async def answered(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one whole answer."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).lower()
    status = int(head.split(b" ")[1])
    if b"transfer-encoding: chunked" in head:
        body = b""
        while size := int(await asyncio.wait_for(reader.readuntil(b"\r\n"), 10), 16):
            body += (await asyncio.wait_for(reader.readexactly(size + 2), 10))[:-2]
        await reader.readexactly(2)
        return status, body
    length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
    return status, await asyncio.wait_for(reader.readexactly(length), 10)
