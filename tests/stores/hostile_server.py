"""A web server over parts in memory that answers range requests well, or fails in the way a test orders.

Raw sockets: what a library would never send is the point. Orders are taken one a request, in turn; when there are none
left the answers are good. Nothing here sleeps: a server that says nothing waits until the client goes away.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

__all__ = ["HostileServer", "Request"]

_RANGE = re.compile(rb"bytes=(\d+)-(\d+)")


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    line: str
    headers: dict[str, str]

    @property
    def name(self) -> str:
        """The path below the server's root."""
        return self.line.split(" ")[1].lstrip("/").split("?")[0]


@dataclass
class HostileServer:
    """Serves ``parts`` below ``/``. Use it in a ``with`` block."""

    parts: Mapping[str, bytes]
    tls: ssl.SSLContext | None = None
    orders: list[str] = field(default_factory=list)
    always: str = ""
    token: str = ""
    dated: bool = False
    watch: Callable[[int], None] = lambda _: None  # gets the number of the request that arrived
    seen: list[Request] = field(default_factory=list)
    connections: int = 0
    tags: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._open: set[socket.socket] = set()
        self._turn = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._turn:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        threads = []
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                break
            self.connections += 1
            threads.append(threading.Thread(target=self._serve, args=(connection,)))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def _serve(self, connection: socket.socket) -> None:
        with self._turn:
            self._open.add(connection)
        try:
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as file:
                while request := self._read(file):
                    if not self._answer(connection, request):
                        break
        except (OSError, ValueError):
            pass
        finally:
            with suppress(OSError):
                connection.close()

    def _read(self, file: object) -> Request | None:
        readline: Callable[[], bytes] = file.readline  # type: ignore[attr-defined]
        line = readline().decode("latin-1").strip()
        if not line:
            return None
        headers = {}
        while header := readline().decode("latin-1").strip():
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        request = Request(line, headers)
        with self._turn:
            self.seen.append(request)
            number = len(self.seen)
        self.watch(number)
        return request

    def _order(self) -> str:
        with self._turn:
            return self.orders.pop(0) if self.orders else self.always

    def _answer(self, out: socket.socket, request: Request) -> bool:
        """Answer; False closes the connection."""
        if request.line.startswith("HEAD "):
            data = self.parts.get(request.name)
            if data is None:
                return _send(out, b"404 Not Found", {}, b"")
            tag = self.tags.get(request.name, '"one"')
            head = {"Content-Length": str(len(data)), "ETag": tag, "Last-Modified": "Sun, 01 Mar 2026 12:00:00 GMT"}
            return _send(out, b"200 OK", head, b"")
        order = self._order()
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return _send(out, b"401 Unauthorized", {}, b"")
        data = self.parts.get(request.name)
        found = _RANGE.fullmatch(request.headers.get("range", "").encode())
        if data is None or found is None:
            return _send(out, b"404 Not Found" if data is None else b"200 OK", {}, data or b"gone")
        first, last = int(found[1]), min(int(found[2]), len(data) - 1)
        tag = self.tags.get(request.name, '"one"')
        if request.headers.get("if-match", tag) != tag:
            return _send(out, b"412 Precondition Failed", {}, b"")
        head = {"Content-Range": f"bytes {first}-{last}/{len(data)}", "ETag": tag}
        if self.dated:
            head["Last-Modified"] = "Sun, 01 Mar 2026 12:00:00 GMT"
        return _ORDERS[order](out, head, data[first : last + 1])


def _send(out: socket.socket, status: bytes, head: Mapping[str, str], body: bytes) -> bool:
    lines = [b"HTTP/1.1 " + status, *(f"{name}: {value}".encode() for name, value in head.items())]
    if "Content-Length" not in head and "Transfer-Encoding" not in head:
        lines.append(f"Content-Length: {len(body)}".encode())
    out.sendall(b"\r\n".join([*lines, b"", b""]) + body)
    return True


def _good(out: socket.socket, head: Mapping[str, str], body: bytes) -> bool:
    return _send(out, b"206 Partial Content", head, body)


def _with(**changes: str) -> Callable[[socket.socket, Mapping[str, str], bytes], bool]:
    """Return an answer with some headers changed, or left out where empty."""
    named = {name.replace("_", "-"): value for name, value in changes.items()}

    def answer(out: socket.socket, head: Mapping[str, str], body: bytes) -> bool:
        return _good(out, {name: value for name, value in ({**head, **named}).items() if value}, body)

    return answer


def _status(status: bytes, **head: str) -> Callable[[socket.socket, Mapping[str, str], bytes], bool]:
    named = {name.replace("_", "-"): value for name, value in head.items()}
    return lambda out, _, body: _send(out, status, named, body)


def _behind(out: socket.socket, head: Mapping[str, str], body: bytes) -> bool:
    """Send what was asked for, and behind it an answer to what was not."""
    more = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-0/1\r\nContent-Length: 1\r\n\r\nx"
    return _good(out, {**head, "Content-Length": str(len(body))}, body + more)


def _closes(out: socket.socket, head: Mapping[str, str], body: bytes) -> bool:
    _good(out, {**head, "Connection": "close"}, body)
    return False


def _old(out: socket.socket, head: Mapping[str, str], body: bytes) -> bool:
    """Answer as HTTP/1.0 did: the body ends where the connection does."""
    lines = ["HTTP/1.0 206 Partial Content", *(f"{name}: {value}" for name, value in head.items()), "", ""]
    out.sendall("\r\n".join(lines).encode() + body)
    return False


def _half(out: socket.socket, head: Mapping[str, str], body: bytes) -> None:
    _good(out, {**head, "Content-Length": str(len(body))}, body[: len(body) // 2])


def _short(out: socket.socket, head: Mapping[str, str], body: bytes) -> bool:
    _half(out, head, body)
    return False


def _reset(out: socket.socket, head: Mapping[str, str], body: bytes) -> bool:
    _half(out, head, body)
    out.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def _stall(out: socket.socket, head: Mapping[str, str], body: bytes) -> bool:
    _half(out, head, body)
    out.recv(1)  # nothing comes: the client goes away
    return False


def _endless(first: bytes, more: bytes) -> Callable[[socket.socket, Mapping[str, str], bytes], bool]:
    def answer(out: socket.socket, _: Mapping[str, str], __: bytes) -> bool:
        out.sendall(first)
        while True:  # ends by an error of the socket
            out.sendall(more)

    return answer


def _drip(out: socket.socket, head: Mapping[str, str], _: bytes) -> bool:
    """Send a head whose last header never ends, one byte each time the client could have read the one before."""
    out.sendall(b"HTTP/1.1 206 Partial Content\r\n" + f"ETag: {head['ETag']}\r\nX-Drip: ".encode())
    out.settimeout(0.02)
    while True:
        out.sendall(b"a")
        with suppress(TimeoutError):
            if not out.recv(1):
                return False


def _chunks(out: socket.socket, head: Mapping[str, str], body: bytes) -> bool:
    """Send the right body in chunks: no length in front, and that is allowed."""
    chunk = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
    body = chunk + b"0\r\n\r\n"
    return _good(out, {**head, "Transfer-Encoding": "chunked"}, body)


def _more(out: socket.socket, head: Mapping[str, str], body: bytes) -> bool:
    return _chunks(out, head, body + b"x")


def _fewer(out: socket.socket, head: Mapping[str, str], body: bytes) -> bool:
    return _chunks(out, head, body[:-1])


def _endless_size(out: socket.socket, head: Mapping[str, str], body: bytes) -> bool:
    """Begin a body in chunks, and never end the number that says how long the first is."""
    _good(out, {**head, "Transfer-Encoding": "chunked"}, b"")
    return _endless(b"", b"0" * 4096)(out, head, body)


def _multipart(out: socket.socket, head: Mapping[str, str], body: bytes) -> bool:
    text = f"--x\r\nContent-Range: {head['Content-Range']}\r\n\r\n".encode() + body + b"\r\n--x--"
    return _send(out, b"206 Partial Content", {"Content-Type": "multipart/byteranges; boundary=x"}, text)


_ORDERS: dict[str, Callable[[socket.socket, Mapping[str, str], bytes], bool]] = {
    "": _good,
    "chunked": _chunks,
    "behind": _behind,
    "closes": _closes,
    "old": _old,
    # what may pass, and is asked for again
    "short": _short,
    "fewer": _fewer,
    "reset": _reset,
    "stall": _stall,
    "silence": lambda out, _, __: bool(out.recv(1)),
    "hang up": lambda *_: False,
    "garbage": lambda out, _, __: bool(out.sendall(b"\x16\x03\x01 not http at all\r\n\r\n")),
    "endless header": _endless(b"HTTP/1.1 206 Partial Content\r\nX: ", b"a" * 4096),
    "endless headers": _endless(b"HTTP/1.1 206 Partial Content\r\n", b"X: a\r\n" * 1000),
    "endless hints": _endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "endless chunk size": _endless_size,
    "drip": _drip,
    "busy": _status(b"503 Service Unavailable"),
    "busy for ever": _status(b"429 Too Many Requests", Retry_After="9999"),
    # what is refused
    "whole": _status(b"200 OK"),
    "redirect": _status(b"302 Found", Location="http://169.254.169.254/latest"),
    "gone": _status(b"410 Gone"),
    "forbidden": _status(b"403 Forbidden"),
    "no such range": _status(b"416 Range Not Satisfiable", Content_Range="bytes */1"),
    "not modified": _status(b"304 Not Modified"),
    "other range": _with(Content_Range="bytes 1-2/99999"),
    "no range": _with(Content_Range=""),
    "unknown size": _with(Content_Range="bytes 0-0/*"),
    "huge size": _with(Content_Range="bytes 0-0/" + "9" * 40),
    "compressed": _with(Content_Encoding="gzip"),
    "other tag": _with(ETag='"two"'),
    "no tag": _with(ETag=""),
    "more": _more,
    "multipart": _multipart,
}
