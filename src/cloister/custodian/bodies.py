"""Request bodies of the custodian: read by ``serving.bodies``, and of the media type that the route takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.calls import JSON_TYPE, STATEMENT_TYPE, Body
from cloister.custodian.config import MAX_BODY_BYTES
from cloister.errors import Malformed
from cloister.serving.bodies import Bodies as ServedBodies
from cloister.serving.bodies import demand_media

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["Bodies"]

_MEDIA = {Body.JSON: JSON_TYPE, Body.STATEMENT: STATEMENT_TYPE, Body.TEXT: "text/plain"}


class Bodies:
    """Reads the bodies of one custodian, on its event loop."""

    def __init__(self, *, within_s: int, waiting_bytes: int) -> None:
        """Nothing is on its way; each body has ``within_s`` seconds, those not whole yet ``waiting_bytes`` in all."""
        self._bodies = ServedBodies(within_s=within_s, cap=MAX_BODY_BYTES, waiting_bytes=waiting_bytes)

    async def read(self, request: Request, body: Body) -> bytes:
        """Return the body. Raises as ``serving.bodies`` does; ``Malformed`` for one that nobody asked for."""
        data = await self._bodies.read(request)
        if body is Body.NONE:
            if data:
                msg = "request body: this route takes none"
                raise Malformed(msg)
            return b""
        if data:
            demand_media(request, _MEDIA[body])
        return data

    async def read_form(self, request: Request) -> bytes:
        """Return the body of a form, of whatever media type it says to be."""
        return await self._bodies.read(request)
