"""Who was proven to call. Made by the verifiers of this room (``bearer``, ``certificate``) and by nobody else.

An identity is an issuer's name and a subject of that issuer's: the same subject of another issuer is somebody else.
``id`` names both in one short word that can be logged; it holds no name, but whoever guesses the name can compute it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from cloister.errors import Rejected
from cloister.wire import lp

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cloister.attest.rats import ClaimValue

__all__ = ["ID_PREFIX", "MAX_SUBJECT_CHARS", "Confirmation", "Identity", "IdentityKind", "verify_confirmation"]

MAX_SUBJECT_CHARS = 2048  # characters: a SPIFFE id may have as many
_ID_LABEL = b"cloister/identity/id"
_ID_BYTES = 16
ID_PREFIX = "idn-"


class IdentityKind(Enum):
    """By what somebody was proven to be who they are."""

    OIDC = "oidc"
    KUBERNETES = "kubernetes"
    JWT_SVID = "jwt-svid"
    X509_SVID = "x509-svid"
    CERTIFICATE = "certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """What a bearer has to hold beside the token (RFC 7800): a certificate (RFC 8705) or a key (RFC 9449)."""

    certificate_sha256: bytes | None = None
    key_thumbprint: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Somebody, proven until ``expires_at``.

    ``claims`` are those that a rule of the issuer asks about, by their JSON pointer, and no others. ``confirmation``
    is what is still to be proven of whoever brought it (``verify_confirmation``); None where nothing is.
    """

    kind: IdentityKind
    issuer: str
    subject: str
    claims: Mapping[str, ClaimValue]
    expires_at: datetime
    confirmation: Confirmation | None = None

    @property
    def id(self) -> str:
        """A stable name for logs: ``idn-`` and 32 hexadecimal digits over issuer and subject."""
        digest = hashlib.sha256(_ID_LABEL + lp(self.issuer.encode(), self.subject.encode())).digest()
        return ID_PREFIX + digest[:_ID_BYTES].hex()


def verify_confirmation(
    identity: Identity, *, certificate_sha256: bytes | None = None, key_thumbprint: bytes | None = None
) -> None:
    """Prove that the caller holds what the token is bound to; a token bound to nothing needs nothing.

    ``certificate_sha256`` is of the client certificate of the connection, ``key_thumbprint`` (RFC 7638) of a key whose
    possession was proven for this call; None where the caller proved none. Raises ``Rejected``
    (``confirmation_missing``, ``confirmation_mismatch``).
    """
    want = identity.confirmation
    if want is None:
        return
    pairs = (
        ("client certificate", certificate_sha256, want.certificate_sha256),
        ("key", key_thumbprint, want.key_thumbprint),
    )
    for subject, got, bound in pairs:
        if bound is None or got == bound:
            continue
        code = "confirmation_missing" if got is None else "confirmation_mismatch"
        raise Rejected.because(code, subject, hint="the token is good only together with what it is bound to")
