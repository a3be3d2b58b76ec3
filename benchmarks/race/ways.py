"""The ways that requests go: in plain over one path, over TLS with a pinned key, and sealed in Oblivious HTTP."""

from __future__ import annotations

import http.client
import ssl
import statistics
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cloister.channel.bhttp import BinaryRequest, BinaryResponse
from cloister.channel.keyset import CHUNKED_REQUEST_TYPE, GATEWAY_PATH, KEYSET_PATH, EvidenceDocument, Keyset
from cloister.channel.ohttp import seal_request
from cloister.channel.replay import dump_http_date
from race.spelling import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cloister.channel.ohttp import ResponseOpener
    from race.nets import Floats, Net
    from race.spelling import Spelling

_OK = 200
_TIMEOUT_S = 60
_ASKED = 15  # times, for what the consumer's side costs


def exchange(url: str, request: Request) -> tuple[dict[str, str], bytes]:
    """Send one request; return the fields of the answer, in lower case, and its body. Ends the program on a fault."""
    connection = _connection(url)
    connection.request("POST", request.path, request.body, request.headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status != _OK:
        raise SystemExit(f"{url}{request.path}: {answer.status} {body[:300]!r}")
    return {name.lower(): value for name, value in answer.getheaders()}, body


def keyset_of(url: str) -> Keyset:
    """Return the keyset that an enclave shows; its evidence is verified by the tests, not here."""
    connection = _connection(url)
    connection.request("GET", KEYSET_PATH)
    document = connection.getresponse().read()
    connection.close()
    return Keyset.parse(EvidenceDocument.parse(document).keyset)


def _connection(url: str) -> http.client.HTTPConnection:
    place = urlsplit(url)
    if place.scheme == "http":
        return http.client.HTTPConnection(str(place.hostname), place.port, timeout=_TIMEOUT_S)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # what serves is what was just started
    return http.client.HTTPSConnection(str(place.hostname), place.port, timeout=_TIMEOUT_S, context=context)


@dataclass(frozen=True, slots=True, kw_only=True)
class Direct:
    """The same request again and again, in plain or over TLS."""

    url: str
    path: Callable[[Net], str]
    spelling: Spelling
    again: bool = True

    def requests(self, net: Net, inputs: Floats, count: int) -> Iterable[bytes]:
        """Return the one request."""
        del count
        return [self.spelling.write(self.path(net), inputs).on_the_wire()]

    def ask(self, net: Net, inputs: Floats) -> Floats:
        """Return one answer."""
        headers, body = exchange(self.url, self.spelling.write(self.path(net), inputs))
        return self.spelling.read(headers, body)


@dataclass(slots=True, kw_only=True)
class Sealed:
    """Each request sealed anew to the enclave's keyset, beforehand; what that takes is the consumer's."""

    url: str
    path: Callable[[Net], str]
    spelling: Spelling
    again: bool = False
    seal_s: list[float] = field(default_factory=list)
    open_s: list[float] = field(default_factory=list)

    def requests(self, net: Net, inputs: Floats, count: int) -> Iterator[bytes]:
        """Yield so many requests, each with its own encapsulated key."""
        request = self.spelling.write(self.path(net), inputs)
        configs = keyset_of(self.url)
        for _ in range(count):
            yield self._outer(self._sealed(configs, request)[0]).on_the_wire()

    def ask(self, net: Net, inputs: Floats) -> Floats:
        """Return one answer, opened."""
        sealed, opener = self._sealed(keyset_of(self.url), self.spelling.write(self.path(net), inputs))
        _, data = exchange(self.url, self._outer(sealed))
        begun = time.perf_counter()
        inner = BinaryResponse.parse(b"".join([*opener.feed(data), opener.end()]))
        self.open_s.append(time.perf_counter() - begun)
        if inner.status != _OK or "cloister-receipt" not in dict(inner.trailers):
            raise SystemExit(f"{self.url}: inner {inner.status}, or no receipt: {inner.body[:300]!r}")
        return self.spelling.read(dict(inner.headers), inner.body)

    def consumer_ms(self, net: Net, inputs: Floats) -> tuple[float, float]:
        """Ask some times; return the medians of sealing one request and of opening one answer."""
        self.seal_s.clear()
        self.open_s.clear()
        for _ in range(_ASKED):
            self.ask(net, inputs)
        return statistics.median(self.seal_s) * 1e3, statistics.median(self.open_s) * 1e3

    def _sealed(self, keyset: Keyset, request: Request) -> tuple[bytes, ResponseOpener]:
        begun = time.perf_counter()
        message = BinaryRequest(
            method="POST",
            authority="enclave",
            path=request.path,
            headers=(
                ("date", dump_http_date(datetime.now(UTC))),
                *((name.lower(), value) for name, value in request.headers.items()),
            ),
            body=request.body,
        )
        made = seal_request(keyset.configs[0], message.dump())
        self.seal_s.append(time.perf_counter() - begun)
        return made

    @staticmethod
    def _outer(sealed: bytes) -> Request:
        return Request(path=GATEWAY_PATH, headers={"Content-Type": CHUNKED_REQUEST_TYPE}, body=sealed)
