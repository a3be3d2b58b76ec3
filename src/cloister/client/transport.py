"""Transports for httpx2: an ordinary HTTP client whose every request is encrypted to a verified enclave.

    client = Client.verify("https://enclave.example", trust)
    http = httpx2.Client(transport=client.transport(), base_url=client.url)

Anything that takes an ``httpx2.Client`` (or, by ``transport_httpx``, an ``httpx.Client``) then talks to the
enclave through any proxy without being read. A response that was cut raises ``TruncatedResponse`` while it is
read. ``response.extensions`` has ``cloister_enclave``, the VerifiedEnclave that answered, and
``cloister_trailers``, a function that returns the trailer fields once the body has been read.

Not done here: proving receipts, which needs the whole body (``Client.infer`` does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2

from cloister.client.delivery import AsyncDelivery, Delivery, inner_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from cloister.client.session import Session
    from cloister.client.wire import AsyncWire, Wire

__all__ = ["AsyncEnclaveTransport", "EnclaveTransport"]


class _Body(httpx2.SyncByteStream):
    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._delivery)

    def close(self) -> None:
        self._delivery.close()


class _AsyncBody(httpx2.AsyncByteStream):
    def __init__(self, delivery: AsyncDelivery) -> None:
        self._delivery = delivery

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._delivery)

    async def aclose(self) -> None:
        await self._delivery.close()


class EnclaveTransport(httpx2.BaseTransport):
    """Sends requests into one verified enclave; made by ``Client.transport``, which owns the connections."""

    def __init__(self, session: Session, wire: Wire) -> None:
        """Use the client's session and connections; closing this transport leaves them open."""
        self._session = session
        self._wire = wire

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the enclave's response. Raises the four errors of Cloister, ``TruncatedResponse`` while reading."""
        request.read()
        delivery = Delivery.of(self._session, self._wire, inner_request(self._session.url, request))
        return httpx2.Response(
            delivery.status,
            headers=list(delivery.headers),
            stream=_Body(delivery),
            extensions=delivery.extensions,
        )


class AsyncEnclaveTransport(httpx2.AsyncBaseTransport):
    """Sends requests into one verified enclave; made by ``AsyncClient.transport``, which owns the connections."""

    def __init__(self, session: Session, wire: AsyncWire) -> None:
        """Use the client's session and connections; closing this transport leaves them open."""
        self._session = session
        self._wire = wire

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the enclave's response. Raises the four errors of Cloister, ``TruncatedResponse`` while reading."""
        await request.aread()
        delivery = await AsyncDelivery.of(self._session, self._wire, inner_request(self._session.url, request))
        return httpx2.Response(
            delivery.status,
            headers=list(delivery.headers),
            stream=_AsyncBody(delivery),
            extensions=delivery.extensions,
        )
