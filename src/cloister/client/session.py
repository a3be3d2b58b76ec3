"""A consumer's standing with one enclave, sans-io: verified once, verified again when its keys change.

Of the plans that find the keys gone at one time one verifies, and its verdict is the others' too.
Every request goes to keys from attested evidence; where the trust names a borrower's key, the contract is proven
before anything else is asked. When the gateway says that it has not these keys (RFC 9458
section 5.3: nothing was processed) the enclave is verified anew, and the request is sealed anew, once.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from cloister.attest.rules import NotChecked
from cloister.channel.bhttp import BinaryRequest
from cloister.channel.bhttp_reader import Data, End, ResponseHead
from cloister.channel.keyset import CHUNKED_RESPONSE_TYPE, GATEWAY_PATH, OHTTP_KEY_PROBLEM
from cloister.channel.ohttp import DEFAULT_MAX_MESSAGE_BYTES
from cloister.client.contract import CONTRACT_PATH, take_contract
from cloister.client.direct import DirectExchange, open_direct
from cloister.client.exchange import OUTER_HEADERS, Answer, Exchange, TruncatedResponse
from cloister.client.pinned_tls import UnlistedKey
from cloister.client.plan import Close, Head, Hold, Open, Read, Release
from cloister.client.retries import Attempt, NoAnswer
from cloister.client.sub_allowance import SUB_ALLOWANCE_FIELD
from cloister.client.trust import establish
from cloister.client.way import Way
from cloister.errors import CloisterError, Malformed, Rejected, Unavailable
from cloister.wire import dump_b64u, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from cloister.attest.verifier import Scheme
    from cloister.client.plan import Plan
    from cloister.client.trust import Trust, VerifiedEnclave

__all__ = ["Opened", "Session", "StreamCut"]

MAX_PROBLEM_BYTES = 64 * 1024  # bytes of an outer error document
_OK = range(200, 300)
_BAD_REQUEST = 400
_SERVER_FAULT = 500
_TOO_MANY_REQUESTS = 429
_KEY_BYTES = 18  # bytes of a fresh Idempotency-Key
_CREDENTIALS = ("authorization", SUB_ALLOWANCE_FIELD)
_HEALTH = "/v2/health/"
_MODEL = re.compile(r"/v2/models/([^/?]+)")

Opened: TypeAlias = tuple[Exchange | DirectExchange, Head]
"""An exchange whose answer is there and not read yet."""


class StreamCut(CloisterError):
    """The connection broke while a body was read; a wire raises it, callers see ``TruncatedResponse``."""


class Session:
    """Keeps the verified enclave. Plans of one session may run at the same time."""

    def __init__(
        self,
        url: str,
        trust: Trust,
        *,
        schemes: Iterable[Scheme],
        endorsements: Mapping[str, bytes],
        clock: Callable[[], datetime],
        rng: Callable[[int], bytes],
        max_response_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        way: Way = Way.OHTTP,
    ) -> None:
        """Know where and whom; nothing is verified yet."""
        self.url = url
        self.trust = trust
        self.clock = clock
        self.rng = rng
        self._schemes = tuple(schemes)
        self._endorsements = dict(endorsements)
        self._max_response_bytes = max_response_bytes
        self._way = way
        self._unreached: VerifiedEnclave | None = None  # the one that pinned TLS did not get to
        self._enclave: VerifiedEnclave | None = None
        self._agreed: VerifiedEnclave | None = None  # the one whose contract is proven to be as the trust demands
        self._verdicts = 0
        self._refusal: CloisterError | None = None  # why the last verdict was no, None where it was yes

    @property
    def enclave(self) -> VerifiedEnclave | None:
        """The enclave as it was verified last."""
        return self._enclave

    @property
    def refusal(self) -> CloisterError | None:
        """Why the enclave was not verified when that was tried last; None where it was."""
        return self._refusal

    def verify(self) -> Plan[VerifiedEnclave]:
        """Verify now, whatever was before. Raises as ``establish``; then nothing is verified."""
        enclave, refusal = None, None
        try:
            enclave = yield from establish(
                self.url,
                self.trust,
                schemes=self._schemes,
                endorsements=self._endorsements,
                clock=self.clock,
                rng=self.rng,
            )
            self._way.is_pinned(enclave)
        except CloisterError as exc:
            refusal = exc
            enclave = None
            raise
        finally:
            self._enclave, self._refusal = enclave, refusal
            self._verdicts += 1
        return enclave

    def refresh(self) -> Plan[VerifiedEnclave]:
        """Verify ahead of need. Raises as ``verify``, but where nothing could be decided what was verified stands."""
        before = self._enclave
        try:
            return (yield from self._renewed(before))
        except Unavailable:
            self._enclave = before
            raise

    def current(self) -> Plan[VerifiedEnclave]:
        """Return the verified enclave; verify anew where there is none or its keyset has run out."""
        enclave = self._enclave
        if enclave is not None and self.clock() < enclave.keyset.exp:
            return enclave
        return (yield from self._renewed(enclave))

    def _renewed(self, stale: VerifiedEnclave | None) -> Plan[VerifiedEnclave]:
        """Return an enclave that was verified after ``stale``: a thousand plans at once ask for evidence once."""
        verdicts = self._verdicts
        yield Hold()
        try:
            if self._enclave is not None and self._enclave is not stale:
                return self._enclave
            if self._verdicts != verdicts and self._refusal is not None:
                raise self._refusal
            return (yield from self.verify())
        finally:
            yield Release()

    def open(self, request: BinaryRequest, attempt: Attempt | None = None) -> Plan[Opened]:
        """Send ``request`` and return the exchange with its outer answer, still to be read.

        ``attempt`` is what is known of earlier tries, and learns of this one. Raises ``Malformed`` for an answer that
        is no encapsulated response, ``Rejected`` and ``Unavailable`` for what the gateway says in the clear,
        ``UsageError`` for a model that the trust does not name; as ``contract`` where the trust names the borrower's
        key, as ``Attempt`` where asking again would count again, or comes too late.
        """
        found = _MODEL.match(request.path)
        if found is not None:
            self.trust.digest_of(found[1])
        request = self._keyed(request)
        attempt = attempt or Attempt()
        enclave = yield from self._agreed_with(request)
        opened = yield from self._opened(enclave, request, attempt)
        if isinstance(opened, CloisterError):
            # The keys are not the enclave's (any more), and nothing was processed (RFC 9458 section 5.3). That may be
            # a lie of whoever is on the way; the request's own key makes a second run free.
            yield from self._renewed(enclave)
            enclave = yield from self._agreed_with(request)
            opened = yield from self._opened(enclave, request, attempt)
        if isinstance(opened, CloisterError):
            raise opened
        return opened

    def ask(self, request: BinaryRequest, attempt: Attempt | None = None) -> Plan[tuple[Answer, VerifiedEnclave]]:
        """Return the whole response, and who gave it. Raises as ``open``; ``TruncatedResponse`` for a cut one."""
        attempt = attempt or Attempt()
        exchange, head = yield from self.open(request, attempt)
        try:
            return (yield from self._read(exchange, head, attempt)), exchange.enclave
        except (TruncatedResponse, Unavailable) as exc:
            attempt.lose(exchange.enclave.instance, exc)
            raise

    def _read(self, exchange: Exchange | DirectExchange, head: Head, attempt: Attempt) -> Plan[Answer]:
        pieces: list[ResponseHead | Data] = []
        try:
            while (data := (yield Read(head))) is not None:
                attempt.left(self.clock())
                pieces += exchange.feed(data)
        except StreamCut as exc:
            raise TruncatedResponse from exc
        finally:
            yield Close(head)
        last, end = exchange.end()
        return _whole([*pieces, *last], end)

    def _agreed_with(self, request: BinaryRequest) -> Plan[VerifiedEnclave]:
        """Return the enclave that ``request`` may go to: its contract is signed as the trust demands.

        The contract is asked for once for each verification, with the credentials of ``request``.
        """
        enclave = yield from self.current()
        free = request.path == CONTRACT_PATH or request.path.startswith(_HEALTH)
        if free or isinstance(self.trust.borrower, NotChecked) or self._agreed is enclave:
            return enclave
        own = tuple((name, value) for name, value in request.headers if name.lower() in _CREDENTIALS)
        answer, enclave = yield from self.ask(BinaryRequest(method="GET", path=CONTRACT_PATH, headers=own))
        take_contract(answer, enclave=enclave, trust=self.trust)
        self._agreed = enclave
        return enclave

    def _keyed(self, request: BinaryRequest) -> BinaryRequest:
        """Return the request with an Idempotency-Key where it may cost something and has none."""
        if request.method != "POST" or any(name == "idempotency-key" for name, _ in request.headers):
            return request
        key = dump_b64u(self.rng(_KEY_BYTES))
        return replace(request, headers=(*request.headers, ("idempotency-key", key)))

    def _opened(
        self, enclave: VerifiedEnclave, request: BinaryRequest, attempt: Attempt
    ) -> Plan[Opened | CloisterError]:
        """Send ``request``; return an error where the enclave has to be verified anew, raise any other."""
        if enclave is self._unreached or not self._way.is_pinned(enclave):
            return (yield from self._sealed(enclave, request, attempt))
        try:
            return (yield from self._direct(enclave, request, attempt))
        except Unavailable:
            if self._way is not Way.AUTO:
                raise
            attempt.left(self.clock())  # silence that our own deadline cut says nothing about the way
        # Whoever keeps us from pinned TLS has us encapsulate, which is as safe.
        self._unreached = enclave
        return (yield from self._sealed(enclave, request, attempt))

    def _sent(self, enclave: VerifiedEnclave, step: Open, attempt: Attempt) -> Plan[Head]:
        """Take the step that sends a question, while there is time and nobody else may have counted it."""
        attempt.demand(enclave.instance)
        step = replace(step, within=attempt.left(self.clock()))
        try:
            head: Head = yield step
        except NoAnswer as exc:
            attempt.lose(enclave.instance, exc)
            raise
        return head

    def _direct(
        self, enclave: VerifiedEnclave, request: BinaryRequest, attempt: Attempt
    ) -> Plan[Opened | CloisterError]:
        step = open_direct(enclave, request, hybrid=self._way.demands_hybrid)
        try:
            head = yield from self._sent(enclave, step, attempt)
        except UnlistedKey as exc:
            return exc
        try:
            exchange = DirectExchange(enclave, head, method=request.method, max_response_bytes=self._max_response_bytes)
            if head.status == _BAD_REQUEST:
                data = yield from _read_ahead(exchange, head)
                if _parse_problem(data).get("type") == OHTTP_KEY_PROBLEM:
                    yield Close(head)
                    return _outer_fault(head)
        except BaseException:
            yield Close(head)
            raise
        return exchange, head

    def _sealed(
        self, enclave: VerifiedEnclave, request: BinaryRequest, attempt: Attempt
    ) -> Plan[Opened | CloisterError]:
        exchange = Exchange(enclave, request, now=self.clock(), max_response_bytes=self._max_response_bytes)
        headers = (*OUTER_HEADERS, ("attested-instance", enclave.instance))
        step = Open(url=enclave.url + GATEWAY_PATH, headers=headers, body=exchange.body)
        head = yield from self._sent(enclave, step, attempt)
        kind = head.headers.get("content-type", "").partition(";")[0].strip().lower()
        if head.status not in _OK:
            problem = yield from _problem(head)
            fault = _outer_fault(head)
            if head.status == _BAD_REQUEST and problem.get("type") == OHTTP_KEY_PROBLEM:
                return fault
            raise fault
        if kind != CHUNKED_RESPONSE_TYPE:
            yield Close(head)
            msg = f"enclave: status {head.status} with media type {kind[:80]!r}, want {CHUNKED_RESPONSE_TYPE}"
            raise Malformed(msg)
        return exchange, head


def _read_ahead(exchange: DirectExchange, head: Head) -> Plan[bytes]:
    """Return the start of an answer, which ``exchange`` keeps: all of it where it is a problem document."""
    data = b""
    try:
        while len(data) <= MAX_PROBLEM_BYTES and (part := (yield Read(head))) is not None:
            exchange.keep(part)
            data += part
    except StreamCut as exc:
        raise TruncatedResponse from exc
    return data


def _problem(head: Head) -> Plan[Mapping[str, object]]:
    """Return the outer problem document, empty where there is none."""
    data = b""
    try:
        while len(data) <= MAX_PROBLEM_BYTES and (part := (yield Read(head))) is not None:
            data += part
    except StreamCut:
        data = b""
    finally:
        yield Close(head)
    return _parse_problem(data)


def _parse_problem(data: bytes) -> Mapping[str, object]:
    try:
        value = parse_json(data, what="problem", cap=MAX_PROBLEM_BYTES)
    except Malformed:
        return {}
    return value if isinstance(value, dict) else {}


def _outer_fault(head: Head) -> CloisterError:
    """Return what an answer in the clear means. Nothing in it is authentic, so its text is not repeated."""
    if head.status >= _SERVER_FAULT or head.status == _TOO_MANY_REQUESTS:
        after = head.headers.get("retry-after", "")
        seconds = int(after) if after.isascii() and after.isdigit() and len(after) < 6 else None  # noqa: PLR2004 - a day
        return Unavailable(f"enclave: status {head.status}", retry_after_s=seconds, hint="ask again later")
    code = "too_large" if head.status == 413 else "not_accepted"  # noqa: PLR2004 - RFC 9110 section 15.5.14
    return Rejected.because(code, "gateway", got=f"status {head.status}", hint="is this the address of the enclave?")


def _whole(pieces: list[ResponseHead | Data], end: End) -> Answer:
    head = next((piece for piece in pieces if isinstance(piece, ResponseHead)), None)
    if head is None:
        msg = "binary response: no head"
        raise Malformed(msg)
    body = b"".join(piece.data for piece in pieces if isinstance(piece, Data))
    return Answer(status=head.status, headers=head.headers, body=body, trailers=end.trailers)
