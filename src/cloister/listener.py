"""What the listening sockets of every server share: who is slow, and who is idle, makes room.

uvicorn bounds how long an idle connection is kept, but not how long a first request may take: silence, or a
byte now and then, would hold a place for ever (T82). And it counts a connection that is kept open between two
requests like one with a request on it: a thousand enclaves that ask three times a minute would fill all places and
be told 503 by a server with nothing to do. Here the one that has been idle the longest gives its place up.

A certificate that a client showed goes into the scope of each of its requests, for uvicorn forgets it (the TLS
extension of ASGI, with the client's own certificate first and those that the handshake proved it by behind).

Not done here: bodies, which the applications time.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING, Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

__all__ = ["Server", "impatient"]


_DER = 2  # _ssl.ENCODING_DER


class Server(uvicorn.Server):
    """A server that leaves signals to its caller."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield


class _Impatient(H11Protocol):
    """Drops a connection whose request line and headers are not there in time, and the idlest where all are taken."""

    patience_s: int
    places: int
    idle: dict[_Impatient, None]  # between two requests, the longest idle first
    _late: asyncio.TimerHandle | None = None
    _answered: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the parent has it
        super().connection_made(transport)
        secure = transport.get_extra_info("ssl_object")
        chain = () if secure is None else _chain(secure)
        if chain:
            self.app = _knowing(self.app, chain)
        self._watch()
        if len(self.connections) >= self.places and self.idle:
            next(iter(self.idle)).give_up()

    def data_received(self, data: bytes) -> None:
        self.idle.pop(self, None)
        super().data_received(data)
        self._watch()
        if not self._is_answered():
            self._forgive()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.IDLE:
            self.idle[self] = None
        elif self._is_answered():  # in the middle of its body: the rest is not waited for long
            self._forgive()
            self._answered = self.loop.call_later(self.patience_s, self.transport.close)

    def give_up(self) -> None:
        """End at once. Nobody waits for anything on it: a client asks again on a fresh connection."""
        self.idle.pop(self, None)
        self.connections.discard(self)
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._calm()
        self._forgive()
        self.idle.pop(self, None)
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Count from the first moment, never anew for another byte, until the headers are whole."""
        if self.conn.their_state is not h11.IDLE:
            self._calm()
        elif self._late is None:
            self._late = self.loop.call_later(self.patience_s, self.transport.close)

    def _calm(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _is_answered(self) -> bool:
        """Tell whether a body still comes whose answer is out; a next request's, which has none yet, does not count."""
        return self.conn.their_state is h11.SEND_BODY and self.cycle.response_complete

    def _forgive(self) -> None:
        if self._answered is not None:
            self._answered.cancel()
            self._answered = None


def _chain(secure: Any) -> tuple[str, ...]:
    """Return the certificates from the client's own to the authority that vouches for it, as PEM; none without one.

    Python has had this since 3.10, and under a public name since 3.13.
    """
    leaf = secure.getpeercert(binary_form=True)
    if not leaf:
        return ()
    if hasattr(secure, "get_verified_chain"):
        found = secure.get_verified_chain()
    else:
        found = [item.public_bytes(_DER) for item in secure._sslobj.get_verified_chain()]  # noqa: SLF001 - see above
    return tuple(ssl.DER_cert_to_PEM_cert(der) for der in found) or (ssl.DER_cert_to_PEM_cert(leaf),)


def _knowing(app: Any, chain: tuple[str, ...]) -> Any:
    """Return the application, told in every scope which certificates the connection's client showed."""

    async def told(scope: Any, receive: Any, send: Any) -> None:
        extensions = {**scope.get("extensions", {}), "tls": {"client_cert_chain": chain}}
        await app({**scope, "extensions": extensions}, receive, send)

    return told


def impatient(patience_s: int, *, places: int) -> type[H11Protocol]:
    """Return the protocol for ``uvicorn.Config(http=...)`` that waits ``patience_s`` seconds for a request's head.

    ``places`` is the server's ``limit_concurrency``.
    """
    members = {"patience_s": patience_s, "places": places, "idle": {}}
    return cast("type[H11Protocol]", type("Connection", (_Impatient,), members))
