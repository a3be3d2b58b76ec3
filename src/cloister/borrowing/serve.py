"""Running a borrower's page until it is told to stop."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cloister.borrowing.app import borrower_app
from cloister.serving.armour import Armour
from cloister.serving.door import Door
from cloister.serving.run import Bounds, run_app

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from datetime import datetime

    from cloister.borrowing.books import Books
    from cloister.borrowing.host import Host
    from cloister.lending.contract import Contract
    from cloister.serving.place import Place

__all__ = ["serve_borrower"]

_BOUNDS = Bounds(max_connections=64, max_head_bytes=32 * 1024, patience_s=20, send_timeout_s=60)


async def serve_borrower(
    books: Books,
    host: Host,
    place: Place,
    *,
    clock: Callable[[], datetime],
    contract_rows: Callable[[Contract], list[tuple[str, str]]],
    stop: asyncio.Event,
    on_listening: Callable[[str, Door], None],
) -> None:
    """Serve the page until ``stop`` is set. Raises ``Unavailable`` for a place that is not ours.

    ``on_listening`` is told the address, and the door that makes links.
    """
    door = Door(clock=clock, rng=os.urandom, hosts=(place.host,))
    app = borrower_app(books, host, door=door, secure=False, clock=clock, contract_rows=contract_rows)
    await run_app(
        Armour(app, tls=False),
        place,
        bounds=_BOUNDS,
        tls=None,
        stop=stop,
        on_listening=lambda address: on_listening(address, door),
    )
