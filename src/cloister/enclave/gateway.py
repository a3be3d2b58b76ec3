"""The gateway: from an encapsulated request to a sealed answer (RFC 9458 section 5; docs/spec/channel.md section 6).

    open -> parse -> Date -> consumer -> replay -> inner API -> sealed chunks, the last with receipt and padding

Everything up to "open" answers in the clear and says nothing; everything after it is sealed. Outer headers
steer nothing (T64). Chunks leave only while the lease lives (E5); an answer cut short has no final chunk, and
that is how its consumer knows.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import Response

from cloister.channel.bhttp import BinaryRequest, BinaryResponse, ResponseWriter
from cloister.channel.keyset import (
    CHUNKED_REQUEST_TYPE,
    CHUNKED_RESPONSE_TYPE,
    KEYS_TYPE,
    OHTTP_KEY_PROBLEM,
)
from cloister.channel.ohttp import CHUNK_BYTES
from cloister.channel.padding import padded_size
from cloister.channel.replay import ReplayCache, dump_http_date, verify_date
from cloister.enclave.inner import Answer
from cloister.enclave.logs import Event
from cloister.enclave.problems import PROBLEM_TYPE, inner_problem, outer_problem, status_of
from cloister.errors import CloisterError, Rejected, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Receive, Scope, Send

    from cloister.channel.ohttp import ResponseSealer
    from cloister.enclave.config import Limits
    from cloister.enclave.inner import InnerApi
    from cloister.enclave.logs import EventLog
    from cloister.enclave.metering import Metering
    from cloister.enclave.metrics import Metrics
    from cloister.enclave.published import KeysetPublisher

__all__ = ["Gateway"]

_NO_STORE = {"cache-control": "no-store"}


class Gateway:
    """The resource ``/.well-known/ohttp-gateway`` as an ASGI application."""

    def __init__(
        self,
        api: InnerApi,
        publisher: KeysetPublisher,
        metering: Metering,
        *,
        limits: Limits,
        metrics: Metrics,
        log: EventLog,
    ) -> None:
        """Serve ``api`` to whoever seals to the publisher's keys."""
        self._api = api
        self._publisher = publisher
        self._metering = metering
        self._limits = limits
        self._metrics = metrics
        self._log = log
        self._replay = ReplayCache(capacity=limits.replay_capacity)
        self._running = 0
        self._waiting_bytes = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one outer request."""
        if scope["method"] in {"GET", "HEAD"}:
            await self._configs()(scope, receive, send)
        elif scope["method"] != "POST":
            await _plain(405)(scope, receive, send)
        elif self.draining:
            await _plain(503, retry_after_s=5)(scope, receive, send)
        elif self._running >= self._limits.max_exchanges:
            self._metrics.add("cloister_exchanges_total", label="busy")
            await _plain(429, retry_after_s=1)(scope, receive, send)
        else:
            await self._exchange(scope, receive, send)

    async def drain(self, seconds: float) -> None:
        """Take no more exchanges and wait until the running ones are over, but not longer."""
        self.draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return

    def _configs(self) -> Response:
        try:
            return Response(self._publisher.keys.dump(), media_type=KEYS_TYPE, headers=_NO_STORE)
        except Unavailable:
            return _plain(503, retry_after_s=1)

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._running += 1
        self._idle.clear()
        self._metrics.set("cloister_exchanges_running", self._running)
        try:
            refused = await self._opened(scope, receive, send)
            if refused is not None:
                await refused(scope, receive, send)
        finally:
            self._running -= 1
            self._metrics.set("cloister_exchanges_running", self._running)
            if not self._running:
                self._idle.set()

    async def _opened(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """Open the request and answer it sealed, or return the answer in the clear."""
        refused = self._refused_by_head(_headers(scope))
        if refused is not None:
            return refused
        body = await self._body(receive)
        if isinstance(body, Response):
            return body
        try:
            message, sealer, enc = self._publisher.keys.open_request(body, max_bytes=self._limits.max_request_bytes)
        except Rejected as exc:
            return self._undecipherable(exc)
        except Unavailable:
            return self._outer("busy", 503)
        answer = await self._answer(message, enc)
        if isinstance(answer, Response):
            return answer
        await self._send(answer, sealer, send)
        return None

    def _refused_by_head(self, headers: dict[str, list[str]]) -> Response | None:
        """Refuse what no honest client sends, before a byte of the body is read."""
        kind = headers.get("content-type", [""])[0].partition(";")[0].strip().lower()
        if kind != CHUNKED_REQUEST_TYPE:
            return _plain(415)
        sizes = headers.get("content-length", [])
        if len(sizes) > 1 or (sizes and "transfer-encoding" in headers):
            return _plain(400)  # RFC 9112 section 6.3: what smuggling looks like
        if sizes and not (sizes[0].isascii() and sizes[0].isdecimal()):
            return _plain(400)
        if sizes and int(sizes[0][:18]) > self._limits.max_request_bytes:
            return self._outer("too_large", 413)
        if headers.get("attested-instance", [self._metering.instance])[0] != self._metering.instance:
            return self._outer("ohttp_key", 400, OHTTP_KEY_PROBLEM)
        return None

    async def _body(self, receive: Receive) -> bytes | Response:
        """Return the outer body, bounded in size and time, and in size over all that are under way (T82)."""
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return self._outer("failed", 400)
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    self._waiting_bytes += len(parts[-1])
                    if size > self._limits.max_request_bytes:
                        return self._outer("too_large", 413)
                    if not message.get("more_body", False):
                        return b"".join(parts)
                    if self._waiting_bytes > self._limits.max_waiting_bytes:
                        return self._outer("busy", 429, retry_after_s=1)
        except TimeoutError:
            return self._outer("failed", 408)
        finally:
            self._waiting_bytes -= size

    def _undecipherable(self, error: Rejected) -> Response:
        """Answer what does not open: two cases that the sender can tell apart anyway, one for all the rest (T63)."""
        if error.code == "ohttp_key":
            return self._outer("ohttp_key", 400, OHTTP_KEY_PROBLEM)
        if error.code == "too_large":
            return self._outer("too_large", 413)
        return self._outer("undecipherable", 400)

    async def _answer(self, message: bytes, enc: bytes) -> Answer | Response:
        """Return the inner answer, errors included; a replay is refused in the clear, like noise."""
        try:
            request = BinaryRequest.parse(message, max_body_bytes=self._limits.max_request_bytes)
            verify_date(request.headers, self._metering.now())
            token, consumer = self._api.consumer(request)
            # After the token: strangers can encapsulate too, and would fill the cache.
            try:
                if not self._api.is_health(request):
                    self._replay.admit(enc, self._metering.now())
            except Rejected:
                return self._outer("replayed", 400)
            except Unavailable as exc:
                return self._outer("busy", 429, retry_after_s=exc.retry_after_s or 1)
            answer = await self._api.answer(request, token, consumer)
        except CloisterError as exc:
            if isinstance(exc, Rejected) and exc.code == "ohttp_key":  # opened by keys of a version replaced since
                return self._outer("ohttp_key", 400, OHTTP_KEY_PROBLEM)
            self._metrics.add("cloister_answers_total", label=status_of(exc)[1])
            return Answer(response=inner_problem(exc))
        except Exception as exc:  # noqa: BLE001 - the server's edge: our bug must not tell the host anything
            self._log.write(Event.INTERNAL_ERROR, error=type(exc).__name__)
            self._metrics.add("cloister_answers_total", label="internal")
            return Answer(response=inner_problem(CloisterError("internal error")))
        self._metrics.add("cloister_answers_total", label="ok")
        return answer

    async def _send(self, answer: Answer, sealer: ResponseSealer, send: Send) -> None:
        """Seal and send chunk by chunk; without a live lease the rest stays here."""
        try:
            chunks = self._chunks(answer, sealer)
            first = next(chunks)
        except Rejected as exc:
            # Nothing has left yet, so the refusal itself can be the answer.
            chunks = self._chunks(Answer(response=inner_problem(exc)), sealer)
            first = next(chunks)
        outcome = "answered"
        await send(_start())
        try:
            await self._send_one(first, send)
            for chunk in chunks:
                await self._send_one(chunk, send)
        except Rejected:
            outcome = "cut"
        except TimeoutError:
            self._metrics.add("cloister_exchanges_total", label="cut")
            return  # the server closes the connection of a consumer that does not read
        self._metrics.add("cloister_exchanges_total", label=outcome)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_one(self, chunk: bytes, send: Send) -> None:
        async with asyncio.timeout(self._limits.send_timeout_s):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

    def _chunks(self, answer: Answer, sealer: ResponseSealer) -> Iterator[bytes]:
        """Yield the encapsulated response. Raises ``Rejected`` where the lease ends before the answer does."""
        pieces = _plaintext(_dated(answer.response, dump_http_date(self._metering.now())))
        start = b""
        for at, piece in enumerate(pieces):
            if answer.model is not None:
                self._metering.demand_live(answer.model.terms, answer.consumer)
            if at == 0:
                start = sealer.start()
            yield start + sealer.seal(piece, final=at == len(pieces) - 1)
            start = b""

    def _outer(
        self, outcome: str, status: int, kind: str = "about:blank", retry_after_s: int | None = None
    ) -> Response:
        self._metrics.add("cloister_exchanges_total", label=outcome)
        return _plain(status, kind, retry_after_s=retry_after_s)


def _plaintext(response: BinaryResponse) -> list[bytes]:
    """Return the binary HTTP message, padded as a whole to its bucket, in chunks that any client takes."""
    writer = ResponseWriter()
    message = writer.head(response.status, response.headers)
    message += writer.data(response.body) if response.body else b""
    message += writer.end(response.trailers)
    view = memoryview(message.ljust(padded_size(len(message)), b"\x00"))
    return [bytes(view[at : at + CHUNK_BYTES]) for at in range(0, len(view), CHUNK_BYTES)]


def _dated(response: BinaryResponse, date: str) -> BinaryResponse:
    """Return the response with our Date, by which a client can correct its clock (RFC 9458 section 6.5.2)."""
    return BinaryResponse(
        status=response.status,
        headers=(*((name, value) for name, value in response.headers if name != "date"), ("date", date)),
        body=response.body,
        trailers=response.trailers,
    )


def _start() -> dict[str, object]:
    headers = [
        (b"content-type", CHUNKED_RESPONSE_TYPE.encode()),
        (b"incremental", b"?1"),
        (b"cache-control", b"no-store"),
    ]
    return {"type": "http.response.start", "status": 200, "headers": headers}


def _headers(scope: Scope) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _plain(status: int, kind: str = "about:blank", *, retry_after_s: int | None = None) -> Response:
    headers = dict(_NO_STORE)
    if retry_after_s is not None:
        headers["retry-after"] = str(retry_after_s)
    return Response(outer_problem(status, kind), status_code=status, media_type=PROBLEM_TYPE, headers=headers)
