"""The connections to the gateway, and the settings that new ones are made with.

    files changed, or some minutes old -> another client for new requests; the old one ends with what is on it

So a renewed certificate is shown from the next request on, and a gateway is proven anew again and again though it keeps
connections open. Files that are no use change nothing, and it is said once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Self

import httpx2

from cloister.errors import CloisterError
from cloister.serving.live_context import marks_of
from cloister.serving.logs import LOG, ServingEvent

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    from cloister.relay.limits import Limits

__all__ = ["GatewayLink", "GatewayTls"]

_CONNECT_TIMEOUT_S = 10
_POOL_TIMEOUT_S = 2
_AGE_S = 600  # seconds for which new requests go on connections of the same client


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayTls:
    """What connections to the gateway are held to: ``make`` reads ``files``. Raises ``UsageError``."""

    make: Callable[[], ssl.SSLContext]
    files: tuple[Path, ...] = ()


class GatewayLink:
    """Hands out the client that a request goes through. Use as an async context manager."""

    def __init__(self, tls: GatewayTls, limits: Limits) -> None:
        """Read the files. Raises as ``tls.make``."""
        self._tls, self._limits = tls, limits
        self._seen = marks_of(tls.files)
        self._client = self._made()
        self._until = 0.0
        self._leaving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._until = asyncio.get_running_loop().time() + _AGE_S
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        await self._client.aclose()

    def client(self) -> httpx2.AsyncClient:
        """Return the client for one request, under the settings that are current."""
        now, marks = asyncio.get_running_loop().time(), marks_of(self._tls.files)
        if not self._tls.files or (marks == self._seen and now < self._until):
            return self._client
        changed, self._seen, self._until = marks != self._seen, marks, now + _AGE_S
        try:
            before, self._client = self._client, self._made()
        except (CloisterError, OSError):  # looked at again once they have changed
            LOG.write(ServingEvent.TLS_KEPT, code="unreadable")
            return self._client
        if changed:
            LOG.write(ServingEvent.TLS_CHANGED)
        task = asyncio.create_task(self._leave(before))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return self._client

    async def _leave(self, client: httpx2.AsyncClient) -> None:
        """Close a client once no answer can be on it any more: each has an end."""
        try:
            await asyncio.sleep(self._limits.gateway_timeout_s + self._limits.exchange_timeout_s)
        finally:
            await client.aclose()

    def _made(self) -> httpx2.AsyncClient:
        """Return a client that adds nothing of its own and follows nobody."""
        limits = self._limits
        return httpx2.AsyncClient(
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=False,
            headers={"accept-encoding": "identity", "user-agent": "cloister-relay"},
            limits=httpx2.Limits(max_connections=limits.max_exchanges),
            timeout=httpx2.Timeout(limits.gateway_timeout_s, connect=_CONNECT_TIMEOUT_S, pool=_POOL_TIMEOUT_S),
            trust_env=False,
            verify=self._tls.make(),
        )
