"""Who somebody is, proven (docs/spec/identity.md): bytes that a caller brings, to an ``Identity``, to what it may be.

    identity     who was proven: issuer, subject, claims that a rule asks about, end, confirmation
    rules        which identity is what: role, loan, consumer
    issuer       whose word counts, and under which conditions
    issuers      issuers with their keys; the one that a token or a certificate is from
    bearer       JWT bearers (RFC 8725, RFC 9068): OpenID Connect, Kubernetes, SPIFFE JWT-SVIDs
    certificate  client certificates and SPIFFE X.509-SVIDs
    discovery    where an issuer's keys are (RFC 8414), read and not fetched
    spiffe       SPIFFE ids and trust bundles
    callers      what was proven already, remembered until it ends

The order is always the same: whose word is it, is it signed with a key of theirs, is it in time, is it for us, and only
then what it says. Pure: keys are fetched elsewhere, and ``now`` is told.

Not done here: what a role may do, revocation of a single token or certificate before its end.
"""

from __future__ import annotations

from cloister.identity.bearer import verify_bearer
from cloister.identity.callers import Caller, Callers
from cloister.identity.certificate import verify_client_certificate
from cloister.identity.identity import Confirmation, Identity, IdentityKind
from cloister.identity.issuer import Issuer, IssuerKind
from cloister.identity.issuers import Issuers, Keys, Trusted, parse_keys
from cloister.identity.rules import Grants, Rule, grants_of

__all__ = [
    "Caller",
    "Callers",
    "Confirmation",
    "Grants",
    "Identity",
    "IdentityKind",
    "Issuer",
    "IssuerKind",
    "Issuers",
    "Keys",
    "Rule",
    "Trusted",
    "grants_of",
    "parse_keys",
    "verify_bearer",
    "verify_client_certificate",
]
