"""Bearer tokens (RFC 6750): 256 random bits, stored only as their SHA-256.

A token names a role: ``admin``, ``lender``, ``auditor`` and ``viewer`` work for the custodian; ``borrower`` is
bound to one loan; ``operator`` keeps a host of several custodians and is known to the host alone. What each may do is
said by the routes alone (docs/reference/roles.md). A hash without salt is enough, for nobody guesses 256 random bits.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NewType

from cloister.errors import Rejected
from cloister.identity.identity import ID_PREFIX
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.lending.terms import LoanId

__all__ = [
    "TOKEN_ID_PREFIX",
    "Actor",
    "Role",
    "Shown",
    "TokenHash",
    "TokenId",
    "hash_token",
    "new_session_token",
    "new_token",
    "parse_authorization",
    "same_hash",
]

TokenId = NewType("TokenId", str)
TokenHash = NewType("TokenHash", bytes)

TOKEN_BYTES = 32
TOKEN_ID_PREFIX = "tok-"  # noqa: S105 - what names of tokens begin with
_PREFIX = "clst_"
_SESSION_PREFIX = "clss_"
_AUTHORIZATION = re.compile(r"(Bearer|DPoP) ([A-Za-z0-9_-]{16,128}|[A-Za-z0-9_-]+\.[A-Za-z0-9._-]+)", re.IGNORECASE)
_MAX_TOKEN_CHARS = 16 * 1024


class Role(Enum):
    """What a token may do; the routes say which role each needs."""

    ADMIN = "admin"
    LENDER = "lender"
    AUDITOR = "auditor"
    VIEWER = "viewer"
    BORROWER = "borrower"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who is calling, once proven. ``loan`` is set for a borrower and only for one.

    ``person`` is who answers for it, None where nobody is known: two tokens of one person are one person.
    ``session`` is the session that calls, None for a token itself; ``key`` the thumbprint of a key that was
    proven to be held for this call, and that session or identity is bound to, or a session asked for is to be;
    ``certified``: the certificate of the connection proves who calls, or is what the token is bound to.
    """

    id: str
    role: Role
    name: str
    loan: LoanId | None = None
    person: str | None = None
    session: str | None = None
    key: bytes | None = None
    certified: bool = False

    @property
    def is_fleeting(self) -> bool:
        """Tell whether what proved the caller ends in minutes and is bound to nothing: who steals it is the caller."""
        short = self.session is not None or self.id.startswith(ID_PREFIX)
        return short and self.key is None and not self.certified

    @property
    def is_token(self) -> bool:
        """Tell whether a token of ours stands behind it, which can be revoked."""
        return self.id.startswith(TOKEN_ID_PREFIX)

    @property
    def label(self) -> str:
        """The name under which the audit log knows this actor: role and token id, never the token."""
        return f"{self.role.value}:{self.id}"


SYSTEM = Actor(id="custodian", role=Role.ADMIN, name="custodian")
"""The custodian itself: sweeps, recovery, first start."""


def new_token(rng: Callable[[int], bytes]) -> str:
    """Return a fresh token. It is shown once and not stored."""
    return _PREFIX + dump_b64u(rng(TOKEN_BYTES))


def new_session_token(rng: Callable[[int], bytes]) -> str:
    """Return a fresh token of a session."""
    return _SESSION_PREFIX + dump_b64u(rng(TOKEN_BYTES))


def hash_token(token: str) -> TokenHash:
    """Return what is stored in a token's place."""
    return TokenHash(hashlib.sha256(token.encode("utf-8")).digest())


def same_hash(a: bytes, b: bytes) -> bool:
    """Compare in time that does not depend on where they differ."""
    return hmac.compare_digest(a, b)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The token in an Authorization header; ``bound`` where it came by the scheme for tokens that a key goes with.

    One with dots is a JWT of a site's own issuer; ours have none.
    """

    token: str = field(repr=False)
    bound: bool

    @property
    def is_jwt(self) -> bool:
        """Tell whether somebody else made it."""
        return "." in self.token

    @property
    def sha256(self) -> TokenHash:
        """What is stored of such a token."""
        return hash_token(self.token)


def parse_authorization(header: str | None) -> Shown:
    """Return the token in an Authorization header: RFC 6750, or RFC 9449 section 7.1.

    Raises ``Rejected`` (``unauthenticated``): a missing and a strange header get the same answer.
    """
    found = _AUTHORIZATION.fullmatch(header) if header and len(header) <= _MAX_TOKEN_CHARS else None
    if not found:
        raise Rejected.because("unauthenticated", "bearer token", hint="send Authorization: Bearer <token>")
    return Shown(token=found.group(2), bound=found.group(1).lower() == "dpop")
