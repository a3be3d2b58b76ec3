"""The gateway: from an encapsulated request to a sealed answer (RFC 9458 section 5; docs/spec/channel.md section 6).

    open -> parse -> Date -> consumer -> replay -> inner API -> sealed chunks, the last with receipt and padding

Everything up to "open" answers in the clear and says nothing; everything after it is sealed. Outer headers
steer nothing (T64). Chunks leave only while the lease lives (E5); an answer cut short has no final chunk, and
that is how its consumer knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from cloister.enclave.admission import Admitted
from cloister.enclave.answering import InTheClear, or_problem
from cloister.enclave.inner import InnerAnswer
from cloister.enclave.problems import NO_STORE, inner_problem, plain
from cloister.enclave.web.exchange import Answer
from cloister.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.channel.ohttp import ResponseSealer
    from cloister.enclave.admission import Admission
    from cloister.enclave.inner import InnerApi
    from cloister.enclave.logs import EventLog
    from cloister.enclave.metering import Metering
    from cloister.enclave.published import KeysetPublisher
    from cloister.enclave.web.exchange import Body, Exchange, Head

__all__ = ["Gateway"]


class Gateway:
    """The resource ``/.well-known/ohttp-gateway``."""

    def __init__(
        self, api: InnerApi, publisher: KeysetPublisher, metering: Metering, *, admission: Admission, log: EventLog
    ) -> None:
        """Serve ``api`` to whoever seals to the publisher's keys."""
        self.api = api
        self.publisher = publisher
        self.metering = metering
        self.admission = admission
        self.log = log
        self.replay = ReplayCache(capacity=admission.limits.replay_capacity)

    def begin(self, head: Head) -> Exchange | Answer:
        """Take one outer request, or refuse it."""
        if head.method in {"GET", "HEAD"}:
            return self._configs()
        if head.method != "POST":
            return plain(405)
        return self.admission.refusal() or self._refused_by_head(head) or _Encapsulated(self)

    def _configs(self) -> Answer:
        try:
            headers = (("content-type", KEYS_TYPE), NO_STORE)
            return Answer(status=200, headers=headers, body=self.publisher.keys.dump())
        except Unavailable:
            return plain(503, retry_after_s=1)

    def _refused_by_head(self, head: Head) -> Answer | None:
        """Refuse what no honest client sends, before a byte of the body is read."""
        kind = "".join(head.all("content-type")[:1]).partition(";")[0].strip().lower()
        if kind != CHUNKED_REQUEST_TYPE:
            return plain(415)
        sizes = head.all("content-length")
        if len(sizes) > 1 or (sizes and head.all("transfer-encoding")):
            return plain(400)  # RFC 9112 section 6.3: what smuggling looks like
        if sizes and not (sizes[0].isascii() and sizes[0].isdecimal()):
            return plain(400)
        if sizes and int(sizes[0][:18]) > self.admission.limits.max_request_bytes:
            return self.outer("too_large", 413)
        if "".join(head.all("attested-instance")[:1] or [self.metering.instance]) != self.metering.instance:
            return self.outer("ohttp_key", 400, OHTTP_KEY_PROBLEM)
        return None

    def outer(self, outcome: str, status: int, kind: str = "about:blank") -> Answer:
        """Count an answer in the clear, and return it."""
        self.admission.metrics.add("cloister_exchanges_total", label=outcome)
        return plain(status, kind)


class _Encapsulated(Admitted):
    """One encapsulated request and its sealed answer."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway.admission)
        self._gateway = gateway
        self._metering = gateway.metering
        self._metrics = gateway.admission.metrics

    async def answer(self, body: Body) -> Answer:
        """Open the request and return its sealed answer, or the answer in the clear."""
        self.whole()
        keys = self._gateway.publisher
        limit = self._admission.limits.max_request_bytes
        try:
            message, sealer, enc = keys.keys.open_request(bytes(body), max_bytes=limit)
        except Rejected as exc:
            return self._undecipherable(exc)
        except Unavailable:
            return self._refused("busy", 503)
        answer = await self._inner(message, enc)
        return answer if isinstance(answer, Answer) else self._sealed(answer, sealer)

    def _undecipherable(self, error: Rejected) -> Answer:
        """Answer what does not open: a key we have not, or one answer for all the rest (T63).

        A body that is too long never came so far: a chunk that says it is longer than that is damage.
        """
        if error.code == "ohttp_key":
            return self._refused("ohttp_key", 400, OHTTP_KEY_PROBLEM)
        return self._refused("undecipherable", 400)

    async def _inner(self, message: bytes, enc: bytes) -> InnerAnswer | Answer:
        """Return the inner answer, errors included; a replay is refused in the clear, like noise."""
        try:
            return await or_problem(self._ask(message, enc), metrics=self._metrics, log=self._gateway.log)
        except _Outside as exc:
            return exc.answer
        except Rejected:  # opened by keys of a version replaced since
            return self._refused("ohttp_key", 400, OHTTP_KEY_PROBLEM)

    async def _ask(self, message: bytes, enc: bytes) -> InnerAnswer:
        api = self._gateway.api
        request = BinaryRequest.parse(message, max_body_bytes=self._admission.limits.max_request_bytes)
        now = self._metering.now()
        verify_date(request.headers, now)
        asker = api.asker(request)
        # After the token: strangers can encapsulate too, and would fill the cache.
        try:
            if not api.is_health(request):
                self._gateway.replay.admit(enc, now)
        except Rejected:
            raise _Outside(self._refused("replayed", 400)) from None
        except Unavailable as exc:
            raise _Outside(self._refused("busy", 429, retry_after_s=exc.retry_after_s or 1)) from None
        return await api.answer(request, asker)

    def _sealed(self, answer: InnerAnswer, sealer: ResponseSealer) -> Answer:
        """Return the answer chunk by chunk; without a live lease the rest stays here."""
        try:
            pieces = self._pieces(answer)
            if answer.model is not None:
                self._metering.demand_still_live(answer.model.terms, answer.consumer)
        except Rejected as exc:
            # Nothing has left yet, so the refusal itself can be the answer.
            answer = InnerAnswer(response=inner_problem(exc))
            pieces = self._pieces(answer)
        first = sealer.start() + sealer.seal(pieces[0], final=len(pieces) == 1)
        headers = (("content-type", CHUNKED_RESPONSE_TYPE), ("incremental", "?1"), NO_STORE)
        if len(pieces) == 1:
            return Answer(status=200, headers=headers, body=first)
        return Answer(status=200, headers=headers, chunks=self._chunks(answer, sealer, first, pieces[1:]))

    def _chunks(
        self, answer: InnerAnswer, sealer: ResponseSealer, first: bytes, pieces: list[bytes]
    ) -> Iterator[bytes]:
        """Yield the encapsulated response. Raises ``Rejected`` where the lease ends before the answer does."""
        yield first
        for left, piece in zip(reversed(range(len(pieces))), pieces, strict=True):
            self._demand_live(answer)
            yield sealer.seal(piece, final=left == 0)

    def _pieces(self, answer: InnerAnswer) -> list[bytes]:
        return _plaintext(_dated(answer.response, dump_http_date(self._metering.now())))

    def _demand_live(self, answer: InnerAnswer) -> None:
        if answer.model is not None:
            self._metering.demand_live(answer.model.terms, answer.consumer)


class _Outside(InTheClear):
    """With that answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


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
