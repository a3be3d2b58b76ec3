"""Request bodies: bounded each, bounded over all that are on their way, and bounded in time.

A thousand strangers who each send almost all of a body and then nothing would hold the memory of a thousand bodies
(T82). Not done here: what is in them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cloister.errors import Rejected

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["MAX_WAITING_BYTES", "SMALL_BYTES", "Bodies", "demand_media"]

MAX_WAITING_BYTES = 64 << 20  # bytes of bodies that have not fully arrived, over all requests
SMALL_BYTES = 64 << 10  # what an enclave sends at a renewal gets through, whatever strangers hold


class Bodies:
    """Reads the bodies of one server, on its event loop."""

    def __init__(self, *, within_s: int, cap: int, waiting_bytes: int = MAX_WAITING_BYTES) -> None:
        """Nothing is on its way; each body has ``within_s`` seconds and ``cap`` bytes.

        Those that are not whole yet have ``waiting_bytes`` in all.
        """
        self._within_s = within_s
        self._cap = cap
        self._most_waiting_bytes = waiting_bytes
        self._waiting_bytes = 0

    async def read(self, request: Request) -> bytes:
        """Return the body, refused before it is read where its length says so, else while it grows.

        Raises ``Rejected`` (``payload_too_large``, ``request_timeout``, ``too_many_requests``).
        """
        declared = request.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared[:16]) > self._cap:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._within_s):
                return await self._whole(request)
        except TimeoutError as exc:
            raise Rejected.because("request_timeout", "request body", want=f"within {self._within_s} s") from exc

    async def _whole(self, request: Request) -> bytes:
        data = bytearray()
        try:
            async for chunk in request.stream():
                data += chunk
                self._waiting_bytes += len(chunk)
                if len(data) > self._cap:
                    raise self._too_large()
                if len(data) > SMALL_BYTES and self._waiting_bytes > self._most_waiting_bytes:
                    most = f"{self._most_waiting_bytes} bytes"
                    raise Rejected.because("too_many_requests", "request bodies", want=most)
            return bytes(data)
        finally:
            self._waiting_bytes -= len(data)

    def _too_large(self) -> Rejected:
        return Rejected.because("payload_too_large", "request body", want=f"at most {self._cap} bytes")


def demand_media(request: Request, want: str) -> None:
    """Refuse a body of another media type (``media_type_unsupported``)."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != want:
        raise Rejected.because("media_type_unsupported", "content-type", got=media[:80], want=want)
