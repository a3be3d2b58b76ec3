"""Connections to one web server, used again, each exchange bounded in time whatever the server does.

A read of a socket waits no longer than the exchange's deadline allows, so that a head which drips in byte by byte ends
as a silent server does. Heads are bounded by the parser (100 KiB), bodies by who reads them. Not done here: what an
answer has to say (``ranges``), trying again (``patience``). No proxy is taken from the environment.
"""

from __future__ import annotations

import ssl
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

import httpcore2

from cloister.errors import Unavailable
from cloister.stores.patience import TryAgainError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cloister.stores.access import Access
    from cloister.stores.patience import Patience
    from cloister.stores.place import ModelUrl

__all__ = ["Answer", "Link", "Traffic"]

_FAULTS = (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError, ssl.SSLError)
_MOST_IDLE = 16  # connections kept for later


@dataclass(slots=True)
class Traffic:
    """What went over the wire, counted."""

    requests: int = 0
    body_bytes: int = 0  # bytes of bodies received
    connections: int = 0
    _turn: Lock = field(default_factory=Lock, repr=False)

    def count(self, *, requests: int = 0, body_bytes: int = 0, connections: int = 0) -> None:
        """Add."""
        with self._turn:
            self.requests += requests
            self.body_bytes += body_bytes
            self.connections += connections


class _Watch:
    """The time that the exchange under way has left."""

    def __init__(self, silence_s: float) -> None:
        self.deadline = 0.0
        self._silence_s = silence_s

    def left(self) -> float:
        """Return the seconds the next step may take. Raises ``httpcore2.TimeoutException`` at the end."""
        left = min(self._silence_s, self.deadline - time.monotonic())
        if left <= 0:
            raise httpcore2.ReadTimeout
        return left


class _Stream(httpcore2.NetworkStream):
    """A stream that keeps to the watch."""

    def __init__(self, inner: httpcore2.NetworkStream, watch: _Watch) -> None:
        self._inner = inner
        self._watch = watch

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - the watch says
        return self._inner.read(max_bytes, self._watch.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._inner.write(buffer, self._watch.left())

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore2.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, self._watch.left()), self._watch)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend(httpcore2.SyncBackend):
    """Connects streams that keep to one watch."""

    def __init__(self, watch: _Watch) -> None:
        self._watch = watch

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        stream = super().connect_tcp(host, port, self._watch.left(), local_address, socket_options)
        return _Stream(stream, self._watch)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Connection:
    http: httpcore2.HTTPConnection
    watch: _Watch


class Answer:
    """Head of an answer, and its body as it comes."""

    def __init__(self, response: httpcore2.Response, traffic: Traffic) -> None:
        """Wrap ``response``."""
        self.status = response.status
        self._headers = [(name.lower(), value.decode("latin-1").strip()) for name, value in response.headers]
        self._response = response
        self._traffic = traffic

    def header(self, name: str) -> str | None:
        """Return a header's value, None where it is missing; several become one that fits no rule."""
        found = [value for key, value in self._headers if key == name.encode()]
        return ", ".join(found) if found else None

    def parts(self) -> Iterator[bytes]:
        """Yield the body as it arrives, at most 64 KiB at a time."""
        for part in self._response.iter_stream():
            self._traffic.count(body_bytes=len(part))
            yield part

    def whole(self, cap: int) -> bytes:
        """Return the body, which has at most ``cap`` bytes. Raises ``Unavailable`` where it has more."""
        data = bytearray()
        for part in self.parts():
            data += part
            if len(data) > cap:
                msg = f"an answer of more than {cap} bytes"
                raise Unavailable(msg)
        return bytes(data)


class Link:
    """All connections to the server of one URL. Any thread may use it; each exchange has a connection of its own."""

    def __init__(self, url: ModelUrl, access: Access, patience: Patience) -> None:
        """Connect to nothing yet. Raises ``UsageError`` for an authority that is none."""
        self._url = url
        self._tls = access.tls() if url.scheme == "https" else None
        self._patience = patience
        self._idle: list[_Connection] = []
        self._turn = Lock()
        self._closed = False
        self.traffic = Traffic()

    @contextmanager
    def exchange(
        self, method: str, target: str, headers: Mapping[str, str], *, deadline: float, body: bytes | None = None
    ) -> Iterator[Answer]:
        """Send a request and yield the answer. Raises ``TryAgainError`` where the connection fails, in the block too.

        The connection is used again only where the body was read to its end.
        """
        connection = self._take()
        connection.watch.deadline = deadline
        ours = {"host": self._url.netloc, "user-agent": "cloister", "accept-encoding": "identity"}
        request = httpcore2.Request(
            method,
            httpcore2.URL(scheme=self._url.scheme, host=self._url.host, port=self._url.port, target=target),
            headers=[*ours.items(), *headers.items()],
            content=body,
        )
        try:
            self.traffic.count(requests=1)
            response = connection.http.handle_request(request)
            try:
                yield Answer(response, self.traffic)
            finally:
                response.close()  # a body that was not read to its end takes its connection with it
        except _FAULTS as exc:
            raise TryAgainError(_words(exc)) from exc
        finally:
            self._give(connection)

    def _take(self) -> _Connection:
        """Return an idle connection that still stands, or a new one."""
        with self._turn:
            while self._idle:
                connection = self._idle.pop()
                if connection.http.is_available() and not connection.http.has_expired():
                    return connection
                connection.http.close()
        self.traffic.count(connections=1)
        watch = _Watch(self._patience.silence_s)
        origin = httpcore2.URL(scheme=self._url.scheme, host=self._url.host, port=self._url.port, target="/").origin
        http = httpcore2.HTTPConnection(origin, ssl_context=self._tls, network_backend=_Backend(watch))
        return _Connection(http=http, watch=watch)

    def _give(self, connection: _Connection) -> None:
        with self._turn:
            if connection.http.is_available() and not self._closed and len(self._idle) < _MOST_IDLE:
                self._idle.append(connection)
                return
        with suppress(*_FAULTS):
            connection.http.close()

    def close(self) -> None:
        """Close what is idle; exchanges under way close theirs when they end."""
        with self._turn:
            self._closed = True
            while self._idle:
                self._idle.pop().http.close()


def _words(exc: BaseException) -> str:
    """Say what failed in words of ours: texts of libraries repeat what the other side sent."""
    if isinstance(exc, ssl.SSLError) or isinstance(exc.__cause__, ssl.SSLError):
        return "tls failed"
    if isinstance(exc, httpcore2.TimeoutException):
        return "silent for too long"
    return "no connection" if isinstance(exc, httpcore2.ConnectError) else "connection broken"
