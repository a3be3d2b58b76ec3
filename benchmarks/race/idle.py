"""A thousand connections that do nothing: what each takes of the server's memory, and whether any is lost.

Each asks once, then all are held open and idle, then each asks again on the same connection.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from race.processor import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from race.server import Server

_ASK = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
_GOOD = b"HTTP/1.1 200 "
_WARM = 100  # connections opened and closed first, so that what the server takes once is not counted
_TIMEOUT_S = 30
_SPARE_FILES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What holding so many connections came to."""

    connections: int
    lost: int
    each_bytes: float


def hold(server: Server, connections: int) -> Held:
    """Open, ask, hold, ask again. Ends the program where this process may not have as many files open."""
    _demand_files(connections)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with _opened(server.url, _WARM, context) as warm:
        for one in warm:
            _ask(one)
    before = resident_bytes(server.pid)
    with _opened(server.url, connections, context) as held:
        first = [_ask(one) for one in held]
        after = resident_bytes(server.pid)
        second = [_ask(one) for one in held]
    lost = connections - sum(one and other for one, other in zip(first, second, strict=True))
    return Held(connections=connections, lost=lost, each_bytes=max(0, after - before) / connections)


def _demand_files(connections: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = connections + _SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < want:
        raise SystemExit(f"idle: {hard} open files at most, want {want} (ulimit -n)")
    if soft < want:
        resource.setrlimit(resource.RLIMIT_NOFILE, (want, hard))


@contextlib.contextmanager
def _opened(url: str, connections: int, context: ssl.SSLContext) -> Iterator[list[socket.socket]]:
    place = urlsplit(url)
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(connections):
            one = socket.create_connection((str(place.hostname), place.port or 0), timeout=_TIMEOUT_S)
            if place.scheme == "https":
                one = context.wrap_socket(one, server_hostname="localhost")
            found.append(stack.enter_context(one))
        yield found


def _ask(one: socket.socket) -> bool:
    """Ask on one connection; tell whether the answer is good."""
    try:
        one.sendall(_ASK)
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = one.recv(4096)
            if not part:
                return False
            answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        while len(body) < length:
            part = one.recv(4096)
            if not part:
                return False
            body += part
    except OSError:
        return False
    return head.startswith(_GOOD)
