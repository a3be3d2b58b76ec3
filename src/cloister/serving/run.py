"""Running an application on a socket until somebody says stop: the same bounds for every small server of ours."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn

from cloister.journal import libraries_to
from cloister.listener import Server, impatient
from cloister.serving.logs import LOG
from cloister.serving.place import Place, open_listener

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from starlette.types import ASGIApp

__all__ = ["Bounds", "run_app"]

_GRACE_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a server gives its clients."""

    max_connections: int
    max_head_bytes: int  # bytes of a request's line and header fields
    patience_s: int  # seconds until a head has come
    send_timeout_s: int  # seconds a client may take to read one piece of an answer


async def run_app(
    app: ASGIApp,
    place: Place,
    *,
    bounds: Bounds,
    tls: ssl.SSLContext | None,
    stop: asyncio.Event,
    on_listening: Callable[[str], None],
) -> None:
    """Serve ``app`` until ``stop`` is set, over TLS where there is a context. Raises ``Unavailable``.

    ``on_listening`` is told the address once the port is ours. No access log: who asks for what is nobody's business.
    """
    # Libraries' lines name addresses.
    with libraries_to(LOG), open_listener(place, send_timeout_s=bounds.send_timeout_s) as listener:
        server = Server(_config(app, bounds, tls))
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


def _config(app: ASGIApp, bounds: Bounds, tls: ssl.SSLContext | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        access_log=False,
        date_header=True,
        h11_max_incomplete_event_size=bounds.max_head_bytes,
        http=impatient(bounds.patience_s, places=bounds.max_connections),
        lifespan="off",
        limit_concurrency=bounds.max_connections,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        ssl_context_factory=None if tls is None else lambda *_: tls,
        timeout_graceful_shutdown=_GRACE_S,
        ws="none",
    )
