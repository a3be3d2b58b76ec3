"""Binary HTTP (RFC 9292) in pieces: bytes in, frozen events out, for both kinds and both framings.

A reader is fed whatever arrived; it never holds more than one field section or control string, and
compares every length with its limit before it waits for the bytes. ``End`` comes only from ``end``,
so that nobody takes a message for complete before the stream beneath it was proven complete.

Stricter than the RFC: integers of any length are read, but padding must be zero (section 3.8 lets a
reader decide), CONNECT and pseudo-fields are refused, and a content-length must be true.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from cloister.channel.fields import MAX_NAME_BYTES, MAX_VALUE_BYTES, FieldLines, content_length, line_fault
from cloister.errors import Malformed, UsageError
from cloister.wire.values import hot_value

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = [
    "DEFAULT_MAX_BODY_BYTES",
    "Data",
    "End",
    "Event",
    "Informational",
    "RequestHead",
    "RequestReader",
    "ResponseHead",
    "ResponseReader",
    "request_fault",
]

DEFAULT_MAX_BODY_BYTES = 64 << 20  # bytes of content unless the caller says otherwise
MAX_SECTION_BYTES = 64 * 1024  # bytes of one header or trailer section
MAX_LINES = 128  # field lines of one section
MAX_INFORMATIONAL = 8  # 1xx responses before the final one
MAX_CONTENT_CHUNKS = 1 << 16  # chunks of one indeterminate-length content
MAX_METHOD_BYTES = 32
MAX_SCHEME_BYTES = 16
MAX_AUTHORITY_BYTES = 255
MAX_PATH_BYTES = 8192

_ONE_BYTE = 0x40  # numbers below it are one byte

_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SCHEME = re.compile(r"[a-z][a-z0-9+.\-]*")
_AUTHORITY = re.compile(r"[A-Za-z0-9._~%!$&'()*+,;=:\[\]\-]*")
_PATH = re.compile(r"/[\x21\x22\x24-\x7e]*")
_FINAL_STATUS = range(200, 600)
_INFORMATIONAL_STATUS = range(100, 200)


@hot_value
class RequestHead:
    """Control data and headers of a request."""

    method: str
    scheme: str
    authority: str
    path: str
    headers: FieldLines = field(repr=False)  # tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Informational:
    """A 1xx response before the final one."""

    status: int
    headers: FieldLines


@hot_value
class ResponseHead:
    """Status and headers of a final response."""

    status: int
    headers: FieldLines


@hot_value
class Data:
    """A piece of content, never empty; its borders mean nothing."""

    data: bytes = field(repr=False)


@hot_value
class End:
    """The message is whole."""

    trailers: FieldLines


Event: TypeAlias = RequestHead | Informational | ResponseHead | Data | End


def request_fault(method: str, scheme: str, authority: str, path: str) -> str | None:
    """Return what is wrong with request control data (RFC 9113 section 8.3.1), or None."""
    if len(method) > MAX_METHOD_BYTES or not _METHOD.fullmatch(method) or method == "CONNECT":
        return "method is no token or not allowed"
    if len(scheme) > MAX_SCHEME_BYTES or not _SCHEME.fullmatch(scheme):
        return "scheme is no lower-case scheme"
    if len(authority) > MAX_AUTHORITY_BYTES or not _AUTHORITY.fullmatch(authority):
        return "authority has a forbidden character or is too long"
    if len(path) > MAX_PATH_BYTES or not (_PATH.fullmatch(path) or (path == "*" and method == "OPTIONS")):
        return "path has a forbidden character, no slash in front or is too long"
    return None


class _Grammar:
    """The grammar of RFC 9292 section 3, written front to back; a ``yield`` waits for more bytes."""

    __slots__ = (
        "_at",
        "_content",
        "_ended",
        "_events",
        "_failure",
        "_is_request",
        "_max_body",
        "_steps",
        "_taken",
        "_view",
        "_what",
    )

    def __init__(self, *, is_request: bool, max_body_bytes: int) -> None:
        self._what = "binary request" if is_request else "binary response"
        self._is_request = is_request
        self._max_body = max_body_bytes
        self._view = memoryview(b"")  # what was fed last, after what was left of before: less than one field
        self._at = 0
        self._content: list[bytes] = []
        self._events: list[Event] = []
        self._taken = 0
        self._ended = False
        self._failure: Malformed | None = None
        self._steps = self._message()
        next(self._steps)

    def feed(self, data: bytes) -> list[Event]:
        if self._ended:
            msg = f"{self._what}: fed after its end"
            raise UsageError(msg)
        left = bytes(self._view[self._at :])
        self._view, self._at = memoryview(left + data if left else data), 0
        return self._run()

    def end(self) -> list[Event]:
        self._ended = True
        return self._run()

    def _run(self) -> list[Event]:
        if self._failure is not None:
            raise self._failure.again()
        try:
            next(self._steps)
        except StopIteration:
            pass
        except Malformed as exc:
            self._failure = exc.again()
            self._view, self._at = memoryview(b""), 0
            raise
        self._flush()
        events, self._events = self._events, []
        return events

    def _flush(self) -> None:
        """Make one event of all content that came at once: many small chunks cost no more than one."""
        if self._content:
            self._events.append(Data(data=b"".join(self._content)))
            self._content.clear()

    def _fail(self, detail: str) -> NoReturn:
        msg = f"{self._what}: {detail}"
        raise Malformed(msg)

    def _message(self) -> Generator[None, None, None]:
        indicator = yield from self._varint()
        if indicator not in ((0, 2) if self._is_request else (1, 3)):
            self._fail(f"framing indicator {indicator}")
        known = indicator < 2  # noqa: PLR2004 - RFC 9292 section 3.3: 0 and 1 are known-length
        length = yield from (self._request_head(known) if self._is_request else self._response_head(known))
        size = yield from (self._known_content() if known else self._chunked_content())
        # an empty body beside a length is a response to HEAD or a 304 (RFC 9110 section 8.6)
        if length is not None and length != size and (size or self._is_request):
            self._fail("content-length is not the length of the content")
        trailers = yield from self._section(known)
        if any(name == "content-length" for name, _ in trailers):
            self._fail("content-length in the trailers")
        yield from self._padding()
        self._flush()
        self._events.append(End(trailers=trailers))

    def _request_head(self, known: bool) -> Generator[None, None, int | None]:  # noqa: FBT001 - inner step
        method = yield from self._text(MAX_METHOD_BYTES, "method")
        scheme = yield from self._text(MAX_SCHEME_BYTES, "scheme")
        authority = yield from self._text(MAX_AUTHORITY_BYTES, "authority")
        path = yield from self._text(MAX_PATH_BYTES, "path")
        fault = request_fault(method, scheme, authority, path)
        if fault is not None:
            self._fail(fault)
        headers = yield from self._section(known)
        self._events.append(RequestHead(method=method, scheme=scheme, authority=authority, path=path, headers=headers))
        return content_length(headers)

    def _response_head(self, known: bool) -> Generator[None, None, int | None]:  # noqa: FBT001 - inner step
        for _ in range(MAX_INFORMATIONAL + 1):
            status = yield from self._varint()
            if status in _FINAL_STATUS:
                headers = yield from self._section(known)
                self._events.append(ResponseHead(status=status, headers=headers))
                return content_length(headers)
            if status not in _INFORMATIONAL_STATUS:
                self._fail(f"status {status}")
            headers = yield from self._section(known)
            self._events.append(Informational(status=status, headers=headers))
        self._fail(f"more than {MAX_INFORMATIONAL} informational responses")

    def _section(self, known: bool) -> Generator[None, None, FieldLines]:  # noqa: FBT001 - inner step
        """Field lines, or none where the message is cut just here (RFC 9292 section 3.8)."""
        lines: list[tuple[str, str]] = []
        if (yield from self._finished()):
            return ()
        if known:
            size = yield from self._bounded(MAX_SECTION_BYTES, "field section")
            return self._lines((yield from self._take(size)))
        stop = self._taken + MAX_SECTION_BYTES
        while True:
            size = yield from self._bounded(MAX_NAME_BYTES, "field name")
            if size == 0:
                return tuple(lines)
            name = (yield from self._take(size)).decode("latin-1")
            value = yield from self._text(MAX_VALUE_BYTES, "field value")
            fault = line_fault(name, value)
            if fault is not None:
                self._fail(fault)
            lines.append((name, value))
            if self._taken > stop or len(lines) > MAX_LINES:
                self._fail("field section is longer than it says or than allowed")

    def _lines(self, section: bytes) -> FieldLines:
        """Return the lines of a whole section: a generator for each number of it would cost more than all the rest."""
        lines: list[tuple[str, str]] = []
        at, stop = 0, len(section)
        while at < stop:
            name, at = self._string(section, at, MAX_NAME_BYTES, "field name")
            value, at = self._string(section, at, MAX_VALUE_BYTES, "field value")
            fault = line_fault(name, value)
            if fault is not None:
                self._fail(fault)
            lines.append((name, value))
            if len(lines) > MAX_LINES:
                self._fail("field section is longer than it says or than allowed")
        return tuple(lines)

    def _string(self, section: bytes, at: int, cap: int, what: str) -> tuple[str, int]:
        """Return the string that begins at ``at``, and where it ends."""
        if at >= len(section):
            self._fail("field section is longer than it says or than allowed")
        first = section[at]
        start = at + (1 << (first >> 6))  # RFC 9000 section 16
        size = first
        if first >= _ONE_BYTE:
            size = int.from_bytes(section[at:start], "big") & ((1 << (8 * (start - at) - 2)) - 1)
        end = start + size
        if size > cap:
            self._fail(f"{what} of {size} bytes, want at most {cap}")
        if end > len(section):
            self._fail("field section is longer than it says or than allowed")
        return section[start:end].decode("latin-1"), end

    def _known_content(self) -> Generator[None, None, int]:
        if (yield from self._finished()):
            return 0
        size = yield from self._bounded(self._max_body, "content")
        yield from self._data(size)
        return size

    def _chunked_content(self) -> Generator[None, None, int]:
        if (yield from self._finished()):
            return 0
        total = 0
        for _ in range(MAX_CONTENT_CHUNKS + 1):
            size = yield from self._bounded(self._max_body - total, "content chunk")
            if size == 0:
                return total
            yield from self._data(size)
            total += size
        self._fail(f"more than {MAX_CONTENT_CHUNKS} content chunks")

    def _data(self, size: int) -> Generator[None, None, None]:
        while size:
            if not self._there() and not self._ended:
                yield
                continue
            piece = yield from self._take(min(size, self._there() or size))
            self._content.append(piece)
            size -= len(piece)

    def _padding(self) -> Generator[None, None, None]:
        while not (yield from self._finished()):
            padding = self._view[self._at :]
            if padding != bytes(len(padding)):
                self._fail("padding is not zero")
            self._at += len(padding)

    def _finished(self) -> Generator[None, None, bool]:
        """Tell whether the message ends here; waits until that can be told."""
        while not self._there() and not self._ended:
            yield
        return not self._there()

    def _there(self) -> int:
        """Return how many bytes are there and not taken."""
        return len(self._view) - self._at

    def _take(self, size: int) -> Generator[None, None, bytes]:
        at = self._at
        while len(self._view) - at < size:
            if self._ended:
                self._fail(f"cut at byte {self._taken + self._there()}")
            yield
            at = self._at
        part = bytes(self._view[at : at + size])
        self._at = at + size
        self._taken += size
        return part

    def _varint(self) -> Generator[None, None, int]:
        """Read a QUIC integer in any of its lengths (RFC 9000 section 16)."""
        first = (yield from self._take(1))[0]
        if first < _ONE_BYTE:
            return first
        rest = yield from self._take((1 << (first >> 6)) - 1)
        return int.from_bytes(bytes((first & 0x3F,)) + rest, "big")

    def _bounded(self, cap: int, what: str) -> Generator[None, None, int]:
        size = yield from self._varint()
        if size > cap:
            self._fail(f"{what} of {size} bytes, want at most {cap}")
        return size

    def _text(self, cap: int, what: str) -> Generator[None, None, str]:
        size = yield from self._bounded(cap, what)
        return (yield from self._take(size)).decode("latin-1")


class RequestReader:
    """Reads one request: ``RequestHead``, any number of ``Data``, ``End``."""

    __slots__ = ("_grammar",)

    def __init__(self, *, max_body_bytes: int = DEFAULT_MAX_BODY_BYTES) -> None:
        """Start at the framing indicator."""
        self._grammar = _Grammar(is_request=True, max_body_bytes=max_body_bytes)

    def feed(self, data: bytes) -> list[Event]:
        """Take what arrived and return what it completes. Raises ``Malformed``, then for ever."""
        return self._grammar.feed(data)

    def end(self) -> list[Event]:
        """Say that nothing follows. Returns the last events, ``End`` last. Raises ``Malformed``."""
        return self._grammar.end()


class ResponseReader:
    """Reads one response: ``Informational`` ones, ``ResponseHead``, any number of ``Data``, ``End``."""

    __slots__ = ("_grammar",)

    def __init__(self, *, max_body_bytes: int = DEFAULT_MAX_BODY_BYTES) -> None:
        """Start at the framing indicator."""
        self._grammar = _Grammar(is_request=False, max_body_bytes=max_body_bytes)

    def feed(self, data: bytes) -> list[Event]:
        """Take what arrived and return what it completes. Raises ``Malformed``, then for ever."""
        return self._grammar.feed(data)

    def end(self) -> list[Event]:
        """Say that nothing follows. Returns the last events, ``End`` last. Raises ``Malformed``."""
        return self._grammar.end()
