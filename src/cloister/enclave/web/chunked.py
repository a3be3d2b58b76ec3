"""Chunked request bodies (RFC 9112 section 7.1), strictly: no extensions, no trailers, nothing lenient.

What another server in front might read differently is refused: that is what smuggling is made of (bad input 50).
"""

from __future__ import annotations

import re

from cloister.errors import Malformed

__all__ = ["ChunkedBody"]

_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")
_MAX_LINE_BYTES = 10  # bytes of a size and its CRLF
_MAX_CHUNKS = 65_536  # of one body: a byte each would cost more to take apart than to send


class ChunkedBody:
    """Takes bytes as they come; ``body`` grows, ``done`` tells when the last chunk was there."""

    def __init__(self) -> None:
        """Start before the first chunk."""
        self.body = bytearray()
        self.done = False
        self._waiting = bytearray()
        self._chunks = 0
        self._left = 0  # bytes of the chunk that is being read, its CRLF included

    def feed(self, data: bytes | bytearray | memoryview) -> bytes:
        """Take ``data`` and return what stands behind the body. Raises ``Malformed``."""
        self._waiting += data
        while not self.done and (self._take_data() if self._left else self._take_size()):
            pass
        if not self.done:
            return b""
        rest, self._waiting = bytes(self._waiting), bytearray()
        return rest

    def _take_size(self) -> bool:
        at = self._waiting.find(b"\r\n", 0, _MAX_LINE_BYTES)
        if at < 0:
            if len(self._waiting) >= _MAX_LINE_BYTES:
                raise Malformed(_BAD)
            return False
        if not _SIZE.fullmatch(self._waiting[:at]):
            raise Malformed(_BAD)
        size = int(self._waiting[:at], 16)
        if size:
            self._left = size + 2
            self._chunks += 1
            if self._chunks > _MAX_CHUNKS:
                raise Malformed(_BAD)
        else:
            if len(self._waiting) < at + 4:
                return False
            if self._waiting[at + 2 : at + 4] != b"\r\n":
                raise Malformed(_BAD)
            self.done = True
            at += 2
        del self._waiting[: at + 2]
        return True

    def _take_data(self) -> bool:
        """Move what is there of a chunk into the body, and drop the CRLF at its end."""
        data = self._left - 2
        if data > 0:
            taken = self._waiting[:data]
            self.body += taken
            del self._waiting[: len(taken)]
            self._left -= len(taken)
            if self._left > 2:  # noqa: PLR2004 - of the chunk, more than its CRLF is missing
                return False
        if len(self._waiting) < self._left:
            return False
        if self._waiting[:2] != b"\r\n":
            raise Malformed(_BAD)
        del self._waiting[:2]
        self._left = 0
        return True


_BAD = "http: a chunk that is none"
