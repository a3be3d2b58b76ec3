"""Request bodies: bounded each, bounded over all that are on their way, and bounded in time.

A thousand strangers who each send almost all of a body and then nothing would hold the memory of a thousand bodies
(T82). Not done here: what is in them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cloister.custodian.calls import JSON_TYPE, STATEMENT_TYPE, Body
from cloister.custodian.config import MAX_BODY_BYTES
from cloister.errors import Malformed, Rejected

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["MAX_WAITING_BYTES", "SMALL_BYTES", "Bodies"]

MAX_WAITING_BYTES = 64 << 20  # bytes of bodies that have not fully arrived, over all requests
SMALL_BYTES = 64 << 10  # what an enclave sends at a renewal gets through, whatever strangers hold
_MEDIA = {Body.JSON: JSON_TYPE, Body.STATEMENT: STATEMENT_TYPE, Body.TEXT: "text/plain"}


class Bodies:
    """Reads the bodies of one server, on its event loop."""

    def __init__(self, *, within_s: int) -> None:
        """Nothing is on its way; each body has ``within_s`` seconds."""
        self._within_s = within_s
        self._waiting_bytes = 0

    async def read(self, request: Request, body: Body) -> bytes:
        """Return the body, refused before it is read where its length says so, else while it grows.

        Raises ``Malformed``, ``Rejected`` (``payload_too_large``, ``request_timeout``, ``too_many_requests``,
        ``media_type_unsupported``).
        """
        declared = request.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared[:16]) > MAX_BODY_BYTES:
            raise _too_large()
        try:
            async with asyncio.timeout(self._within_s):
                data = await self._whole(request)
        except TimeoutError as exc:
            raise Rejected.because("request_timeout", "request body", want=f"within {self._within_s} s") from exc
        if body is Body.NONE:
            if data:
                msg = "request body: this route takes none"
                raise Malformed(msg)
            return b""
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if data and media != _MEDIA[body]:
            raise Rejected.because("media_type_unsupported", "content-type", got=media[:80], want=_MEDIA[body])
        return data

    async def _whole(self, request: Request) -> bytes:
        data = bytearray()
        try:
            async for chunk in request.stream():
                data += chunk
                self._waiting_bytes += len(chunk)
                if len(data) > MAX_BODY_BYTES:
                    raise _too_large()
                if len(data) > SMALL_BYTES and self._waiting_bytes > MAX_WAITING_BYTES:
                    raise Rejected.because("too_many_requests", "request bodies", want=f"{MAX_WAITING_BYTES} bytes")
            return bytes(data)
        finally:
            self._waiting_bytes -= len(data)


def _too_large() -> Rejected:
    return Rejected.because("payload_too_large", "request body", want=f"at most {MAX_BODY_BYTES} bytes")
