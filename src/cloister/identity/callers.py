"""What was proven already, remembered until it ends: authorising a caller again costs a look-up in a dictionary.

The key is the SHA-256 of the token or certificates, so that memory holds no token. What is remembered was proven by the
issuers that are trusted now: other issuers or keys, and everything is proven anew. Refusals are not remembered:
strangers could fill the memory with them.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloister.identity.bearer import verify_bearer
from cloister.identity.certificate import verify_client_certificate
from cloister.identity.rules import Grants, grants_of
from cloister.wire import lp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from cloister.identity.identity import Identity
    from cloister.identity.issuers import Issuers

__all__ = ["Caller", "Callers"]

_CHAIN_LABEL = b"cloister/identity/chain"
MAX_REMEMBERED = 4096  # callers in memory, the one proven longest ago forgotten first


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody, proven, and what they are by the rules of their issuer."""

    identity: Identity
    grants: Grants


@dataclass(frozen=True, slots=True)
class _Proven:
    """Who was proven by ``issuers``, by the digest of the token, with the time it was done."""

    issuers: Issuers
    known: dict[bytes, tuple[datetime, Caller]] = field(default_factory=dict)


class Callers:
    """Proves callers and remembers them. May be used by several threads at once."""

    __slots__ = ("_capacity", "_lock", "_proven")

    def __init__(self, issuers: Issuers, *, capacity: int = MAX_REMEMBERED) -> None:
        """Remember nobody yet."""
        self._capacity = capacity
        self._lock = threading.Lock()
        self._proven = _Proven(issuers)

    @property
    def issuers(self) -> Issuers:
        """Who is trusted now."""
        return self._proven.issuers

    def trust(self, issuers: Issuers) -> None:
        """Trust these from now on, and forget who was proven by others."""
        self._proven = _Proven(issuers)

    def prove(self, token: bytes, now: datetime) -> Caller:
        """Return who brings the token, and what they are.

        Raises what ``verify_bearer`` and ``grants_of`` raise. What the token is bound to is still to be proven.
        """
        return self._remembered(hashlib.sha256(token).digest(), lambda issuers: verify_bearer(token, issuers, now), now)

    def prove_certificate(self, chain: Sequence[bytes], now: datetime) -> Caller:
        """Return whom the certificates of a connection name, the client's first (DER), and what they are.

        Raises what ``verify_client_certificate`` and ``grants_of`` raise.
        """
        digest = hashlib.sha256(_CHAIN_LABEL + lp(*chain)).digest()
        return self._remembered(digest, lambda issuers: verify_client_certificate(chain, issuers, now), now)

    def _remembered(self, digest: bytes, verify: Callable[[Issuers], Identity], now: datetime) -> Caller:
        proven = self._proven  # one value throughout, whatever another thread trusts meanwhile
        found = proven.known.get(digest)
        if found is not None and found[0] <= now < found[1].identity.expires_at:
            return found[1]
        identity = verify(proven.issuers)
        rules = proven.issuers.of_identity(identity).issuer.rules
        caller = Caller(identity=identity, grants=grants_of(identity, rules))
        with self._lock:
            while len(proven.known) >= self._capacity:
                del proven.known[next(iter(proven.known))]
            proven.known[digest] = (now, caller)
        return caller
