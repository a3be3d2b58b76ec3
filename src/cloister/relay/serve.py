"""Running a relay until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from cloister.relay.forward import relay_app
from cloister.relay.link import GatewayLink
from cloister.relay.metrics import RelayMetrics
from cloister.serving.run import run_app
from cloister.telemetry.listener import MetricsListener

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from cloister.relay.limits import Limits
    from cloister.relay.link import GatewayTls
    from cloister.relay.renewal import Renewal
    from cloister.serving.place import Place
    from cloister.telemetry.listener import MetricsPlace

__all__ = ["serve_relay"]


async def serve_relay(
    gateway: str,
    place: Place,
    *,
    limits: Limits,
    tls: ssl.SSLContext | None,
    gateway_tls: GatewayTls,
    stop: asyncio.Event,
    on_listening: Callable[[str], None],
    metrics: MetricsPlace | None = None,
    renewal: Renewal | None = None,
) -> None:
    """Relay to ``gateway`` until ``stop`` is set, over TLS where there is a context. Raises ``Unavailable``.

    ``renewal`` keeps our own certificate fresh. ``metrics`` is where they are shown; without, nothing is counted.
    Raises ``UsageError`` where that place is taken.
    """
    counts = None if metrics is None else RelayMetrics()
    async with contextlib.AsyncExitStack() as stack:
        if metrics is not None and counts is not None:
            await stack.enter_async_context(MetricsListener(metrics, counts))
        if renewal is not None:
            renewing = asyncio.create_task(renewal.until_cancelled(counts))
            stack.callback(renewing.cancel)
        link = await stack.enter_async_context(GatewayLink(gateway_tls, limits))
        await run_app(
            relay_app(gateway, link, limits, counts),
            place,
            bounds=limits.bounds(),
            tls=tls,
            stop=stop,
            on_listening=on_listening,
        )
