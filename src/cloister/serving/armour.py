"""Security headers on every answer, whoever made it: nothing is kept, framed, sniffed or run in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Armour"]

_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_HSTS = (b"strict-transport-security", b"max-age=31536000")


class Armour:
    """Adds the headers that an answer does not bring itself: a page has a policy of its own, keys may be cached."""

    def __init__(self, app: ASGIApp, *, tls: bool) -> None:
        """Wrap ``app``; over TLS, browsers are told to stay there."""
        self._app = app
        self._headers = [*_HEADERS, *([_HSTS] if tls else [])]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on."""

        async def armoured(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", []))
                names = {bytes(name).lower() for name, _ in given}
                message["headers"] = [*given, *(item for item in self._headers if item[0] not in names)]
            await send(message)

        await self._app(scope, receive, armoured)
