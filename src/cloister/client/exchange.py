"""One encapsulated exchange with a verified enclave, sans-io: a request in, bytes out; bytes in, events out.

The request is sealed to the key of a ``VerifiedEnclave`` and to nothing else, so there is no way to send
anything to an unverified one. Not done here: HTTP (``wire``), what the messages mean (``inference``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from cloister.channel.bhttp_reader import Data, End, ResponseHead, ResponseReader
from cloister.channel.keyset import CHUNKED_REQUEST_TYPE, CHUNKED_RESPONSE_TYPE
from cloister.channel.ohttp import DEFAULT_MAX_MESSAGE_BYTES, RequestSealer
from cloister.channel.replay import dump_http_date
from cloister.errors import Malformed, Reason, Rejected, UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.channel.bhttp import BinaryRequest
    from cloister.channel.bhttp_reader import Event
    from cloister.channel.fields import FieldLines
    from cloister.client.trust import VerifiedEnclave

__all__ = ["OUTER_HEADERS", "Answer", "Exchange", "TruncatedResponse"]

OUTER_HEADERS: FieldLines = (
    ("accept", CHUNKED_RESPONSE_TYPE),
    ("accept-encoding", "identity"),  # nothing to gain: ciphertext does not compress
    ("cache-control", "no-store"),
    ("content-type", CHUNKED_REQUEST_TYPE),
    ("incremental", "?1"),
)
"""The same for every request: outer fields say nothing about what is inside (T64)."""

_Piece: TypeAlias = "ResponseHead | Data"


class TruncatedResponse(Rejected):
    """The answer ended without its final chunk: it was cut, and nothing that came before counts (T58)."""

    def __init__(self) -> None:
        """Say so; there is nothing to tell apart."""
        reason = Reason(code="truncated", subject="response", want="a final chunk")
        super().__init__(str(reason), reasons=(reason,), hint="ask again; an Idempotency-Key makes that free")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole inner response. Field names are lower case."""

    status: int
    headers: FieldLines
    body: bytes = field(repr=False)
    trailers: FieldLines


class Exchange:
    """One request and its response. ``feed`` what arrives, ``end`` when the outer body is over."""

    __slots__ = ("_opener", "_reader", "body", "enclave", "ended")

    def __init__(
        self,
        enclave: VerifiedEnclave,
        request: BinaryRequest,
        *,
        now: datetime,
        max_response_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    ) -> None:
        """Seal ``request``, dated ``now``. Raises ``Malformed`` for an attested key that is no key."""
        dated = replace(request, headers=(*request.headers, ("date", dump_http_date(now))))
        sealer = RequestSealer(enclave.config, enclave.suite)
        self.enclave = enclave
        self.body = sealer.seal_message(dated.dump())
        self._opener = sealer.response_opener(max_bytes=max_response_bytes)
        self._reader = ResponseReader(max_body_bytes=max_response_bytes)
        self.ended = False

    def feed(self, data: bytes) -> list[_Piece]:
        """Return the head and pieces of the body that are there now: authentic, but maybe not all.

        Raises ``Rejected`` (``decryption_failed``, ``too_large``) and ``Malformed``.
        """
        chunks = self._opener.feed(data)
        return _pieces(self._reader.feed(b"".join(chunks))) if chunks else []

    def end(self) -> tuple[list[_Piece], End]:
        """Return what the final chunk brought, and the end, which proves that the response is whole.

        Raises ``TruncatedResponse`` where the final chunk is missing; else as ``feed``.
        """
        if self.ended:
            msg = "exchange: used after its end"
            raise UsageError(msg)
        self.ended = True
        try:
            events = self._reader.feed(self._opener.end())
        except Rejected as exc:
            # A cut inside the final chunk, whose length the stream's end tells, looks like damage to it.
            if exc.code in {"truncated", "decryption_failed"}:
                raise TruncatedResponse from exc
            raise
        closing = self._reader.end()
        end = next((event for event in closing if isinstance(event, End)), None)
        if end is None:
            msg = "binary response: no end"
            raise Malformed(msg)
        return _pieces([*events, *closing]), end


def _pieces(events: list[Event]) -> list[_Piece]:
    """Leave out interim responses (1xx), which say nothing here, and the end, which ``end`` returns."""
    return [event for event in events if isinstance(event, ResponseHead | Data)]
