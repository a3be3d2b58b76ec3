"""The head of an HTTP/1.1 request, read by llhttp and then held to what RFC 9112 leaves to the server.

Refused: a message with two ways to tell its length, a target of another form, no or two hosts. Whatever two servers
could read differently is an error here and not a choice (bad input 50).
"""

from __future__ import annotations

import re
from typing import Final

import httptools

from cloister.enclave.web.exchange import Head, Headers
from cloister.errors import Malformed
from cloister.wire.values import hot_value

__all__ = ["CHUNKED", "LENGTH", "MAX_HEADERS", "TARGET", "RequestHead", "parse_head"]

CHUNKED: Final = -1
"""The length of a body that comes in chunks."""

LENGTH = re.compile(r"[0-9]{1,15}")
TARGET = re.compile(r"/[\x21-\x7e]*")
MAX_HEADERS = 100
_BAD = "http: bad head"


@hot_value
class RequestHead:
    """A head and what this connection has to know of it. ``length`` is bytes of the body, or ``CHUNKED``."""

    head: Head
    length: int
    keeps_alive: bool
    waits: bool
    """Whoever asks wants to hear that the head is good before it sends the body (RFC 9110 section 10.1.1)."""


class _Found:
    """What llhttp calls back."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.target = b""
        self.headers: list[tuple[str, str]] = []
        self.complete = False
        self.ended = False
        self.keeps_alive = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.complete = True
        self.keeps_alive = self.parser.should_keep_alive()

    def on_message_complete(self) -> None:
        self.ended = True


def parse_head(data: bytes | memoryview, *, pinned: bool, certificates: tuple[bytes, ...] = ()) -> RequestHead:
    """Return the head that ``data`` is, to its last byte. Raises ``Malformed``."""
    found = _Found()
    parser = found.parser
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # may be asked for, and is not granted (RFC 9110 section 7.8)
    except httptools.HttpParserError as exc:
        raise Malformed(_BAD) from exc
    finally:
        del found.parser  # which refers back: a ring would keep bearer tokens until the collector came by
    headers: Headers = tuple(found.headers)
    told = _Told(headers)
    length = told.length()
    target = found.target.decode("latin-1")
    whole = found.complete and found.ended is (length == 0)
    if not whole or len(headers) > MAX_HEADERS or not TARGET.fullmatch(target):
        raise Malformed(_BAD)
    version = parser.get_http_version()
    if version not in {"1.0", "1.1"} or told.hosts != (version == "1.1"):
        raise Malformed(_BAD)
    if length == CHUNKED and version == "1.0":
        raise Malformed(_BAD)
    method = parser.get_method().decode("ascii")
    head = Head(method=method, target=target, headers=headers, pinned=pinned, certificates=certificates)
    return RequestHead(head=head, length=length, keeps_alive=found.keeps_alive, waits=told.waits())


class _Told:
    """What the fields of a head tell the server itself, found in one pass over them."""

    __slots__ = ("codings", "expected", "hosts", "lengths")

    def __init__(self, headers: Headers) -> None:
        self.hosts = 0
        self.lengths: list[str] = []
        self.codings: list[str] = []
        self.expected: list[str] = []
        for name, value in headers:
            if name == "host":
                self.hosts += 1
            elif name == "content-length":
                self.lengths.append(value)
            elif name == "transfer-encoding":
                self.codings.append(value)
            elif name == "expect":
                self.expected.append(value.lower())

    def waits(self) -> bool:
        if self.expected and self.expected != ["100-continue"]:
            raise Malformed(_BAD)
        return bool(self.expected)

    def length(self) -> int:
        """Return the length that a head tells in one way (RFC 9112 section 6.3). Raises ``Malformed``."""
        if len(self.lengths) + len(self.codings) > 1:
            raise Malformed(_BAD)
        if self.codings:
            if self.codings[0].lower() != "chunked":
                raise Malformed(_BAD)
            return CHUNKED
        if not self.lengths:
            return 0
        if not LENGTH.fullmatch(self.lengths[0]):
            raise Malformed(_BAD)
        return int(self.lengths[0])
