"""Every bound of the proxy, with its unit."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much and how long. Those who come are programs of one user, and one of them may be broken."""

    max_connections: int = 128
    max_exchanges: int = 64  # requests under way at once; the next are told to come back
    max_head_bytes: int = 32 * 1024  # bytes of a request's line and header fields
    max_request_bytes: int = 64 << 20  # bytes of a request's body
    max_response_bytes: int = 80 << 20  # bytes of an encapsulated answer
    max_waiting_bytes: int = 512 << 20  # bytes of all bodies that are still coming
    patience_s: int = 20  # until a head has come
    body_timeout_s: int = 60  # until a body has come
    send_timeout_s: int = 60  # until an answer was taken
