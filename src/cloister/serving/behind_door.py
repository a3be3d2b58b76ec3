"""An application behind a door: every fault becomes a page that says what is refused, and none shows a bug.

A bug is written to the journal, its class alone.

Not done here: who may come in (``door``, ``door_guard``), and what a refusal looks like.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from cloister.errors import CloisterError, Rejected
from cloister.serving.door_guard import DoorGuard
from cloister.serving.logs import LOG, ServingEvent

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from cloister.serving.door import Door

__all__ = ["Work", "behind_door"]

Work: TypeAlias = Callable[[Request], Awaitable[Response]]


class Refused(Protocol):
    """Draws the page that says no; without a request where nobody was let in."""

    def __call__(self, error: CloisterError, request: Request | None = None) -> Response:
        """Return the page."""
        ...


_CODES = {404: "not_found", 405: "method_not_allowed"}


def behind_door(
    works: Sequence[tuple[str, str, Work]],
    *,
    assets: ASGIApp,
    door: Door,
    secure: bool,
    refused: Refused,
) -> ASGIApp:
    """Return an application of ``works``, each a method, a path and what answers; ``refused`` draws every refusal."""

    def route(method: str, path: str, work: Work) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                return await work(request)
            except CloisterError as error:
                return refused(error, request)
            except Exception as error:  # noqa: BLE001 - the server's edge: nothing of a bug is shown
                LOG.write(ServingEvent.INTERNAL_ERROR, route=work.__name__, error=type(error).__name__)
                return refused(CloisterError(f"internal error ({type(error).__name__})"), request)

        return Route(path, endpoint, methods=[method])

    async def unrouted(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return refused(Rejected.because(_CODES.get(status, "refused"), "page"), request)

    app = Starlette(
        routes=[*(route(*item) for item in works), Mount("/assets", assets)],
        exception_handlers={HTTPException: unrouted},
    )
    app.router.redirect_slashes = False
    return DoorGuard(app, door=door, secure=secure, refused=refused)
