"""``/metrics`` on an address of its own, never beside what strangers may ask (ADR 0049).

Loopback needs no token; anywhere else one is demanded, and it travels in the clear: use a network for it alone, or a
proxy that ends TLS. One request a connection, GET or HEAD, a few connections at once, each for a few seconds.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import h11

from cloister.errors import UsageError
from cloister.private_file import read_private
from cloister.telemetry.exposition import negotiated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from cloister.telemetry.exposition import Shown

__all__ = ["MetricsListener", "MetricsPlace", "parse_metrics_place", "read_metrics_token"]

PATH = "/metrics"
_MAX_HEAD_BYTES = 8192
_MAX_CONNECTIONS = 8
_PATIENCE_S = 5.0  # seconds for one request and its answer
_TOKEN_FLOOR, _TOKEN_CAP = 16, 512  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsPlace:
    """Where metrics are shown, and to whom: None asks nobody who they are."""

    host: str
    port: int
    token: str | None = field(default=None, repr=False)


def read_metrics_token(path: Path) -> str:
    """Return a scraper's token from a file that only its owner can read. Raises ``UsageError``."""
    text = read_private(path, cap=_TOKEN_CAP + 2).decode("ascii", "replace").strip()
    if not _TOKEN_FLOOR <= len(text) <= _TOKEN_CAP or not text.isascii() or not text.isprintable() or " " in text:
        msg = f"{path}: want {_TOKEN_FLOOR} to {_TOKEN_CAP} visible ascii characters"
        raise UsageError(msg)
    return text


def parse_metrics_place(text: str, token: str | None) -> MetricsPlace:
    """Return the place that ``HOST:PORT`` names. Raises ``UsageError``, also beyond loopback without a token."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdigit() and int(port[:6]) <= 0xFFFF):  # noqa: PLR2004
        msg = f"metrics: {text[:80]!r}, want HOST:PORT"
        raise UsageError(msg)
    if token is None and not _is_loopback(host):
        msg = f"metrics: {host} is beyond loopback, and there is no token"
        raise UsageError(msg, hint="name a file with a token for the scraper, or listen on 127.0.0.1")
    return MetricsPlace(host=host, port=int(port), token=token)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class MetricsListener:
    """Shows metrics while its block runs. The socket is bound when this is made: a taken port is said at once."""

    def __init__(
        self, place: MetricsPlace, registry: Shown, measure: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Bind; ``measure`` brings gauges up to date before each answer. Raises ``UsageError`` for a taken address."""
        self._place, self._registry, self._measure = place, registry, measure
        self._open = 0
        self._server: asyncio.Server | None = None
        self._socket = socket.socket(socket.AF_INET6 if ":" in place.host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((place.host, place.port))
        except OSError as exc:
            self._socket.close()
            msg = f"metrics: {place.host} port {place.port}: {exc.strerror or exc}"
            raise UsageError(msg, hint="choose another port, or stop what listens there") from exc

    @property
    def url(self) -> str:
        """Where it is."""
        host = f"[{self._place.host}]" if ":" in self._place.host else self._place.host
        return f"http://{host}:{self._socket.getsockname()[1]}{PATH}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, sock=self._socket, limit=_MAX_HEAD_BYTES)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Listen no more. A second call does nothing."""
        if self._server is not None:
            self._server.close()
        self._socket.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= _MAX_CONNECTIONS:
                async with asyncio.timeout(_PATIENCE_S):
                    writer.write(await self._answered(reader))
                    await writer.drain()
        except (TimeoutError, ConnectionError):
            pass  # whoever is slow or gone gets nothing
        finally:
            self._open -= 1
            writer.close()

    async def _answered(self, reader: asyncio.StreamReader) -> bytes:
        """Return the bytes of the answer to one request."""
        server = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        try:
            request = server.next_event()
            while request is h11.NEED_DATA:
                server.receive_data(await reader.read(_MAX_HEAD_BYTES))
                request = server.next_event()
            if not isinstance(request, h11.Request):
                return b""  # gone before it asked
            status, kind, body = await self._decided(request)
        except h11.RemoteProtocolError:
            server, request = h11.Connection(h11.SERVER), None
            status, kind, body = 400, "text/plain", b"bad request\n"
        headers = [("content-type", kind), ("content-length", str(len(body))), ("cache-control", "no-store")]
        if status == 401:  # noqa: PLR2004 - Unauthorized
            headers.append(("www-authenticate", "Bearer"))
        head = server.send(h11.Response(status_code=status, headers=[*headers, ("connection", "close")])) or b""
        return head if request is not None and request.method == b"HEAD" else head + body

    async def _decided(self, request: h11.Request) -> tuple[int, str, bytes]:
        fields = {name: value.decode("latin-1") for name, value in request.headers}
        if not self._is_admitted(fields.get(b"authorization", "")):
            return 401, "text/plain", b"unauthorized\n"
        if request.target.partition(b"?")[0] != PATH.encode():
            return 404, "text/plain", b"not found\n"
        if request.method not in {b"GET", b"HEAD"}:
            return 405, "text/plain", b"method not allowed\n"
        try:
            if self._measure is not None:
                await self._measure()
        except Exception:  # noqa: BLE001 - the server's edge: what it was is nothing for a scraper
            return 500, "text/plain", b"internal error\n"
        kind, text = negotiated(self._registry, fields.get(b"accept", ""))
        return 200, kind, text.encode("utf-8")

    def _is_admitted(self, authorization: str) -> bool:
        if self._place.token is None:
            return True
        scheme, _, token = authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.encode(), self._place.token.encode())
