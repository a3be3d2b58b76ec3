"""Connections to one web server, used again by whoever comes next.

Not done here: HTTP itself and deadlines (``connection``), what an answer has to say (``ranges``), trying again
(``patience``). No proxy is taken from the environment, no redirect followed.
"""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

import h11

from cloister.errors import Unavailable
from cloister.stores.connection import Connection
from cloister.stores.patience import TryAgainError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloister.stores.access import Access
    from cloister.stores.connection import Incoming
    from cloister.stores.patience import Patience
    from cloister.stores.place import ModelUrl

__all__ = ["Answer", "Link", "Traffic"]

_MOST_IDLE = 16  # connections kept for later
_STEP_BYTES = 16 * 1024


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


class Answer:
    """Head of an answer, and its body as it comes."""

    def __init__(self, incoming: Incoming, traffic: Traffic) -> None:
        """Wrap ``incoming``."""
        self.status = incoming.status
        self._incoming = incoming
        self._traffic = traffic

    def header(self, name: str) -> str | None:
        """Return a header's value, None where it is missing; several become one that fits no rule."""
        found = [value for key, value in self._incoming.headers if key == name]
        return ", ".join(found) if found else None

    def readinto(self, out: memoryview) -> int:
        """Fill ``out`` with what comes next of the body; return how much that was, 0 only at its end."""
        got = self._incoming.readinto(out)
        self._traffic.count(body_bytes=got)
        return got

    def whole(self, cap: int) -> bytes:
        """Return the body, which has at most ``cap`` bytes. Raises ``Unavailable`` where it has more."""
        data, step = bytearray(), memoryview(bytearray(_STEP_BYTES))
        while got := self.readinto(step):
            data += step[:got]
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
        self._idle: list[Connection] = []
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
        ours = {"host": self._url.netloc, "user-agent": "cloister", "accept-encoding": "identity"}
        connection = None
        self.traffic.count(requests=1)
        try:
            connection = self._take(deadline)
            incoming = connection.exchange(method, target, {**ours, **headers}, body or b"")
            yield Answer(incoming, self.traffic)
            if connection.is_sound and incoming.lasts():
                self._give(connection)
                connection = None
        except (OSError, h11.RemoteProtocolError) as exc:
            raise TryAgainError(_words(exc, connected=connection is not None)) from exc
        finally:
            if connection is not None:
                connection.close()

    def _take(self, deadline: float) -> Connection:
        """Return an idle connection that still stands, or a new one."""
        with self._turn:
            while self._idle:
                connection = self._idle.pop()
                if connection.is_quiet:
                    connection.deadline = deadline
                    return connection
                connection.close()
        self.traffic.count(connections=1)
        port = self._url.port or (80 if self._tls is None else 443)
        return Connection(self._url.host, port, self._tls, silence_s=self._patience.silence_s, deadline=deadline)

    def _give(self, connection: Connection) -> None:
        with self._turn:
            if not self._closed and len(self._idle) < _MOST_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close what is idle; exchanges under way close theirs when they end."""
        with self._turn:
            self._closed = True
            while self._idle:
                self._idle.pop().close()


def _words(exc: BaseException, *, connected: bool) -> str:
    """Say what failed in words of ours: texts of libraries repeat what the other side sent."""
    if isinstance(exc, ssl.SSLError) and not isinstance(exc, TimeoutError):
        return "tls failed"
    if isinstance(exc, TimeoutError):
        return "silent for too long"
    return "connection broken" if connected else "no connection"
