"""What a caller shows of itself with one request, none of it proven yet."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Presented"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """The headers that say who calls, and the request that they came with.

    ``proof`` is the DPoP header (RFC 9449), which is for this method and path alone; ``certificates`` are those of the
    connection, DER, the client's first, whose key the handshake has proven.
    """

    authorization: str | None = field(repr=False)
    proof: str | None = field(default=None, repr=False)
    method: str = "GET"
    path: str = "/"
    certificates: tuple[bytes, ...] = ()
