"""The two ways into an enclave, and which of them a consumer takes.

Encapsulated requests (OHTTP) pass anybody unread, padded, under a post-quantum key exchange. Pinned TLS costs less for
each request, and shows sizes. Nobody on the way can move a consumer from one to a weaker other: whoever takes TLS away
is left with encapsulated requests.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from cloister.client.pinned_tls import can_demand_hybrid
from cloister.errors import Rejected, UsageError

if TYPE_CHECKING:
    from cloister.client.trust import VerifiedEnclave

__all__ = ["Way"]


class Way(StrEnum):
    """What a consumer wants; ``auto`` takes pinned TLS where that is as strong as encapsulated requests."""

    AUTO = "auto"
    PINNED = "pinned"
    OHTTP = "ohttp"

    @classmethod
    def of(cls, value: Way | str) -> Way:
        """Return the way of this name. Raises ``UsageError``."""
        try:
            return cls(value)
        except ValueError as exc:
            msg = f"way: {str(value)[:40]!r}, want {', '.join(cls)}"
            raise UsageError(msg) from exc

    @property
    def demands_hybrid(self) -> bool:
        """Whether pinned TLS is taken with the post-quantum key exchange only (T28)."""
        return self is Way.AUTO

    def with_certificate(self) -> Way:
        """Return the way of who shows a client certificate: pinned TLS, where it proves something to the enclave.

        Raises ``UsageError`` for encapsulated requests, which have no handshake with it.
        """
        if self is Way.OHTTP:
            msg = "way: a client certificate in an encapsulated request"
            raise UsageError(msg, hint="say pinned, or bring a token")
        return Way.PINNED

    def is_pinned(self, enclave: VerifiedEnclave) -> bool:
        """Decide between pinned TLS and OHTTP. Raises ``Rejected`` where pinned TLS is wanted and is not to be had."""
        match self:
            case Way.OHTTP:
                return False
            case Way.AUTO:
                return bool(enclave.tls_key) and can_demand_hybrid()
            case Way.PINNED:
                if enclave.tls_key:
                    return True
                raise Rejected.because(
                    "not_pinned",
                    "enclave",
                    got="no attested key on the connection",
                    want="TLS 1.3 under a key that the keyset lists",
                    hint="is it served with tls generated, with nobody ending tls before it? way ohttp needs neither",
                )
