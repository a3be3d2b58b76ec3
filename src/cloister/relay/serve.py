"""Running a relay until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING

import httpx2
import uvicorn

from cloister.listener import impatient
from cloister.relay.forward import relay_app
from cloister.relay.place import Place, open_listener

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from starlette.applications import Starlette

    from cloister.relay.limits import Limits

__all__ = ["serve_relay"]

_CONNECT_TIMEOUT_S = 10
_POOL_TIMEOUT_S = 2
_GRACE_S = 10


class _Server(uvicorn.Server):
    """A server that leaves signals to its caller."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield


async def serve_relay(
    gateway: str,
    place: Place,
    *,
    limits: Limits,
    tls: ssl.SSLContext | None,
    gateway_tls: ssl.SSLContext,
    stop: asyncio.Event,
    on_listening: Callable[[str], None],
) -> None:
    """Relay to ``gateway`` until ``stop`` is set, over TLS where there is a context. Raises ``Unavailable``."""
    for name in ("uvicorn", "uvicorn.error", "httpx2", "httpcore2"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [logging.NullHandler()], False  # their lines name addresses
    async with httpx2.AsyncClient(
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
        headers={"accept-encoding": "identity", "user-agent": "cloister-relay"},
        limits=httpx2.Limits(max_connections=limits.max_exchanges),
        timeout=httpx2.Timeout(limits.gateway_timeout_s, connect=_CONNECT_TIMEOUT_S, pool=_POOL_TIMEOUT_S),
        trust_env=False,
        verify=gateway_tls,
    ) as client:
        with open_listener(place, send_timeout_s=limits.send_timeout_s) as listener:
            server = _Server(_config(relay_app(gateway, client, limits), limits, tls))
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            found = Place(place.host, listener.getsockname()[1])
            on_listening(f"{'http' if tls is None else 'https'}://{found}")
            ended = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait((serving, ended), return_when=asyncio.FIRST_COMPLETED)
            finally:
                server.should_exit = True
                ended.cancel()
                await serving


def _config(app: Starlette, limits: Limits, tls: ssl.SSLContext | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        access_log=False,
        date_header=True,
        h11_max_incomplete_event_size=limits.max_head_bytes,
        http=impatient(limits.patience_s, places=limits.max_connections),
        lifespan="off",
        limit_concurrency=limits.max_connections,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        ssl_context_factory=None if tls is None else lambda *_: tls,
        timeout_graceful_shutdown=_GRACE_S,
        ws="none",
    )
