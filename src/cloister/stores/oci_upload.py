"""One blob into a registry, in chunks (distribution-spec 1.1, "Pushing a blob in chunks").

After a break the registry is asked how much it has: the chunk, which then counts, or what came before it, and the
chunk is sent again. Registries that forget an upload when a connection breaks (distribution 2 does) get the blob from
its start. The registry tells with each answer where to go next; it has to be on the same host.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from cloister.errors import Unavailable
from cloister.stores.ranges import refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from cloister.stores.link import Answer
    from cloister.stores.part import Part
    from cloister.stores.patience import Patience
    from cloister.stores.place import ModelUrl

__all__ = ["CHUNK_BYTES", "Upload"]

CHUNK_BYTES = 16 << 20
_CREATED, _ACCEPTED, _NO_CONTENT = 201, 202, 204
_LOST = frozenset({404, 416})  # no such upload any more; another range than the next
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,16})", re.ASCII)
_OCTETS = {"content-type": "application/octet-stream"}


class _LostError(Exception):
    """The registry forgot the upload."""


class Exchange(Protocol):
    """An exchange with the registry, as ``Link.exchange``, credentials included."""

    def __call__(
        self, method: str, target: str, headers: Mapping[str, str], *, deadline: float, body: bytes | None = None
    ) -> AbstractContextManager[Answer]:
        """Send a request and yield the answer."""
        ...


class Upload:
    """Uploads one part."""

    def __init__(self, exchange: Exchange, host: ModelUrl, patience: Patience, subject: str) -> None:
        """Send nothing yet."""
        self._exchange = exchange
        self._host = host
        self._patience = patience
        self._subject = subject
        self._target = ""

    def write(self, target: str, part: Part, digest: str) -> None:
        """Begin at ``target``, send ``part``, end with ``digest``, which they compare. Raises ``Unavailable``."""
        for left in range(self._patience.tries - 1, -1, -1):
            try:
                return self._from_start(target, part, digest)
            except _LostError as exc:
                if not left:
                    msg = f"{self._subject}: the registry forgets what was sent, {self._patience.tries} times"
                    raise Unavailable(msg) from exc
        return None

    def _from_start(self, target: str, part: Part, digest: str) -> None:
        self._patience.insist(self._subject, lambda deadline: self._step("POST", target, _ACCEPTED, deadline=deadline))
        at = 0
        for chunk in _chunks(part.read()):
            self._send(at, chunk)
            at += len(chunk)
        mark = "&" if "?" in self._target else "?"
        last = f"{self._target}{mark}digest={digest}"
        self._patience.insist(self._subject, lambda deadline: self._step("PUT", last, _CREATED, deadline=deadline))

    def _send(self, at: int, chunk: bytes) -> None:
        tried = False

        def work(deadline: float) -> None:
            nonlocal tried
            if tried:
                there = self._has(deadline)
                if there == at + len(chunk):
                    return
                if there != at:
                    raise _LostError
            tried = True
            place = {"content-range": f"{at}-{at + len(chunk) - 1}"}
            self._step("PATCH", self._target, _ACCEPTED, deadline=deadline, body=chunk, more=place)

        self._patience.insist(self._subject, work)

    def _has(self, deadline: float) -> int:
        """Return how many bytes the registry has of this upload."""
        with self._exchange("GET", self._target, {}, deadline=deadline) as answer:
            if answer.status in _LOST:
                raise _LostError
            if answer.status != _NO_CONTENT:
                raise refused(answer, self._subject)
            found = _RANGE.fullmatch(answer.header("range") or "")
            self._follow(answer)
        return int(found[1]) + 1 if found and found[1] != "0" else 0

    def _step(
        self,
        method: str,
        target: str,
        want: int,
        *,
        deadline: float,
        body: bytes = b"",
        more: Mapping[str, str] | None = None,
    ) -> None:
        headers = {**_OCTETS, "content-length": str(len(body)), **(more or {})}
        with self._exchange(method, target, headers, deadline=deadline, body=body) as answer:
            if answer.status in _LOST and method != "POST":
                raise _LostError
            if answer.status != want:
                raise refused(answer, self._subject)
            if want == _ACCEPTED:
                self._follow(answer)

    def _follow(self, answer: Answer) -> None:
        """Remember where to go next. Raises ``Unavailable`` where that is another host."""
        location = answer.header("location") or ""
        parts = urlsplit(location) if location.isascii() and location.isprintable() else urlsplit("")
        theirs = (parts.scheme, parts.netloc.lower())
        if not parts.path.startswith("/") or theirs not in {("", ""), (self._host.scheme, self._host.netloc)}:
            msg = f"{self._subject}: the registry wants it to be sent elsewhere"
            raise Unavailable(msg)
        self._target = parts.path + (f"?{parts.query}" if parts.query else "")


def _chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what ``pieces`` yields in chunks of ``CHUNK_BYTES``, the last one shorter."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= CHUNK_BYTES:
            yield bytes(held[:CHUNK_BYTES])
            del held[:CHUNK_BYTES]
    if held:
        yield bytes(held)
