"""Who a certificate is for: a SPIFFE ID in the custodian's trust domain, and nothing else (docs/spec/certificates.md).

One URI of one form for each kind of peer. Another spelling of the same name is not that name: nothing is
normalised, for what is compared is what was issued.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from cloister.errors import Malformed
from cloister.lending.terms import LOAN_ID

__all__ = ["HOSTS", "TRUST_DOMAIN", "PeerKind", "PeerName"]

TRUST_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,118}[a-z0-9])?")
_SCHEME = "spiffe://"
_INSTANCE = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_OPERATOR = re.compile(r"[a-z]{1,16}/tok-[0-9a-f]{16}")


class PeerKind(StrEnum):
    """What a peer is: the first segment of its name."""

    ENCLAVE = "enclave"
    BORROWER = "borrower"
    RELAY = "relay"
    PROXY = "proxy"
    OPERATOR = "operator"


HOSTS = frozenset({PeerKind.RELAY, PeerKind.PROXY})
"""Peers that are no party: hosts in the custodian's service."""

_FORMS = {
    PeerKind.ENCLAVE: _INSTANCE,
    PeerKind.BORROWER: LOAN_ID,
    PeerKind.RELAY: _NAME,
    PeerKind.PROXY: _NAME,
    PeerKind.OPERATOR: _OPERATOR,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerName:
    """One peer: ``name`` is an instance id, a loan id, a host's name, or an operator's role and token id."""

    domain: str
    kind: PeerKind
    name: str

    @property
    def label(self) -> str:
        """The name within the domain, as the audit log has it."""
        return f"{self.kind.value}/{self.name}"

    @property
    def uri(self) -> str:
        """The SPIFFE ID."""
        return f"{_SCHEME}{self.domain}/{self.label}"

    @classmethod
    def of(cls, domain: str, kind: PeerKind, name: str) -> PeerName:
        """Return the name of a peer. Raises ``Malformed`` for one that is not of its kind's form."""
        if not TRUST_DOMAIN.fullmatch(domain) or not _FORMS[kind].fullmatch(name):
            msg = f"peer name: no name of a {kind.value}"
            raise Malformed(msg)
        return cls(domain=domain, kind=kind, name=name)

    @classmethod
    def parse(cls, uri: str) -> PeerName:
        """Return the name that a SPIFFE ID spells. Raises ``Malformed``."""
        domain, slash, path = uri.removeprefix(_SCHEME).partition("/")
        kind, _, name = path.partition("/")
        if not uri.startswith(_SCHEME) or not slash or kind not in {item.value for item in PeerKind}:
            msg = "peer name: want spiffe://domain/kind/name"
            raise Malformed(msg)
        return cls.of(domain, PeerKind(kind), name)
