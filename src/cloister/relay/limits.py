"""Every bound of the relay, with its unit."""

from __future__ import annotations

from dataclasses import dataclass

from cloister.serving.run import Bounds

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much and how long. Anybody may come: a relay knows no token and no consumer."""

    max_connections: int = 512
    max_exchanges: int = 128  # connections to the gateway at once; the next wait a little, then are told 503
    max_head_bytes: int = 16 * 1024  # bytes of a request's line and header fields
    max_request_bytes: int = 64 << 20  # bytes of an encapsulated request
    max_response_bytes: int = 96 << 20  # bytes of an encapsulated response or a keyset
    patience_s: int = 20  # seconds until a head has come
    body_timeout_s: int = 60  # seconds until a request's body has come
    gateway_timeout_s: int = 120  # seconds the gateway may be silent
    send_timeout_s: int = 60  # seconds a client may take to read one piece of an answer
    exchange_timeout_s: int = 900  # seconds an answer may take as a whole

    def bounds(self) -> Bounds:
        """Return those that the server itself keeps."""
        return Bounds(
            max_connections=self.max_connections,
            max_head_bytes=self.max_head_bytes,
            patience_s=self.patience_s,
            send_timeout_s=self.send_timeout_s,
        )
