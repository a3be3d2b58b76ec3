"""What a relay passes on, and in which form (RFC 9458 section 6.2).

    POST gateway          body as it comes                  <- status, five header fields, body as it comes
    GET gateway, keyset   nothing but the keyset's nonce    <- the same

Of a request's header pass the media type, without its parameters, how long the body is, and ``Incremental``: the
same values for everybody. Nothing is added: no Forwarded, no Via. A body that breaks off is broken off on the other
side too, so that nobody can take a part for the whole. Nothing is read, kept or logged.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import httpx2
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from cloister.channel.keyset import CHUNKED_REQUEST_TYPE, GATEWAY_PATH, KEYSET_PATH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from cloister.relay.limits import Limits
    from cloister.relay.link import GatewayLink
    from cloister.relay.metrics import RelayMetrics

__all__ = ["relay_app"]

_REQUEST_TYPES = frozenset({CHUNKED_REQUEST_TYPE, "message/ohttp-req"})
_RESPONSE_FIELDS = ("cache-control", "content-length", "content-type", "incremental", "retry-after")
_NONCE = re.compile(r"nonce=[A-Za-z0-9_-]{43}")
_LENGTH = re.compile(r"[0-9]{1,15}")
_Content: TypeAlias = "AsyncIterator[bytes] | None"


def relay_app(gateway: str, link: GatewayLink, limits: Limits, metrics: RelayMetrics | None = None) -> ASGIApp:
    """Return an ASGI application that forwards to the gateway at the origin ``gateway`` and to nothing else."""
    relay = _Relay(gateway, link, limits)
    methods = ["GET", "HEAD", "POST"]
    app = Starlette(
        routes=[
            Route(GATEWAY_PATH, relay.exchange, methods=methods),
            Route(KEYSET_PATH, relay.keyset, methods=methods[:2]),
        ]
    )
    return app if metrics is None else _Counted(app, metrics)


class _Counted:
    """Counts requests, by resource and by how they went."""

    _RESOURCES: ClassVar = {GATEWAY_PATH: "gateway", KEYSET_PATH: "keyset"}

    def __init__(self, app: ASGIApp, metrics: RelayMetrics) -> None:
        self._app, self._metrics, self._running = app, metrics, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        resource, begun = self._RESOURCES.get(scope["path"], "none"), time.perf_counter()

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.add("cloister_relay_requests_total", label=(resource, f"{message['status'] // 100}xx"))
                self._metrics.observe("cloister_relay_seconds", time.perf_counter() - begun, resource)
            await send(message)

        self._run(1)
        try:
            await self._app(scope, receive, counting)
        finally:
            self._run(-1)

    def _run(self, more: int) -> None:
        self._running += more
        self._metrics.set("cloister_relay_running", self._running)


class _TooLarge(Exception):
    """A body is longer than the relay passes on."""


_BUSY = 503
_FAULTS: dict[type[Exception], int] = {  # the first that fits
    _TooLarge: 413,
    TimeoutError: 408,
    ClientDisconnect: 400,  # nobody is left to read it
    httpx2.PoolTimeout: _BUSY,
    httpx2.TimeoutException: 504,
    httpx2.HTTPError: 502,
    ssl.SSLError: 502,  # what a gateway says of our certificate, once our side of the handshake is over
}


class _Relay:
    def __init__(self, gateway: str, link: GatewayLink, limits: Limits) -> None:
        self._gateway = gateway
        self._link = link
        self._limits = limits

    async def exchange(self, request: Request) -> Response:
        """Pass one encapsulated request on, or fetch the key configurations."""
        if request.url.query:
            return _refusal(400)
        if request.method != "POST":
            return await self._fetched(request, GATEWAY_PATH)
        kinds = request.headers.getlist("content-type")
        kind = kinds[0].partition(";")[0].strip().lower() if len(kinds) == 1 else ""
        if kind not in _REQUEST_TYPES or "content-encoding" in request.headers:
            return _refusal(415)
        headers = {"content-type": kind}
        length = request.headers.get("content-length")
        if length is not None:
            # RFC 9112 section 6.3: two ways to tell a length are what smuggling looks like.
            if "transfer-encoding" in request.headers or not _LENGTH.fullmatch(length):
                return _refusal(400)
            if int(length) > self._limits.max_request_bytes:
                return _refusal(413)
            headers["content-length"] = length
        if request.headers.getlist("incremental") == ["?1"]:
            headers["incremental"] = "?1"
        return await self._answered("POST", GATEWAY_PATH, headers=headers, content=self._body(request))

    async def keyset(self, request: Request) -> Response:
        """Fetch attested keys: proven by their evidence, so whoever brings them need not be trusted."""
        query = request.url.query
        if query and not _NONCE.fullmatch(query):
            return _refusal(400)
        return await self._fetched(request, KEYSET_PATH + ("?" + query if query else ""))

    async def _fetched(self, request: Request, target: str) -> Response:
        return await self._answered(request.method, target)

    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the body as it comes. Raises ``_TooLarge``, ``TimeoutError`` and ``ClientDisconnect``."""
        end = asyncio.get_running_loop().time() + self._limits.body_timeout_s
        size, parts = 0, request.stream()
        while True:
            async with asyncio.timeout_at(end):
                part = await anext(parts, None)
            if part is None:
                return
            size += len(part)
            if size > self._limits.max_request_bytes:
                raise _TooLarge
            if part:
                yield part

    async def _answered(
        self, method: str, target: str, *, headers: dict[str, str] | None = None, content: _Content = None
    ) -> Response:
        client = self._link.client()
        request = client.build_request(method, self._gateway + target, headers=headers, content=content)
        try:
            response = await client.send(request, stream=True)
        except tuple(_FAULTS) as exc:
            status = next(status for kind, status in _FAULTS.items() if isinstance(exc, kind))
            return _refusal(status, {"retry-after": "1"} if status == _BUSY else None)
        return _Answer(response, self._limits)


class _Answer(StreamingResponse):
    """The gateway's answer, piece by piece."""

    def __init__(self, response: httpx2.Response, limits: Limits) -> None:
        headers = {name: response.headers[name] for name in _RESPONSE_FIELDS if name in response.headers}
        super().__init__(self._parts(), status_code=response.status_code, headers=headers)
        self._response = response
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. Raises where it breaks off: the server then ends the connection without an end of the body."""
        try:
            async with asyncio.timeout(self._limits.exchange_timeout_s):
                await super().__call__(scope, receive, send)
        finally:
            await self._response.aclose()

    async def stream_response(self, send: Send) -> None:
        """Send each piece at once, and give its reader so long to take it."""

        async def in_time(message: dict[str, object]) -> None:
            async with asyncio.timeout(self._limits.send_timeout_s):
                await send(message)

        await super().stream_response(in_time)  # type: ignore[arg-type]  # messages are dictionaries of this kind

    async def _parts(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self._response.aiter_raw():
            size += len(part)
            if size > self._limits.max_response_bytes:
                raise _TooLarge
            yield part


def _refusal(status: int, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return what the relay itself says: a status, and nothing that was asked."""
    document = {"status": status, "type": "about:blank"}
    return JSONResponse(document, status_code=status, headers=headers, media_type="application/problem+json")
