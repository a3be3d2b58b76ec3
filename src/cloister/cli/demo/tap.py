"""The borrower's own reverse proxy: ends TLS in front of the enclave and keeps a copy of every byte.

This is what a curious operator would build. The demo searches the copy for the consumers' questions and
answers: Oblivious HTTP inside the TLS is what keeps them out of it.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

__all__ = ["Tap"]

_CHUNK = 64 * 1024  # bytes read at once
_MAX_KEPT = 256 << 20  # bytes of traffic kept; the demo moves a few hundred KiB


class Tap:
    """Listens on a loopback port with TLS and forwards to ``upstream``, recording the clear bytes inside."""

    def __init__(self, *, upstream: tuple[str, int], certificate: Path, key: Path, port: int = 0) -> None:
        """Bind now; forward once entered."""
        self._upstream = upstream
        self._server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._server.minimum_version = ssl.TLSVersion.TLSv1_3
        self._server.load_cert_chain(certificate, key)
        self._listener = socket.create_server(("127.0.0.1", port))
        self._kept = bytearray()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        """The port consumers connect to."""
        return int(self._listener.getsockname()[1])

    def seen(self) -> bytes:
        """Return every byte that went through so far, both ways."""
        with self._lock:
            return bytes(self._kept)

    def __enter__(self) -> Self:
        """Start accepting."""
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        """Stop accepting and let the connections end."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=2)

    def _start(self, target: object, *args: socket.socket) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]  # bound methods below
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._forward, raw)

    def _forward(self, raw: socket.socket) -> None:
        with contextlib.suppress(OSError, ssl.SSLError), raw:
            raw.settimeout(5)
            with (
                self._server.wrap_socket(raw, server_side=True) as outside,
                socket.create_connection(self._upstream, timeout=5) as inside,
            ):
                self._pump(outside, inside)

    def _pump(self, outside: ssl.SSLSocket, inside: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(outside, selectors.EVENT_READ, inside)
            selector.register(inside, selectors.EVENT_READ, outside)
            while not self._closing.is_set():
                for key, _ in selector.select(timeout=0.2):
                    source, sink = key.fileobj, key.data
                    if not self._move(source, sink):  # type: ignore[arg-type]  # both are sockets
                        return

    def _move(self, source: socket.socket, sink: socket.socket) -> bool:
        """Pass on what is there; tell whether the connection goes on."""
        while True:
            data = source.recv(_CHUNK)
            if not data:
                return False
            with self._lock:
                if len(self._kept) < _MAX_KEPT:
                    self._kept += data
            sink.sendall(data)
            # A TLS socket may hold decrypted bytes that no selector reports.
            if not (isinstance(source, ssl.SSLSocket) and source.pending()):
                return True
