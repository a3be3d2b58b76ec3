"""One exchange over pinned TLS: what ``Exchange`` is for encapsulated requests, with nothing to seal or open.

The connection is the encryption; what is a trailer of an encapsulated answer stands in the header here. Whole is an
answer whose ``content-length`` has come to the last byte (docs/spec/channel.md, 9).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from cloister.channel.bhttp_reader import Data, End, ResponseHead
from cloister.channel.ohttp import DEFAULT_MAX_MESSAGE_BYTES
from cloister.client.exchange import TruncatedResponse
from cloister.client.plan import Open
from cloister.errors import Malformed, Rejected, UsageError

if TYPE_CHECKING:
    from cloister.channel.bhttp import BinaryRequest
    from cloister.channel.fields import FieldLines
    from cloister.client.plan import Head
    from cloister.client.trust import VerifiedEnclave

__all__ = ["DirectExchange", "open_direct"]

_Piece: TypeAlias = "ResponseHead | Data"
_TRAILERS = frozenset({"cloister-receipt", "cloister-request-salt", "cloister-response-salt", "cloister-ticket"})
_OF_THE_CONNECTION = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "date",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "server",
        "te",
        "transfer-encoding",
        "upgrade",
    }
)
_WITHOUT_CONTENT = frozenset({204, 304})
_MAX_DIGITS = 16


def open_direct(enclave: VerifiedEnclave, request: BinaryRequest, *, hybrid: bool) -> Open:
    """Return the step that sends ``request`` on a connection under one of the attested keys, and on no other."""
    kept = tuple(line for line in request.headers if line[0].lower() not in _OF_THE_CONNECTION)
    return Open(
        method=request.method,
        url=enclave.url + request.path,
        headers=(*kept, ("accept-encoding", "identity")),  # compression inside encryption leaks what it compresses
        body=request.body,
        keys=enclave.keyset.tls_spki_sha256,
        hybrid=hybrid,
    )


class DirectExchange:
    """One open answer. ``feed`` what arrives, ``end`` when the body is over."""

    __slots__ = ("_head", "_kept", "_left", "_trailers", "enclave", "ended")

    def __init__(
        self,
        enclave: VerifiedEnclave,
        head: Head,
        *,
        method: str,
        max_response_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    ) -> None:
        """Take the head of an answer to ``method``. Raises ``Malformed`` without a length, ``Rejected`` (too_large)."""
        lines = head.lines
        self.enclave = enclave
        self.ended = False
        self._head: ResponseHead | None = ResponseHead(
            status=head.status,
            headers=tuple(line for line in lines if line[0] not in _TRAILERS and line[0] not in _OF_THE_CONNECTION),
        )
        self._trailers = tuple(line for line in lines if line[0] in _TRAILERS)
        self._kept: list[Data] = []
        empty = method == "HEAD" or head.status in _WITHOUT_CONTENT
        self._left = 0 if empty else _length(lines)
        if self._left > max_response_bytes:
            raise Rejected.because("too_large", "response", got=str(self._left), want=f"at most {max_response_bytes}")

    def keep(self, data: bytes) -> None:
        """Take a piece that was read ahead; the next ``feed`` or ``end`` returns it."""
        self._kept += self._taken(data)

    def feed(self, data: bytes) -> list[_Piece]:
        """Return the head, the first time, and the content that is there. Raises ``Malformed`` for too much of it."""
        return [*self._early(), *self._taken(data)]

    def end(self) -> tuple[list[_Piece], End]:
        """Return what was not returned yet, and the end. Raises ``TruncatedResponse`` for a cut answer."""
        if self.ended:
            msg = "exchange: used after its end"
            raise UsageError(msg)
        self.ended = True
        if self._left:
            raise TruncatedResponse
        return self._early(), End(trailers=self._trailers)

    def _early(self) -> list[_Piece]:
        head, kept = self._head, self._kept
        self._head, self._kept = None, []
        return [*kept] if head is None else [head, *kept]

    def _taken(self, data: bytes) -> list[Data]:
        self._left -= len(data)
        if self._left < 0:
            msg = "response: longer than its content-length"
            raise Malformed(msg)
        return [Data(data=data)] if data else []


def _length(lines: FieldLines) -> int:
    values = [value for name, value in lines if name == "content-length"]
    if len(values) != 1 or not (values[0].isascii() and values[0].isdigit() and len(values[0]) <= _MAX_DIGITS):
        msg = "response: want one content-length"
        raise Malformed(msg)
    return int(values[0])
