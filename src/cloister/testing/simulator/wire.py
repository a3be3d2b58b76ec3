"""HTTP without sockets: parties' applications behind names, and transports that carry requests to them.

A server goes on working when its caller has given up, as a real one does; a ``SimulatedCrash`` in it ends it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx2

from cloister.testing.simulator.messages import Answer, Chunk, Request
from cloister.testing.simulator.network import Link, Lost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from starlette.types import ASGIApp, Message

    from cloister.testing.simulator.clock import SimulatedTime

__all__ = ["DOMAIN", "Network", "Server", "SimulatedCrash", "SimulatedTransport"]

DOMAIN = ".sim"
_PATIENCE_S = 60.0  # seconds a caller waits that sets no timeout of its own


class SimulatedCrash(BaseException):
    """The process ends here. No ``except Exception`` of the product may catch it."""


class Server:
    """One party's application at its address. ``crash_before_answer`` lets that many answers be, then ends it."""

    def __init__(self, app: ASGIApp, *, on_crash: Callable[[], None] | None = None) -> None:
        """Serve ``app``; ``on_crash`` is told when the process ended in the middle of a request."""
        self._app = app
        self._on_crash = on_crash
        self._running: set[asyncio.Task[Answer]] = set()
        self.crash_before_answer: int | None = None

    def start(self, request: Request, link: Link, time: SimulatedTime) -> asyncio.Task[Answer]:
        """Start to answer ``request``; the task raises ``SimulatedCrash`` where the process ends first."""
        task = asyncio.get_running_loop().create_task(self._serve(request, link, time))
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def kill(self) -> None:
        """End the process: whatever it works on gets no answer."""
        for task in self._running:
            task.cancel()

    def _done(self, task: asyncio.Task[Answer]) -> None:
        self._running.discard(task)
        if not task.cancelled() and isinstance(task.exception(), SimulatedCrash) and self._on_crash is not None:
            self._on_crash()

    async def _serve(self, request: Request, link: Link, time: SimulatedTime) -> Answer:
        answer = await _call(self._app, request, link, time)
        if self.crash_before_answer is not None:
            self.crash_before_answer -= 1
            if self.crash_before_answer < 0:
                self.crash_before_answer = None
                raise SimulatedCrash
        return answer


class Network:
    """Every address and every link there is."""

    def __init__(self, time: SimulatedTime) -> None:
        """Start with nobody."""
        self._time = time
        self._servers: dict[str, Server] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._travelling: set[asyncio.Task[Answer]] = set()

    @property
    def links(self) -> tuple[Link, ...]:
        """Every link on which something travelled or was asked for."""
        return tuple(self._links.values())

    def link(self, source: str, target: str) -> Link:
        """Return the link on which ``source`` asks ``target``."""
        return self._links.setdefault((source, target), Link(source, target))

    def register(self, name: str, server: Server) -> None:
        """Put a server at the address ``https://NAME.sim``; another one there is gone."""
        self._servers[name] = server

    def forget(self, name: str) -> None:
        """Take a server away: connections to it are refused."""
        server = self._servers.pop(name, None)
        if server is not None:
            server.kill()

    def redirect(self, name: str, other: str) -> None:
        """Let whoever asks for ``name`` get to the server of ``other``, as the host of ``name`` can (T4)."""
        self._servers[name] = self._servers[other]

    def transport(self, source: str) -> SimulatedTransport:
        """Return the transport that ``source`` sends its requests with."""
        return SimulatedTransport(self, source, self._time)

    def seen(self) -> bytes:
        """Return every byte that travelled anywhere."""
        return b"\n".join(link.seen() for link in self._links.values())

    async def exchange(self, request: Request, *, patience_s: float) -> Answer:
        """Carry a request to its server and the answer back. Raises as a connection does (``httpx2``).

        What is on its way goes on when the caller gives up: it may still arrive.
        """
        return await asyncio.shield(self._travel(self._carry(request, patience_s)))

    def _travel(self, work: Coroutine[Any, Any, Answer]) -> asyncio.Task[Answer]:
        task = asyncio.get_running_loop().create_task(work)
        self._travelling.add(task)
        task.add_done_callback(self._arrived)
        return task

    def _arrived(self, task: asyncio.Task[Answer]) -> None:
        self._travelling.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be waiting for it any more

    async def _carry(self, request: Request, patience_s: float) -> Answer:
        link = self.link(request.source, request.target)
        try:
            arrived = await link.requests.carry(request)
            server = self._servers.get(arrived.target)
            if server is None:
                msg = f"{request.target}: connection refused"
                raise httpx2.ConnectError(msg)
            if link.requests.take_double():
                self._travel(self._answer(server, arrived, link))
            return await self._answer(server, arrived, link)
        except Lost:
            await asyncio.sleep(patience_s)
            msg = f"{request.target}: no answer"
            raise httpx2.ReadTimeout(msg) from None
        except SimulatedCrash:
            msg = f"{request.target}: connection closed"
            raise httpx2.RemoteProtocolError(msg) from None

    async def _answer(self, server: Server, request: Request, link: Link) -> Answer:
        serving = server.start(request, link, self._time)
        await asyncio.wait({serving})
        if serving.cancelled():
            msg = f"{request.target}: connection reset"
            raise httpx2.ReadError(msg)
        return await link.answers.carry(serving.result())

    async def deliver(self, request: Request) -> Answer:
        """Send a kept request again, as an eavesdropper can; the answer is his."""
        return await self.exchange(replace(request, at=self._time.now), patience_s=_PATIENCE_S)


class SimulatedTransport(httpx2.AsyncBaseTransport):
    """Carries one party's requests; every ``httpx2.AsyncClient`` takes it."""

    def __init__(self, network: Network, source: str, time: SimulatedTime) -> None:
        """Send as ``source``."""
        self._network = network
        self._source = source
        self._time = time

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        url = request.url
        message = Request(
            source=self._source,
            target=url.host.removesuffix(DOMAIN),
            method=request.method,
            path=url.path,
            query=url.query,
            headers=tuple((name.lower(), value) for name, value in request.headers.raw),
            body=await request.aread(),
            at=self._time.now,
        )
        patience = request.extensions.get("timeout", {}).get("read") or _PATIENCE_S
        answer = await self._network.exchange(message, patience_s=patience)
        link = self._network.link(self._source, message.target)
        return httpx2.Response(answer.status, headers=list(answer.headers), stream=_Parts(answer, link.chunks_cut))


class _Parts(httpx2.AsyncByteStream):
    def __init__(self, answer: Answer, cut: int | None) -> None:
        self._answer = answer
        self._cut = cut

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for at, chunk in enumerate(self._answer.chunks):
            if self._cut is not None and at >= self._cut:
                break
            yield chunk.data
        else:
            if self._answer.whole:
                return
        msg = "connection closed"
        raise httpx2.ReadError(msg)


async def _call(app: ASGIApp, request: Request, link: Link, time: SimulatedTime) -> Answer:
    """Return what an ASGI application answers, each chunk with the time at which it left."""
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "https",
        "path": request.path,
        "raw_path": request.path.encode(),
        "query_string": request.query,
        "root_path": "",
        "headers": list(request.headers),
        "client": (request.source, 1),
        "server": (request.target + DOMAIN, 443),
    }
    sent = False
    status, headers, chunks, whole = 500, (), [], False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": request.body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status, headers, whole
        if message["type"] == "http.response.start":
            status, headers = message["status"], tuple(message.get("headers", ()))
            return
        if message.get("body"):
            chunks.append(Chunk(message["body"], time.now))
            await asyncio.sleep(link.chunk_seconds)
        whole = not message.get("more_body", False)

    await app(scope, receive, send)
    return Answer(request=request, status=status, headers=headers, chunks=tuple(chunks), at=time.now, whole=whole)
