"""Who is connected, for how long, and over which TLS.

One look a quarter of a second at every deadline takes the place of a timer a request. Where all places are taken the
connection that has been idle the longest gives its own up: a thousand clients that ask three times a minute are no
reason to turn the next one away (T82).
"""

from __future__ import annotations

import asyncio
import ssl
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Protocol

from cloister.enclave.web.http1 import Http1Connection
from cloister.enclave.web.http2 import Http2Connection
from cloister.live_context import load_identity

if TYPE_CHECKING:
    import socket

    from cloister.enclave.config import Limits
    from cloister.enclave.web.exchange import Application

__all__ = ["Connections", "Listener", "server_context", "shown_certificates"]

_SWEEP_S = 0.25  # seconds between looks at the deadlines
_BUFFER_BYTES = 256 * 1024
_PROTOCOLS = ["h2", "http/1.1"]
_DER = 2  # what _ssl calls ENCODING_DER


class Connection(Protocol):
    """What the listener does with a connection of either protocol."""

    deadline: float

    def expire(self) -> None:
        """End what has not got on in time."""
        ...

    def finish(self) -> None:
        """End as soon as nothing is being answered."""
        ...

    def abort(self) -> None:
        """End at once."""
        ...


class Connections:
    """The connections of one listener, and what they share."""

    def __init__(self, limits: Limits, *, encrypted: bool, pinned: bool, asks_certificates: bool = False) -> None:
        """Hold at most ``limits.max_connections``. ``pinned`` as in ``Head``."""
        self._asks_certificates = asks_certificates
        self.loop = asyncio.get_running_loop()
        self.limits = limits
        self.encrypted = encrypted
        self.pinned = pinned
        self.ending = False
        self.buffer = memoryview(bytearray(_BUFFER_BYTES))  # what is read goes on at once, so one is enough for all
        self.date = ""
        self._all: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # the longest idle first
        self.tell_time()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._all)

    def add(self, connection: Connection) -> bool:
        """Take a connection; False tells that it has no place and may only be turned away."""
        if len(self._all) >= self.limits.max_connections and self._idle:
            longest = next(iter(self._idle))
            self.remove(longest)
            longest.abort()
        placed = len(self._all) < self.limits.max_connections
        self._all.add(connection)
        return placed

    def remove(self, connection: Connection) -> None:
        """Let a connection go."""
        self._all.discard(connection)
        self._idle.pop(connection, None)

    def shown(self, transport: asyncio.BaseTransport) -> tuple[bytes, ...]:
        """Return the certificates that a client proved in its handshake, its own first (DER)."""
        return shown_certificates(transport.get_extra_info("ssl_object")) if self._asks_certificates else ()

    def rest(self, connection: Connection) -> None:
        """Note that nothing is asked on a connection."""
        self._idle[connection] = None

    def busy(self, connection: Connection) -> None:
        """Note that something is."""
        self._idle.pop(connection, None)

    def tell_time(self) -> None:
        """Write the date that answers carry (RFC 9110 section 6.6.1)."""
        self.date = f"date: {formatdate(usegmt=True)}"

    def sweep(self) -> None:
        """End whatever is past its deadline."""
        now = self.loop.time()
        for connection in [item for item in self._all if item.deadline <= now]:
            connection.expire()

    def finish(self) -> None:
        """Answer what is asked and no more."""
        self.ending = True
        for connection in tuple(self._all):
            connection.finish()

    def abort(self) -> None:
        """End all at once."""
        for connection in tuple(self._all):
            connection.abort()


class Listener:
    """Serves an application on a listening socket, from ``start`` to ``stop``."""

    def __init__(
        self,
        application: Application,
        limits: Limits,
        *,
        context: ssl.SSLContext | None = None,
        pinned: bool = False,
        asks_certificates: bool = False,
    ) -> None:
        """Serve over TLS where there is a ``context``; ``pinned`` where its key is this process' own.

        ``asks_certificates`` says that the context asks clients for them.
        """
        self._application = application
        self._context = context
        self.connections = Connections(
            limits,
            encrypted=context is not None,
            pinned=pinned and context is not None,
            asks_certificates=context is not None and asks_certificates,
        )
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self, listener: socket.socket) -> None:
        """Begin to accept. The socket stays its owner's to close."""
        limits = self.connections.limits
        self._server = await self.connections.loop.create_server(
            self._connect,
            sock=listener,
            ssl=self._context,
            ssl_handshake_timeout=None if self._context is None else limits.body_timeout_s,
            ssl_shutdown_timeout=None if self._context is None else 1,
        )
        self._sweeping = self.connections.loop.create_task(self._sweep())

    async def stop(self, patience_s: float) -> None:
        """Accept nothing more, let answers under way finish for so long at most, then end all."""
        if self._server is not None:
            self._server.close()
        self.connections.finish()
        end = self.connections.loop.time() + patience_s
        while len(self.connections) and self.connections.loop.time() < end:  # noqa: ASYNC110 - bounded, at the end
            await asyncio.sleep(0.01)
        self.connections.abort()
        if self._sweeping is not None:
            self._sweeping.cancel()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            self.connections.tell_time()
            self.connections.sweep()

    def _connect(self) -> asyncio.BaseProtocol:
        if self._context is None:
            return Http1Connection(self._application, self.connections)
        return _Negotiated(self._application, self.connections)


class _Negotiated(asyncio.Protocol):
    """Gives a connection to the protocol that TLS agreed on (RFC 7301), before anything is read."""

    def __init__(self, application: Application, connections: Connections) -> None:
        self._application = application
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = transport.get_extra_info("ssl_object")
        kind = Http2Connection if tls.selected_alpn_protocol() == "h2" else Http1Connection
        protocol = kind(self._application, self._connections)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


def server_context(pem: bytes, *, asks_certificates: bool = False) -> ssl.SSLContext:
    """Return TLS 1.3 and nothing older, without resumption: each connection shows the key that clients pin.

    ``pem`` is the certificate chain and the key behind it. ``asks_certificates``: clients may show one, below the roots
    that the context is given later; without a root none is taken. Raises ``OSError`` (``ssl.SSLError`` is one) for what
    does not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.set_alpn_protocols(_PROTOCOLS)
    load_identity(context, pem)
    if asks_certificates:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a root is what is trusted, signed by itself or not
    return context


def shown_certificates(tls: Any) -> tuple[bytes, ...]:
    """Return the certificates that a client sent and proved, its own first (DER), none where it showed none.

    Python 3.13 says them all (``SSLObject.get_unverified_chain``); before, the same method stands one level below.
    """
    own = tls.getpeercert(binary_form=True)
    if not own:
        return ()
    if hasattr(tls, "get_unverified_chain"):
        return tuple(tls.get_unverified_chain())
    return tuple(item.public_bytes(_DER) for item in tls._sslobj.get_unverified_chain())  # noqa: SLF001
