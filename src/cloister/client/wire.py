"""The outer connections of a consumer, over httpx2: what takes the steps of a plan.

What keeps bodies secret is the encryption inside, or TLS under a key that is attested (``pinned_tls``), over
connections of its own.

Not done here: deciding anything.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn, assert_never

import httpx2

from cloister.client.connections import AGENT, custodian_options, enclave_options
from cloister.client.pinned_clients import PinnedClients
from cloister.client.pinned_tls import UnlistedKey, UnlistedKeyShown, shown_key
from cloister.client.plan import Close, Fetch, Fetched, Hold, Open, Party, Pause, Read, Release
from cloister.client.retries import NoAnswer
from cloister.client.session import StreamCut
from cloister.errors import Malformed, Reason, Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from cloister.channel.fields import FieldLines
    from cloister.client.plan import Step
    from cloister.client.trust_file import Trust

__all__ = ["DEFAULT_TIMEOUT", "AsyncWire", "Wire"]

DEFAULT_TIMEOUT = timedelta(seconds=60)  # until the next byte must have arrived


@dataclass(slots=True)
class _Head:
    """An open answer and the iterator over its body."""

    response: httpx2.Response
    parts: Any

    @property
    def status(self) -> int:
        return self.response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        return self.response.headers

    @property
    def lines(self) -> FieldLines:
        raw = self.response.headers.raw
        return tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw)


def _demand_network(transport: object) -> None:
    """Refuse to go where no connection is made: there is no key to see."""
    if transport is not None:
        msg = "wire: pinned tls through a transport of a test"
        raise UsageError(msg)


def _tls_key(response: httpx2.Response) -> bytes:
    stream = response.extensions.get("network_stream")
    return b"" if stream is None else shown_key(stream.get_extra_info("ssl_object"))


_address = lru_cache(maxsize=64)(httpx2.URL)  # of one enclave there are few, and they are dear to parse


def _request(step: Open, timeout: httpx2.Timeout) -> httpx2.Request:
    """Return a request with the fields of ``step`` and those that every client of HTTP sends."""
    content = step.body or (b"" if step.method == "POST" else None)
    headers = [("user-agent", AGENT), *step.headers]
    seconds = timeout.as_dict()
    if step.within is not None:
        most = step.within.total_seconds()
        seconds = {name: most if limit is None else min(limit, most) for name, limit in seconds.items()}
    extensions = {"timeout": seconds}
    return httpx2.Request(step.method, _address(step.url), headers=headers, content=content, extensions=extensions)


def _unreachable(party: Party, exc: Exception, *, sent: bool = False) -> NoReturn:
    """Say that there was no answer, without the text of the library, which may quote addresses.

    Raises ``UnlistedKey`` where the connection was closed for its key, ``NoAnswer`` where a question may have been
    sent, else ``Unavailable``.
    """
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, UnlistedKeyShown):
            reason = Reason(code="tls_key_mismatch", subject="enclave", want="a tls key that its keyset lists")
            raise UnlistedKey(str(reason), reasons=(reason,), hint=_KEY_HINT) from exc
        cause = cause.__cause__ or cause.__context__
    kind = type(exc).__name__
    stranger = "CERTIFICATE_VERIFY" in str(exc)
    detail = " (certificate not accepted)" if stranger else ""
    hint = {
        Party.ENCLAVE: "is the enclave running, and is its certificate what the trust's tls says?",
        Party.CUSTODIAN: "the trust asks this custodian for the enclave's status; is it running?",
    }[party]
    msg = f"{party}: no answer ({kind}){detail}"
    if sent:
        raise NoAnswer(msg, hint=hint, code="answer_lost") from exc
    raise Unavailable(msg, hint=hint, code="certificate_refused" if stranger else "no_answer") from exc


def _demand_in_time(party: Party, end: float) -> None:
    """Refuse a document that comes a byte now and then: it would keep a consumer waiting for ever."""
    if time.monotonic() > end:
        msg = f"{party}: answer takes too long"
        raise Unavailable(msg)


def _too_long(party: Party, cap: int) -> NoReturn:
    msg = f"{party}: answer longer than {cap} bytes"
    raise Malformed(msg)


_KEY_HINT = "somebody between ends tls, or several enclaves share this address; way ohttp needs no pinned key"


def _demand_repeatable(step: Open) -> None:
    """Raise what is being raised, but where ``step`` may be taken once more because a kept connection had ended.

    An Idempotency-Key makes that free; an encapsulated request is taken once only, as these very bytes.
    """
    if not step.keys:
        raise  # noqa: PLE0704 - called while an error is being handled


_GONE = (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError)
_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
_FAULTS = (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, ssl.SSLError, OSError)


class Wire:
    """Takes steps, blocking. ``transport`` replaces the network to both parties, for tests."""

    def __init__(
        self,
        url: str,
        trust: Trust,
        *,
        timeout: timedelta = DEFAULT_TIMEOUT,
        transport: httpx2.BaseTransport | None = None,
        certificate: Path | str | None = None,
    ) -> None:
        """Prepare; nothing is opened yet."""
        self._closed = False
        self._seconds = timeout.total_seconds()
        self._turn = threading.Lock()
        self._transport = transport
        self._pinned = PinnedClients(httpx2.Client, timeout=timeout, certificate=certificate)
        self._making = threading.Lock()
        self._clients = {Party.ENCLAVE: httpx2.Client(transport=transport, **enclave_options(url, trust, timeout))}
        custodian = custodian_options(trust, timeout)
        if custodian is not None:
            self._clients[Party.CUSTODIAN] = httpx2.Client(transport=transport, **custodian)

    def close(self) -> None:
        """Close every connection; then nothing is asked any more."""
        self._closed = True
        for client in (*self._clients.values(), *self._pinned.all()):
            client.close()

    def take(self, step: Step) -> Any:
        """Perform one step. Raises ``Unavailable``, ``Malformed`` (too long) and ``StreamCut``."""
        match step:
            case Fetch() | Open() if self._closed:
                msg = "client: closed"
                raise UsageError(msg, hint="make a new one with verify, and ask inside its with block")
            case Fetch():
                return self._fetch(step)
            case Open():
                return self._open(step)
            case Read(head=_Head(parts=parts)):
                return _next(parts)
            case Close(head=_Head(response=response)):
                return response.close()
            case Pause(duration=duration):
                return time.sleep(duration.total_seconds())
            case Hold() | Release():
                return self._turn.acquire() if isinstance(step, Hold) else self._turn.release()
            case Read() | Close():
                msg = "wire: an answer of another wire"
                raise UsageError(msg)
            case _:
                assert_never(step)

    def _fetch(self, step: Fetch) -> Fetched:
        headers = {"accept": step.accept, "accept-encoding": "identity"}
        data, end = bytearray(), time.monotonic() + self._seconds
        try:
            with self._clients[step.party].stream("GET", step.url, headers=headers) as response:
                key = _tls_key(response)
                for part in response.iter_raw():
                    data += part
                    _demand_in_time(step.party, end)
                    if len(data) > step.cap:
                        _too_long(step.party, step.cap)
        except _FAULTS as exc:
            _unreachable(step.party, exc)
        return Fetched(status=response.status_code, headers=response.headers, body=bytes(data), tls_key=key)

    def _client(self, step: Open) -> httpx2.Client:
        """Return the connections for a step: those under its keys, where it names any."""
        if not step.keys:
            return self._clients[Party.ENCLAVE]
        _demand_network(self._transport)
        with self._making:
            client, over = self._pinned.find(step)
        if over is not None:
            over.close()
        return client

    def _open(self, step: Open) -> _Head:
        client = self._client(step)
        sent = False
        try:
            try:
                response = client.send(_request(step, client.timeout), stream=True)
            except _GONE:
                _demand_repeatable(step)
                sent = True
                response = client.send(_request(step, client.timeout), stream=True)
        except _FAULTS as exc:
            _unreachable(Party.ENCLAVE, exc, sent=sent or not isinstance(exc, _UNSENT))
        return _Head(response, response.iter_raw())


def _next(parts: Iterator[bytes]) -> bytes | None:
    try:
        return next(parts, None)
    except _FAULTS as exc:
        msg = f"enclave: the connection broke ({type(exc).__name__})"
        raise StreamCut(msg) from exc


class AsyncWire:
    """Takes steps, awaiting. ``transport`` replaces the network to both parties, for tests."""

    def __init__(
        self,
        url: str,
        trust: Trust,
        *,
        timeout: timedelta = DEFAULT_TIMEOUT,
        transport: httpx2.AsyncBaseTransport | None = None,
        certificate: Path | str | None = None,
    ) -> None:
        """Prepare; nothing is opened yet."""
        self._closed = False
        self._seconds = timeout.total_seconds()
        self._turn = asyncio.Lock()
        options = enclave_options(url, trust, timeout)
        self._transport = transport
        self._pinned = PinnedClients(httpx2.AsyncClient, timeout=timeout, certificate=certificate)
        self._clients = {Party.ENCLAVE: httpx2.AsyncClient(transport=transport, **options)}
        custodian = custodian_options(trust, timeout)
        if custodian is not None:
            self._clients[Party.CUSTODIAN] = httpx2.AsyncClient(transport=transport, **custodian)

    async def close(self) -> None:
        """Close every connection; then nothing is asked any more."""
        self._closed = True
        for client in (*self._clients.values(), *self._pinned.all()):
            await client.aclose()

    async def take(self, step: Step) -> Any:
        """Perform one step. Raises ``Unavailable``, ``Malformed`` (too long) and ``StreamCut``."""
        match step:
            case Fetch() | Open() if self._closed:
                msg = "client: closed"
                raise UsageError(msg, hint="make a new one with verify, and ask inside its with block")
            case Fetch():
                return await self._fetch(step)
            case Open():
                return await self._open(step)
            case Read(head=_Head(parts=parts)):
                return await _anext(parts)
            case Close(head=_Head(response=response)):
                return await response.aclose()
            case Pause(duration=duration):
                return await asyncio.sleep(duration.total_seconds())
            case Hold() | Release():
                return await self._turn.acquire() if isinstance(step, Hold) else self._turn.release()
            case Read() | Close():
                msg = "wire: an answer of another wire"
                raise UsageError(msg)
            case _:
                assert_never(step)

    async def _fetch(self, step: Fetch) -> Fetched:
        headers = {"accept": step.accept, "accept-encoding": "identity"}
        data, end = bytearray(), time.monotonic() + self._seconds
        try:
            async with self._clients[step.party].stream("GET", step.url, headers=headers) as response:
                key = _tls_key(response)
                async for part in response.aiter_raw():
                    data += part
                    _demand_in_time(step.party, end)
                    if len(data) > step.cap:
                        _too_long(step.party, step.cap)
        except _FAULTS as exc:
            _unreachable(step.party, exc)
        return Fetched(status=response.status_code, headers=response.headers, body=bytes(data), tls_key=key)

    async def _client(self, step: Open) -> httpx2.AsyncClient:
        """Return the connections for a step: those under its keys, where it names any."""
        if not step.keys:
            return self._clients[Party.ENCLAVE]
        _demand_network(self._transport)
        client, over = self._pinned.find(step)
        if over is not None:
            await over.aclose()
        return client

    async def _open(self, step: Open) -> _Head:
        client = await self._client(step)
        sent = False
        try:
            try:
                response = await client.send(_request(step, client.timeout), stream=True)
            except _GONE:
                _demand_repeatable(step)
                sent = True
                response = await client.send(_request(step, client.timeout), stream=True)
        except _FAULTS as exc:
            _unreachable(Party.ENCLAVE, exc, sent=sent or not isinstance(exc, _UNSENT))
        return _Head(response, response.aiter_raw())


async def _anext(parts: AsyncIterator[bytes]) -> bytes | None:
    try:
        return await anext(parts, None)
    except _FAULTS as exc:
        msg = f"enclave: the connection broke ({type(exc).__name__})"
        raise StreamCut(msg) from exc
