"""Running a consumer's page until it is told to stop: verified before it listens, verified anew ahead of need."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.asking.app import ask_app
from cloister.asking.asker import Asker
from cloister.asking.questions import Questions
from cloister.serving.armour import Armour
from cloister.serving.door import Door
from cloister.serving.run import Bounds, run_app

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from cloister.asking.limits import Limits
    from cloister.client.proxy.upstream import Upstream
    from cloister.client.way import Way
    from cloister.lending.contract import Contract
    from cloister.serving.place import Place

__all__ = ["Entrance", "serve_ask"]

_BOUNDS = Bounds(max_connections=128, max_head_bytes=32 * 1024, patience_s=20, send_timeout_s=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrance:
    """Where browsers come in. ``site`` is the name of a page that is open to all, None for one person's own.

    ``secure`` tells whether browsers come over TLS, whoever ends it; ``tls`` ends it here.
    """

    place: Place
    site: str | None
    secure: bool
    tls: ssl.SSLContext | None


async def serve_ask(
    upstream: Upstream,
    entrance: Entrance,
    *,
    way: Way,
    contract_rows: Callable[[Contract, tuple[str, ...] | None], list[tuple[str, str]]],
    limits: Limits,
    stop: asyncio.Event,
    on_listening: Callable[[str, Door], None],
) -> None:
    """Serve the page over a verified ``upstream`` until ``stop`` is set. Raises ``Unavailable`` for a place not ours.

    ``on_listening`` is told the address, and the door that makes links.
    """
    site = entrance.site
    hosts = (entrance.place.host,) if site is None else (site,)
    door = Door(clock=upstream.now, rng=os.urandom, hosts=hosts, open_to_all=site is not None)
    asker = Asker(
        upstream, place=site or str(entrance.place), is_open=site is not None, way=way, contract_rows=contract_rows
    )
    questions = Questions(asker.ask, clock=upstream.now, rng=os.urandom, limits=limits)
    app = ask_app(asker, questions, door=door, limits=limits, secure=entrance.secure)
    verifying = asyncio.create_task(upstream.keep_verified())

    def listening(address: str) -> None:
        asker.place = site or address.partition("://")[2]
        on_listening(address, door)

    try:
        await run_app(
            Armour(app, tls=entrance.secure),
            entrance.place,
            bounds=_BOUNDS,
            tls=entrance.tls,
            stop=stop,
            on_listening=listening,
        )
    finally:
        verifying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await verifying
        await questions.close()
