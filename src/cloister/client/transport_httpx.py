"""The transports of ``transport``, for httpx (an optional dependency: ``pip install cloister[httpx]``).

Only the types of requests and responses differ: the outer connections are the client's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from cloister.client.delivery import AsyncDelivery, Delivery, inner_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from cloister.client.session import Session
    from cloister.client.wire import AsyncWire, Wire

__all__ = ["AsyncEnclaveTransport", "EnclaveTransport"]


class _Body(httpx.SyncByteStream):
    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._delivery)

    def close(self) -> None:
        self._delivery.close()


class _AsyncBody(httpx.AsyncByteStream):
    def __init__(self, delivery: AsyncDelivery) -> None:
        self._delivery = delivery

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._delivery)

    async def aclose(self) -> None:
        await self._delivery.close()


class EnclaveTransport(httpx.BaseTransport):
    """Sends requests into one verified enclave; made by ``Client.transport``, which owns the connections."""

    def __init__(self, session: Session, wire: Wire) -> None:
        """Use the client's session and connections; closing this transport leaves them open."""
        self._session = session
        self._wire = wire

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the enclave's response. Raises the four errors of Cloister, ``TruncatedResponse`` while reading."""
        request.read()
        delivery = Delivery.of(self._session, self._wire, inner_request(self._session.url, request))
        return httpx.Response(
            delivery.status,
            headers=list(delivery.headers),
            stream=_Body(delivery),
            extensions=delivery.extensions,
        )


class AsyncEnclaveTransport(httpx.AsyncBaseTransport):
    """Sends requests into one verified enclave; made by ``AsyncClient.transport``, which owns the connections."""

    def __init__(self, session: Session, wire: AsyncWire) -> None:
        """Use the client's session and connections; closing this transport leaves them open."""
        self._session = session
        self._wire = wire

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the enclave's response. Raises the four errors of Cloister, ``TruncatedResponse`` while reading."""
        await request.aread()
        delivery = await AsyncDelivery.of(self._session, self._wire, inner_request(self._session.url, request))
        return httpx.Response(
            delivery.status,
            headers=list(delivery.headers),
            stream=_AsyncBody(delivery),
            extensions=delivery.extensions,
        )
