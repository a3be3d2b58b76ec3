"""HTTP to a service of this machine: a cloud's metadata address, or a unix socket. No proxy, no redirect, bounded."""

from __future__ import annotations

import http.client
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cloister.errors import Malformed, Rejected, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Fetch", "HostService", "SocketService"]

_TIMEOUT_S = 30.0  # seconds for an answer; quoting services take a second


class Fetch(Protocol):
    """One exchange with a service of this machine. Contract: ``Unavailable``, ``Rejected``, ``Malformed``."""

    def __call__(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes, cap: int) -> bytes:
        """Return the body of a good answer, at most ``cap`` bytes."""
        ...


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(str(self._path))


class HostService:
    """A service at an address that never leaves the machine's host."""

    def __init__(self, host: str, port: int = 80) -> None:
        """Talk to ``host``, plain HTTP."""
        self._host, self._port = host, port

    def __call__(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes, cap: int) -> bytes:
        """Return the body of a good answer."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        status, data = _exchange(connection, self._host, _Request(method, path, headers, body), cap)
        return _good(status, data, f"{self._host}{path}", cap)


class SocketService:
    """A service behind a unix socket."""

    def __init__(self, path: Path) -> None:
        """Talk to the socket at ``path``."""
        self._path = path

    def __call__(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes, cap: int) -> bytes:
        """Return the body of a good answer."""
        request = _Request(method, path, headers, body)
        status, data = _exchange(_UnixConnection(self._path), str(self._path), request, cap)
        return _good(status, data, f"{self._path} {path}", cap)


class _Request(NamedTuple):
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


def _exchange(connection: http.client.HTTPConnection, where: str, asked: _Request, cap: int) -> tuple[int, bytes]:
    """Return status and body of one exchange, a body beyond ``cap`` bytes not to its end."""
    try:
        connection.request(asked.method, asked.path, body=asked.body or None, headers=dict(asked.headers))
        response = connection.getresponse()
        return response.status, _bounded(response, cap)
    except OSError as exc:
        msg = f"{where}: no answer: {(exc.strerror or 'timeout').lower()}"
        raise Unavailable(msg, retry_after_s=1) from exc
    except http.client.HTTPException as exc:
        msg = f"{where}: the answer is no http"
        raise Malformed(msg) from exc
    finally:
        connection.close()


def _bounded(response: http.client.HTTPResponse, cap: int) -> bytes:
    """Return the body, cut soon behind ``cap``. ``read`` would take a chunk of negative size for all there is."""
    data = b""
    while len(data) <= cap and (part := response.read1(cap + 1 - len(data))):
        data += part
    if response.length and len(data) <= cap:
        raise http.client.IncompleteRead(data, response.length)
    return data


def _good(status: int, data: bytes, what: str, cap: int) -> bytes:
    """Return the body of an answer that is good and whole."""
    passing = status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT}
    if passing or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        msg = f"{what}: status {status}"
        raise Unavailable(msg, retry_after_s=10)
    if status != HTTPStatus.OK:
        raise Rejected.because("tee_refused", what, got=f"status {status}", want="200")
    if len(data) > cap:
        msg = f"{what}: more than {cap} bytes"
        raise Malformed(msg)
    return data
