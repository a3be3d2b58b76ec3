"""The application for an ASGI server (ASGI 3.0, HTTP): for sites that have one, and for tests without sockets.

What the server in between does with a connection is its own affair: nothing here is pinned, so tensors in plain HTTP
are refused.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias

from cloister.enclave.web.exchange import Answer, Head, Outcome
from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from cloister.enclave.config import Limits
    from cloister.enclave.web.exchange import Application, Exchange

    Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

__all__ = ["AsgiApplication"]


class AsgiApplication:
    """An ASGI application over one of ours."""

    def __init__(self, application: Application, limits: Limits) -> None:
        """Hold bodies and readers to ``limits``."""
        self._application = application
        self._limits = limits

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        begun = self._application.begin(_head(scope))
        if isinstance(begun, Answer):
            await self._send(begun, send)
            return
        outcome = Outcome.FAILED
        try:
            body = await self._body(begun, receive)
            if body is None:
                return
            if isinstance(body, Answer):
                await self._send(body, send)
                return
            answer = await begun.answer(body)
            outcome = Outcome.CUT
            outcome = await self._send(answer, send)
        except TimeoutError:
            return  # the server closes the connection of a consumer that does not read
        finally:
            begun.end(outcome)

    async def _body(self, exchange: Exchange, receive: Receive) -> bytearray | Answer | None:
        """Return the body, the answer that refuses it, or None where whoever asks has gone."""
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    refused = exchange.arrived(len(message.get("body", b"")))
                    if refused is not None:
                        return refused
                    if not message.get("more_body", False):
                        return body
        except TimeoutError:
            return exchange.late()

    async def _send(self, answer: Answer, send: Send) -> Outcome:
        """Send an answer. Raises ``TimeoutError`` where a chunk is not taken in time."""
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
        if answer.chunks is None:
            headers.append((b"content-length", b"%d" % len(answer.body)))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        outcome = Outcome.ANSWERED
        if answer.chunks is not None:
            try:
                for chunk in answer.chunks:
                    async with asyncio.timeout(self._limits.send_timeout_s):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except Rejected:
                outcome = Outcome.CUT
        await send({"type": "http.response.body", "body": bytes(answer.body), "more_body": False})
        return outcome


def _head(scope: MutableMapping[str, Any]) -> Head:
    path = scope.get("raw_path") or scope["path"].encode("utf-8")
    query = scope["query_string"]
    target = path + b"?" + query if query else path
    headers = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"])
    return Head(method=scope["method"], target=target.decode("latin-1"), headers=headers)
