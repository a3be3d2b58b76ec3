"""Running an attestation service as a server of its own, until it is told to stop."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cloister.serving.place import parse_place, server_context
from cloister.serving.run import Bounds, run_app
from cloister.telemetry.listener import MetricsListener

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from pathlib import Path

    from cloister.telemetry.listener import MetricsPlace
    from cloister.verifier.home import Opened

__all__ = ["serve_verifier"]

_SERVER = "attestation service"
_MAX_HEAD_BYTES = 32 * 1024
_SEND_TIMEOUT_S = 60


async def serve_verifier(
    opened: Opened,
    home: Path,
    *,
    stop: asyncio.Event,
    on_listening: Callable[[str], None],
    metrics: MetricsPlace | None = None,
) -> None:
    """Serve until ``stop`` is set; ``metrics`` is where they are shown.

    Raises ``UsageError`` for a place that others reach without TLS or that is taken, ``Unavailable``.
    """
    settings = opened.settings
    tls = None
    if settings.tls_certificate:
        tls = server_context(home / settings.tls_certificate, home / settings.tls_key, server=_SERVER)
    place = parse_place(settings.listen, encrypted=tls is not None or settings.behind_proxy, server=_SERVER)
    bounds = Bounds(
        max_connections=settings.connections,
        max_head_bytes=_MAX_HEAD_BYTES,
        patience_s=settings.request_timeout_s,
        send_timeout_s=_SEND_TIMEOUT_S,
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(opened.limits.close)
        if metrics is not None:
            await stack.enter_async_context(MetricsListener(metrics, opened.metrics))
        await run_app(opened.app, place, bounds=bounds, tls=tls, stop=stop, on_listening=on_listening)
