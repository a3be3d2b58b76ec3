"""One HTTP/1.1 connection (RFC 9112), each exchange bounded in time whatever the server does.

Heads, of 64 KiB at most, and chunked bodies are parsed by ``h11``. Where a body has a length, its bytes go from the
socket straight into the reader's memory. No step waits longer than the exchange's deadline allows, so that a head which
drips in byte by byte ends as a silent server does. Faults are ``OSError`` and ``h11.RemoteProtocolError``.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from typing import TYPE_CHECKING, Final

import h11

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Connection", "Incoming"]

_MAX_HEAD_BYTES: Final = 64 * 1024
_RECEIVE_BYTES: Final = 16 * 1024  # bytes through the parser at a time: a head, and little of what follows it


class Incoming:
    """An answer whose head has arrived."""

    def __init__(self, connection: Connection, parser: h11.Connection, head: h11.Response) -> None:
        """Take over from the parser, which holds what came with the head."""
        self.status = head.status_code
        self.headers = [(name.decode("ascii"), value.decode("latin-1").strip()) for name, value in head.headers]
        self._connection = connection
        self._parser = parser
        named = dict(self.headers)
        length = None if "transfer-encoding" in named else named.get("content-length")
        self._left = None if length is None else int(length)  # bytes of body not handed out; the parser proved the form
        self._held = memoryview(b"")
        self._is_direct = False
        self._ended = False
        self._lasts = head.http_version == b"1.1" and "close" not in named.get("connection", "").lower()

    def readinto(self, out: memoryview) -> int:
        """Fill ``out`` with what comes next and return how much that was, 0 only at the end of the body."""
        if not out:
            return 0
        while not self._held and not self._ended and not self._is_direct:
            self._parse()
        if self._is_direct and not self._ended:
            got = self._connection.receive_into(out[: self._left])
        else:
            got = min(len(out), len(self._held))
            out[:got] = self._held[:got]
            self._held = self._held[got:]
        if self._left is not None:
            self._left -= got
            self._ended = self._ended or (self._is_direct and not self._left)
        return got

    def _parse(self) -> None:
        """Let the parser tell what comes next; once it is empty, the rest of a known length is for the reader."""
        event = self._parser.next_event()
        if isinstance(event, h11.Data):
            self._held = memoryview(event.data)
        elif event is not h11.NEED_DATA:
            self._ended = True
        elif self._left:
            self._is_direct = True
        else:
            self._parser.receive_data(self._connection.receive())

    def lasts(self) -> bool:
        """Tell whether the body was read to its end and nothing came behind it, so that another request may follow."""
        if not self._ended and not self._held and self._left == 0:
            self._parse()
        return self._lasts and self._ended and not self._held and self._parser.trailing_data == (b"", False)


class Connection:
    """A socket, with TLS or without, that keeps to a deadline."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, *, silence_s: float, deadline: float) -> None:
        """Connect. Looking up the name is the system's, and not bounded here."""
        self._silence_s = silence_s
        self.deadline = deadline
        self.is_sound = True
        self._socket = socket.create_connection((host, port), timeout=self._wait())
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                self._socket = tls.wrap_socket(self._socket, server_hostname=host)
        except BaseException:
            self._socket.close()
            raise

    def _wait(self) -> float:
        """Return the seconds the next step may take. Raises ``TimeoutError`` at the end."""
        left = min(self._silence_s, self.deadline - time.monotonic())
        if left <= 0:
            raise TimeoutError
        return left

    def exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Incoming:
        """Send a request and return the answer once its head has arrived."""
        parser = h11.Connection(our_role=h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
        head = parser.send(h11.Request(method=method, target=target, headers=list(headers.items()))) or b""
        parts = [head, parser.send(h11.Data(data=body)) or b"" if body else b"", parser.send(h11.EndOfMessage()) or b""]
        try:
            self._send(b"".join(parts) if len(body) < _RECEIVE_BYTES else parts[0])
            if len(body) >= _RECEIVE_BYTES:
                self._send(body)
        except (BrokenPipeError, ConnectionResetError):
            self.is_sound = False  # a server may answer before it has heard all, and hang up
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(self.receive())
            elif isinstance(event, h11.Response):
                return Incoming(self, parser, event)
            elif not isinstance(event, h11.InformationalResponse):
                raise ConnectionAbortedError

    def _send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            self._socket.settimeout(self._wait())
            left = left[self._socket.send(left) :]

    def receive(self) -> bytes:
        """Return some bytes; none where the other side has ended."""
        self._socket.settimeout(self._wait())
        return self._socket.recv(_RECEIVE_BYTES)

    def receive_into(self, out: memoryview) -> int:
        """Fill some of ``out``; return how much. Raises ``ConnectionAbortedError`` where the other side has ended."""
        self._socket.settimeout(self._wait())
        got = self._socket.recv_into(out)
        if not got:
            raise ConnectionAbortedError
        return got

    @property
    def is_quiet(self) -> bool:
        """Tell whether nothing has come since the last answer: not even the connection's end."""
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return False
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        return not waiting.poll(0)

    def close(self) -> None:
        """Close."""
        self._socket.close()
