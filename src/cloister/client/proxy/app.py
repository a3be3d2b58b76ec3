"""The proxy as an ASGI application: head, gate, body, upstream, answer.

A few header fields go in and a few come back; the rest, cookies and a program's own credentials among them, stays
outside. There is no CORS: pages of other origins get nothing that they could read.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from cloister.client.proxy.refusal import Reply, refusal
from cloister.client.proxy.status import status
from cloister.errors import CloisterError, Rejected, Unavailable

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from cloister.channel.fields import FieldLines
    from cloister.client.passing import Passed
    from cloister.client.proxy.gate import Gate
    from cloister.client.proxy.limits import Limits
    from cloister.client.proxy.metrics import ProxyMetrics
    from cloister.client.proxy.upstream import Upstream

__all__ = ["ProxyApp", "outward"]

_INWARD = ("accept", "content-type", "idempotency-key", "inference-header-content-length")
_OUTWARD = frozenset(
    {"cloister-remaining", "cloister-units", "content-type", "inference-header-content-length", "retry-after"}
)
_PROTOCOL = re.compile(r"/v2(?:/[\x21-\x7e]*)?")
_TOLD_BY_STATUS = re.compile(r"/v2/health/.*|/v2/models/.*/ready")  # tritonclient closes a connection with a body
_MAX_LENGTH_DIGITS = 18
_PIECE_BYTES = 256 * 1024  # of an answer, given to the server at once


class ProxyApp:
    """Answers programs of this machine."""

    def __init__(self, upstream: Upstream, gate: Gate, limits: Limits, metrics: ProxyMetrics | None = None) -> None:
        """Pass on to ``upstream`` whatever ``gate`` admits."""
        self._metrics = metrics
        self._upstream = upstream
        self._gate = gate
        self._limits = limits
        self._running = 0
        self._waiting_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        begun = time.perf_counter()
        try:
            reply = await self._answered(scope, receive)
        except CloisterError as exc:
            reply = refusal(exc)
        except Exception as exc:  # noqa: BLE001 - the server's edge: whatever it was, nothing of it is shown
            reply = refusal(CloisterError(f"internal error ({type(exc).__name__})"))
        if _TOLD_BY_STATUS.fullmatch(scope["path"]):
            reply = replace(reply, body=b"")
        if self._metrics is not None:
            self._metrics.add("cloister_proxy_requests_total", label=f"{reply.status // 100}xx")
            self._metrics.observe("cloister_proxy_seconds", time.perf_counter() - begun)
            self._metrics.set("cloister_proxy_running", self._running)
        await self._send(reply, send)

    async def _answered(self, scope: Scope, receive: Receive) -> Reply:
        headers = _headers(scope)
        self._gate.admit(hosts=headers.get("host", []), authorization=headers.get("authorization", []))
        target = scope["raw_path"].decode("latin-1")
        if scope["query_string"]:
            target += "?" + scope["query_string"].decode("latin-1")
        if target == "/status":
            _demand_method(scope, "GET")
            return await status(self._upstream)
        if not _PROTOCOL.fullmatch(target):
            raise Rejected.because("not_found", "path", want="/v2 or /status")
        _demand_method(scope, "GET", "POST")
        if self._running >= self._limits.max_exchanges:
            raise Rejected.because("busy", "proxy", want=f"at most {self._limits.max_exchanges} requests at once")
        self._running += 1
        try:
            body = await self._body(headers, receive)
            kept = tuple((name, value) for name in _INWARD for value in headers.get(name, []))
            passed = await self._upstream.ask(scope["method"], target, kept, body)
            return Reply(status=passed.answer.status, headers=outward(passed), body=passed.answer.body)
        finally:
            self._running -= 1

    async def _body(self, headers: dict[str, list[str]], receive: Receive) -> bytes:
        """Return the body, bounded in size and time, and in size over all that are under way."""
        if headers.get("content-encoding", ["identity"]) != ["identity"]:
            raise Rejected.because("content_encoding", "request", want="no compression: it is encrypted as it is")
        cap = self._limits.max_request_bytes
        said = headers.get("content-length", ["0"])[0]
        if len(said) > _MAX_LENGTH_DIGITS or not said.isdecimal() or int(said) > cap:
            raise Rejected.because("too_large", "body", want=f"at most {cap} bytes")
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Unavailable("the program hung up")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    self._waiting_bytes += len(parts[-1])
                    if size > cap:
                        raise Rejected.because("too_large", "body", want=f"at most {cap} bytes")
                    if not message.get("more_body", False):
                        return parts[0] if len(parts) == 1 else b"".join(parts)
                    if self._waiting_bytes > self._limits.max_waiting_bytes:
                        raise Rejected.because("busy", "proxy", want="fewer large bodies at once")
        except TimeoutError:
            late = f"within {self._limits.body_timeout_s} s"
            raise Rejected.because("body_late", "body", want=late) from None
        finally:
            self._waiting_bytes -= size

    async def _send(self, reply: Reply, send: Send) -> None:
        """Send it piece by piece, so that little waits beside it; a program that does not read is left in time."""
        headers = [*reply.headers, ("cache-control", "no-store"), ("content-length", str(len(reply.body)))]
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.send_timeout_s):
                await send({"type": "http.response.start", "status": reply.status, "headers": raw})
                last = max(0, len(reply.body) - 1) // _PIECE_BYTES
                for at in range(last + 1):
                    piece = reply.body[at * _PIECE_BYTES : (at + 1) * _PIECE_BYTES]
                    await send({"type": "http.response.body", "body": piece, "more_body": at < last})


def outward(passed: Passed) -> FieldLines:
    """Return the header fields that go back to a program, with which receipt proves the answer."""
    kept = tuple((name, value) for name, value in passed.answer.headers if name in _OUTWARD)
    if passed.receipt is None:
        return kept
    return (*kept, ("cloister-receipt", f"{passed.receipt.receipt.instance}/{passed.receipt.receipt.index}"))


def _headers(scope: Scope) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _demand_method(scope: Scope, *allowed: str) -> None:
    if scope["method"] not in allowed:
        raise Rejected.because("method_not_allowed", "method", want=" or ".join(allowed))
