"""One inner response while it is being read, for the transports: head first, then pieces, then proof of the end.

Reading to the end is what proves that the response is whole: the iterator raises ``TruncatedResponse`` where
the final chunk is missing, even after everything that looked like content.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloister.channel.bhttp import BinaryRequest
from cloister.channel.bhttp_reader import Data, ResponseHead
from cloister.client.exchange import TruncatedResponse
from cloister.client.plan import Close, Read, drive, drive_async
from cloister.client.session import StreamCut
from cloister.errors import Malformed, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    import httpx
    import httpx2

    from cloister.channel.fields import FieldLines
    from cloister.client.direct import DirectExchange
    from cloister.client.exchange import Exchange
    from cloister.client.plan import Plan
    from cloister.client.session import Opened, Session
    from cloister.client.trust import VerifiedEnclave
    from cloister.client.wire import AsyncWire, Wire

__all__ = ["AsyncDelivery", "Delivery", "inner_request"]

_OUTER_ONLY = frozenset(
    {
        "accept-encoding",  # compression inside encryption leaks what it compresses (CRIME); never offered
        "connection",
        "date",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
    }
)


def inner_request(origin: str, request: httpx2.Request | httpx.Request) -> BinaryRequest:
    """Return what an HTTP library's request is inside the encryption; its body has been read.

    ``origin`` is the enclave's; a request for anybody else is refused, or a redirect would carry a
    consumer's data to a place it did not verify. Raises ``UsageError``.
    """
    scheme, _, authority = origin.partition("://")
    base, slash, prefix = authority.partition("/")
    netloc = f"{request.url.scheme}://{request.url.netloc.decode('ascii')}"
    if netloc.lower() != f"{scheme}://{base}".lower():
        msg = f"transport: verified for {scheme}://{base}, asked for {netloc[:200]}"
        raise UsageError(msg)
    target = request.url.raw_path.decode("ascii")
    return BinaryRequest(
        method=request.method,
        scheme="https",
        authority=base,
        path=target.removeprefix(slash + prefix) if prefix else target,
        headers=tuple(
            (name.lower(), value.strip(" \t"))
            for name, value in request.headers.multi_items()
            if name.lower() not in _OUTER_ONLY
        ),
        body=request.content,
    )


class _Pieces:
    """What both kinds of delivery share: a response, and what of it has come."""

    def __init__(self, exchange: Exchange | DirectExchange, head: Any) -> None:
        self._exchange = exchange
        self._outer = head
        self._early: list[bytes] = []
        self.head: ResponseHead | None = None
        self.trailers: FieldLines = ()

    @property
    def enclave(self) -> VerifiedEnclave:
        """Who answers."""
        return self._exchange.enclave

    @property
    def status(self) -> int:
        """The inner status."""
        return self._known().status

    @property
    def headers(self) -> FieldLines:
        """The inner header fields."""
        return self._known().headers

    @property
    def extensions(self) -> dict[str, VerifiedEnclave | Callable[[], FieldLines]]:
        """What the HTTP libraries' responses have of ours: who answered, and the trailers once all has been read."""
        return {"cloister_enclave": self.enclave, "cloister_trailers": lambda: self.trailers}

    def _known(self) -> ResponseHead:
        if self.head is None:
            msg = "binary response: no head"
            raise Malformed(msg)
        return self.head

    def _start(self) -> Plan[None]:
        """Read until the head is there. What came with it waits for the iterator."""
        try:
            while self.head is None:
                data = yield Read(self._outer)
                if data is None:
                    self._early += self._finish()
                    break
                self._early += self._take(data)
            self._known()
        except BaseException as exc:
            yield Close(self._outer)
            if isinstance(exc, StreamCut):
                raise TruncatedResponse from exc
            raise

    def _take(self, data: bytes) -> list[bytes]:
        return self._sort(self._exchange.feed(data))

    def _finish(self) -> list[bytes]:
        pieces, end = self._exchange.end()
        found = self._sort(pieces)
        self.trailers = end.trailers
        return found

    def _sort(self, pieces: list[ResponseHead | Data]) -> list[bytes]:
        found = []
        for piece in pieces:
            if isinstance(piece, ResponseHead):
                self.head = piece
            else:
                found.append(piece.data)
        return found


class Delivery(_Pieces):
    """A response read by blocking. Iterate to the end, then ``trailers`` are there; ``close`` always."""

    def __init__(self, opened: Opened, wire: Wire) -> None:
        """Read until the head is there. Raises as ``Exchange.feed``."""
        super().__init__(*opened)
        self._wire = wire
        drive(self._start(), wire.take)

    @classmethod
    def of(cls, session: Session, wire: Wire, request: BinaryRequest) -> Delivery:
        """Send ``request`` and return its response. Raises as ``Session.open``."""
        return cls(drive(session.open(request), wire.take), wire)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body. Raises ``TruncatedResponse`` at a missing end."""
        yield from self._early
        self._early = []
        try:
            while (data := self._wire.take(Read(self._outer))) is not None:
                yield from self._take(data)
        except StreamCut as exc:
            raise TruncatedResponse from exc
        if not self._exchange.ended:
            yield from self._finish()

    def close(self) -> None:
        """Let the connection go."""
        self._wire.take(Close(self._outer))


class AsyncDelivery(_Pieces):
    """A response read by awaiting; made by ``of``."""

    def __init__(self, opened: Opened, wire: AsyncWire) -> None:
        """Take an open exchange; the head is not there yet."""
        super().__init__(*opened)
        self._wire = wire

    @classmethod
    async def of(cls, session: Session, wire: AsyncWire, request: BinaryRequest) -> AsyncDelivery:
        """Send ``request`` and return its response once the head is there. Raises as ``Session.open``."""
        delivery = cls(await drive_async(session.open(request), wire.take), wire)
        await drive_async(delivery._start(), wire.take)
        return delivery

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body. Raises ``TruncatedResponse`` at a missing end."""
        for piece in self._early:
            yield piece
        self._early = []
        try:
            while (data := await self._wire.take(Read(self._outer))) is not None:
                for piece in self._take(data):
                    yield piece
        except StreamCut as exc:
            raise TruncatedResponse from exc
        if not self._exchange.ended:
            for piece in self._finish():
                yield piece

    async def close(self) -> None:
        """Let the connection go."""
        await self._wire.take(Close(self._outer))
