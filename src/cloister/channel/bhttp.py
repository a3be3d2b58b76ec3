"""HTTP messages as byte strings: binary HTTP (RFC 9292), whole messages.

Both framings are read and written. The parsing itself is in ``bhttp_reader``, which takes a message
in pieces; here it is given everything at once. The limits stand there too.

Not done here: what a request asks for; encryption (``ohttp``).
"""

from __future__ import annotations

from dataclasses import field
from enum import Enum
from typing import Self

from cloister.channel.bhttp_reader import (
    DEFAULT_MAX_BODY_BYTES,
    Data,
    End,
    Informational,
    RequestHead,
    RequestReader,
    ResponseHead,
    ResponseReader,
    request_fault,
)
from cloister.channel.fields import FieldLines, line_fault
from cloister.errors import UsageError
from cloister.wire import dump_varint
from cloister.wire.values import hot_value

__all__ = ["BinaryRequest", "BinaryResponse", "Framing", "ResponseWriter"]

_REQUEST, _RESPONSE = 0, 1
_INDETERMINATE = 2
_FINAL_STATUS = range(200, 600)


class Framing(Enum):
    """How parts are delimited (RFC 9292 section 3.3)."""

    KNOWN_LENGTH = "known-length"
    INDETERMINATE_LENGTH = "indeterminate-length"


@hot_value
class BinaryRequest:
    """A request. ``authority`` may be empty, then a host field names it (RFC 9292 section 3.4)."""

    method: str
    scheme: str = "https"
    authority: str = ""
    path: str
    headers: FieldLines = field(default=(), repr=False)  # tokens
    body: bytes = field(default=b"", repr=False)
    trailers: FieldLines = ()

    def dump(self, framing: Framing = Framing.KNOWN_LENGTH) -> bytes:
        """Return the message, unpadded. Raises ``UsageError`` for what ``parse`` would refuse."""
        fault = request_fault(self.method, self.scheme, self.authority, self.path)
        if fault is not None:
            msg = f"binary request: {fault}"
            raise UsageError(msg)
        control = [_prefixed(part) for part in (self.method, self.scheme, self.authority, self.path)]
        parts = [_indicator(_REQUEST, framing), *control, _section(self.headers, framing)]
        return b"".join((*parts, *_content(self.body, framing), _section(self.trailers, framing)))

    @classmethod
    def parse(cls, data: bytes, *, max_body_bytes: int = DEFAULT_MAX_BODY_BYTES) -> Self:
        """Return the message in ``data``, padding taken off. Raises ``Malformed``."""
        reader = RequestReader(max_body_bytes=max_body_bytes)
        events = reader.feed(data) + reader.end()
        head, end = events[0], events[-1]
        if not isinstance(head, RequestHead) or not isinstance(end, End):
            msg = "binary request: read without a head or an end"
            raise UsageError(msg)
        return cls(
            method=head.method,
            scheme=head.scheme,
            authority=head.authority,
            path=head.path,
            headers=head.headers,
            body=b"".join([event.data for event in events if isinstance(event, Data)]),
            trailers=end.trailers,
        )


@hot_value
class BinaryResponse:
    """A response, with the informational (1xx) ones that came before it."""

    status: int
    informational: tuple[tuple[int, FieldLines], ...] = ()
    headers: FieldLines = ()
    body: bytes = field(default=b"", repr=False)
    trailers: FieldLines = ()

    def dump(self, framing: Framing = Framing.KNOWN_LENGTH) -> bytes:
        """Return the message, unpadded. Raises ``UsageError`` for what ``parse`` would refuse."""
        parts = [_indicator(_RESPONSE, framing)]
        for status, headers in self.informational:
            parts += [_status(status, range(100, 200)), _section(headers, framing)]
        parts += [_status(self.status, _FINAL_STATUS), _section(self.headers, framing)]
        return b"".join((*parts, *_content(self.body, framing), _section(self.trailers, framing)))

    @classmethod
    def parse(cls, data: bytes, *, max_body_bytes: int = DEFAULT_MAX_BODY_BYTES) -> Self:
        """Return the message in ``data``, padding taken off. Raises ``Malformed``."""
        reader = ResponseReader(max_body_bytes=max_body_bytes)
        events = reader.feed(data) + reader.end()
        head = next(event for event in events if isinstance(event, ResponseHead))
        return cls(
            status=head.status,
            informational=tuple((event.status, event.headers) for event in events if isinstance(event, Informational)),
            headers=head.headers,
            body=b"".join(event.data for event in events if isinstance(event, Data)),
            trailers=next(event.trailers for event in events if isinstance(event, End)),
        )


class ResponseWriter:
    """Writes one indeterminate-length response in pieces: ``head``, any number of ``data``, ``end``."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        """Start before the head."""
        self._next = "head"

    def head(self, status: int, headers: FieldLines = ()) -> bytes:
        """Return the framing indicator, status and header section."""
        self._step("head", "data")
        framing = Framing.INDETERMINATE_LENGTH
        return _indicator(_RESPONSE, framing) + _status(status, _FINAL_STATUS) + _section(headers, framing)

    def data(self, data: bytes) -> bytes:
        """Return one piece of content; nothing for no bytes, for an empty chunk would end the content."""
        self._step("data", "data")
        return dump_varint(len(data)) + data if data else b""

    def end(self, trailers: FieldLines = ()) -> bytes:
        """Return the end of the content and the trailer section."""
        self._step("data", "nothing")
        return b"\x00" + _section(trailers, Framing.INDETERMINATE_LENGTH)

    def _step(self, want: str, after: str) -> None:
        if self._next != want:
            msg = f"binary response: got {want}, want {self._next}"
            raise UsageError(msg)
        self._next = after


def _indicator(kind: int, framing: Framing) -> bytes:
    return dump_varint(kind if framing is Framing.KNOWN_LENGTH else kind + _INDETERMINATE)


def _prefixed(text: str) -> bytes:
    data = text.encode("latin-1")
    return dump_varint(len(data)) + data


def _status(status: int, allowed: range) -> bytes:
    if status not in allowed:
        msg = f"binary response: status {status}, want {allowed.start} to {allowed.stop - 1}"
        raise UsageError(msg)
    return dump_varint(status)


def _section(lines: FieldLines, framing: Framing) -> bytes:
    """Return a field section (RFC 9292 section 3.6)."""
    for name, value in lines:
        fault = line_fault(name, value)
        if fault is not None:
            msg = f"binary http: {fault}"
            raise UsageError(msg)
    section = b"".join([_prefixed(name) + _prefixed(value) for name, value in lines])
    return dump_varint(len(section)) + section if framing is Framing.KNOWN_LENGTH else section + b"\x00"


def _content(body: bytes, framing: Framing) -> tuple[bytes, ...]:
    """Return the pieces of the content: a body may be large, and is copied once, into the message."""
    if framing is Framing.KNOWN_LENGTH:
        return dump_varint(len(body)), body
    return (dump_varint(len(body)), body, b"\x00") if body else (b"\x00",)
