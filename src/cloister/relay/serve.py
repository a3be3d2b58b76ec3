"""Running a relay until it is told to stop."""

from __future__ import annotations

import contextlib
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING

import httpx2

from cloister.relay.forward import relay_app
from cloister.relay.metrics import RelayMetrics
from cloister.serving.run import run_app
from cloister.telemetry.listener import MetricsListener

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import Callable

    from cloister.relay.limits import Limits
    from cloister.serving.place import Place
    from cloister.telemetry.listener import MetricsPlace

__all__ = ["serve_relay"]

_CONNECT_TIMEOUT_S = 10
_POOL_TIMEOUT_S = 2


async def serve_relay(
    gateway: str,
    place: Place,
    *,
    limits: Limits,
    tls: ssl.SSLContext | None,
    gateway_tls: ssl.SSLContext,
    stop: asyncio.Event,
    on_listening: Callable[[str], None],
    metrics: MetricsPlace | None = None,
) -> None:
    """Relay to ``gateway`` until ``stop`` is set, over TLS where there is a context. Raises ``Unavailable``.

    ``metrics`` is where they are shown; without, nothing is counted. Raises ``UsageError`` where that place is taken.
    """
    counts = None if metrics is None else RelayMetrics()
    async with contextlib.AsyncExitStack() as stack:
        if metrics is not None and counts is not None:
            await stack.enter_async_context(MetricsListener(metrics, counts))
        client = await stack.enter_async_context(_client(limits, gateway_tls))
        await run_app(
            relay_app(gateway, client, limits, counts),
            place,
            bounds=limits.bounds(),
            tls=tls,
            stop=stop,
            on_listening=on_listening,
        )


def _client(limits: Limits, gateway_tls: ssl.SSLContext) -> httpx2.AsyncClient:
    """Return a client that adds nothing of its own and follows nobody."""
    return httpx2.AsyncClient(
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
        headers={"accept-encoding": "identity", "user-agent": "cloister-relay"},
        limits=httpx2.Limits(max_connections=limits.max_exchanges),
        timeout=httpx2.Timeout(limits.gateway_timeout_s, connect=_CONNECT_TIMEOUT_S, pool=_POOL_TIMEOUT_S),
        trust_env=False,
        verify=gateway_tls,
    )
