"""Idempotent requests: the same id and bytes again cost nothing and get the same reply (30-metering, Charging).

Lives in enclave memory, one scope per consumer. Bounded in entries and bytes; the oldest finished
reply is dropped first, so a retry after that is a new request and is charged again. A restart forgets
everything: the new instance has other keys, so an old ciphertext does not open there anyway.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from cloister.errors import Rejected, Unavailable, UsageError

__all__ = ["MAX_REQUEST_ID_CHARS", "Replies", "RequestKey"]

MAX_REQUEST_ID_CHARS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKey:
    """Who asked, under which id: ids of different consumers never meet."""

    consumer: str | None
    request_id: str


@dataclass(slots=True)
class _Entry:
    digest: bytes
    reply: bytes | None = None


class Replies:
    """Remembers replies by consumer and request id.

    ``begin`` either returns the reply that was given before, or marks the request as running; then
    exactly one of ``finish`` and ``forget`` follows.
    """

    __slots__ = ("_bytes", "_entries", "_max_bytes", "_max_entries")

    def __init__(self, *, max_entries: int = 4096, max_bytes: int = 64 << 20) -> None:
        """Hold at most ``max_entries`` requests and ``max_bytes`` bytes of replies."""
        self._entries: OrderedDict[RequestKey, _Entry] = OrderedDict()
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._bytes = 0

    def begin(self, key: RequestKey, digest: bytes) -> bytes | None:
        """Return the stored reply, or None and remember that ``key`` runs now.

        ``digest`` is SHA-256 over the request. Raises ``Rejected``: ``request_id_reused`` for another
        digest under this id, ``request_in_flight`` while the first is running, ``request_id_too_long``;
        ``Unavailable`` when everything remembered is still running.
        """
        if not 1 <= len(key.request_id) <= MAX_REQUEST_ID_CHARS:
            want = f"1 to {MAX_REQUEST_ID_CHARS} characters"
            raise Rejected.because("request_id_too_long", "request id", got=str(len(key.request_id)), want=want)
        entry = self._entries.get(key)
        if entry is None:
            self._make_room(entries=1, size=0)
            self._entries[key] = _Entry(digest)
            return None
        if entry.digest != digest:
            # No digest of the first: a loan that is open to anybody has one scope, and inputs can be guessed.
            raise Rejected.because("request_id_reused", "request id", got="another request", want="the same bytes")
        if entry.reply is None:
            raise Rejected.because("request_in_flight", "request id", hint="wait for the first answer")
        return entry.reply

    def finish(self, key: RequestKey, reply: bytes) -> None:
        """Remember ``reply``. One that is larger than the whole cache is forgotten at once."""
        entry = self._running(key)
        if len(reply) > self._max_bytes:
            del self._entries[key]
            return
        self._make_room(entries=0, size=len(reply))
        entry.reply = reply
        self._bytes += len(reply)
        self._entries.move_to_end(key)

    def forget(self, key: RequestKey) -> None:
        """Drop a running request that failed and cost nothing, so that it may be tried again."""
        self._running(key)
        del self._entries[key]

    def _running(self, key: RequestKey) -> _Entry:
        entry = self._entries.get(key)
        if entry is None or entry.reply is not None:
            msg = "request id: not running"
            raise UsageError(msg)
        return entry

    def _make_room(self, *, entries: int, size: int) -> None:
        while len(self._entries) + entries > self._max_entries or self._bytes + size > self._max_bytes:
            oldest = next((key for key, entry in self._entries.items() if entry.reply is not None), None)
            if oldest is None:
                msg = "idempotency cache: full of running requests"
                raise Unavailable(msg, retry_after_s=1)
            self._bytes -= len(self._entries.pop(oldest).reply or b"")
