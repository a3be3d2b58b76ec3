"""Telling an open page that something changed: server-sent events without content (WHATWG HTML section 9.2).

An event says how long the log is, which everybody who looks at a custodian may know, and the page fetches itself anew
as whoever is signed in. So nothing has to be decided here about who may see what.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import Response

from cloister.custodian.dashboard.gate import guarded, presented, signed_in
from cloister.custodian.events import EVENT_STREAM, EventStream
from cloister.custodian.logs import LOG, Event
from cloister.custodian.threads import run_in_threadpool
from cloister.errors import CloisterError, Rejected
from cloister.pages import PAGE_HEADERS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request

    from cloister.custodian.dashboard.desk import Desk
    from cloister.custodian.dashboard.gate import Answer

__all__ = ["live"]

_LOOK_EVERY_S = 0.25  # seconds between two looks at the log's size, a number in memory
_AT_MOST_EVERY_S = 1.0  # seconds between two events: a page that fetches itself more often shows nothing more
_PROVE_EVERY = 40  # looks without news after which the session is looked at again, and a comment sent


def live(desk: Desk) -> Answer:
    """Return what answers with the stream. 204 for who is not signed in: a browser does not ask again then."""

    async def answer(request: Request) -> Response:
        try:
            visit = await signed_in(desk, request)
            if visit is None:
                return Response(status_code=204, headers=PAGE_HEADERS)
            desk.limits.streams.enter()
        except CloisterError:
            return Response(status_code=204, headers=PAGE_HEADERS)
        shown = presented(request, request.cookies[desk.cookie(request)])
        response = EventStream(
            _changes(desk, lambda: desk.service.authenticate(shown, again=True)),
            media_type=EVENT_STREAM,
            headers=PAGE_HEADERS,
        )
        response.streams = desk.limits.streams
        return response

    return guarded("live", answer)


async def _changes(desk: Desk, demand: Callable[[], object]) -> AsyncIterator[bytes]:
    """Yield an event for what changed, until the custodian stops, the reader goes, or is signed in no more."""
    context, streams = desk.service.context, desk.limits.streams
    seen, quiet = context.size, 0
    yield b"retry: 2000\n\n"
    while not streams.stopping:
        await asyncio.sleep(_LOOK_EVERY_S)
        quiet += 1
        if context.size == seen and quiet % _PROVE_EVERY:
            continue
        try:
            await run_in_threadpool(demand)
        except Rejected:
            yield b"event: end\ndata: \n\n"
            return
        except CloisterError:  # we could not look: the stream ends, and its reader asks for another
            return
        except Exception as error:  # noqa: BLE001 - the server's edge, as ``guarded`` is before the stream begins
            LOG.write(Event.INTERNAL_ERROR, route="live", error=type(error).__name__)
            return
        if context.size == seen:
            yield b": still here\n\n"
            continue
        seen = context.size
        yield b"event: change\ndata: %d\n\n" % seen
        await asyncio.sleep(_AT_MOST_EVERY_S - _LOOK_EVERY_S)
