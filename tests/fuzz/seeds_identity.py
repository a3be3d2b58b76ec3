"""Targets of coverage-guided fuzzing for who callers are, and honest inputs to start from."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING

from identity_kit import ISSUER, NOW, Authority, Cluster, Domain, Provider, dns, uri

from cloister.identity import Issuer, Issuers, Trusted, parse_keys, verify_bearer, verify_client_certificate
from cloister.identity.discovery import parse_discovery
from cloister.identity.issuer import IssuerKind

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TARGETS"]


@cache
def party() -> tuple[Provider, Cluster, Domain, Authority]:
    """Return one issuer of each kind, made when first asked for."""
    return Provider(), Cluster(), Domain(), Authority()


@cache
def trusted() -> Issuers:
    """Return them as they are trusted."""

    def one(document: object) -> Trusted:
        issuer = Issuer.parse(json.dumps(document).encode())
        return Trusted(issuer=issuer, keys=parse_keys(issuer.kind, issuer.keys or b""))

    return Issuers(one(item.document()) for item in party())


TARGETS: dict[str, tuple[Callable[[bytes], object], Callable[[], list[bytes]]]] = {
    "identity-bearer": (
        lambda data: verify_bearer(data, trusted(), NOW),
        lambda: [item.token() for item in party() if not isinstance(item, Authority)],
    ),
    "identity-bundle": (
        lambda data: parse_keys(IssuerKind.SPIFFE, data),
        lambda: [json.dumps(party()[2].bundle()).encode()],
    ),
    "identity-claims": (
        lambda data: verify_bearer(party()[0].signed(data), trusted(), NOW),
        lambda: [json.dumps(item).encode() for item in (party()[0].claims(), party()[0].claims(cnf={"jkt": "A" * 43}))],
    ),
    "identity-certificate": (
        lambda data: verify_client_certificate([data], trusted(), NOW),
        lambda: [
            party()[3].client(dns("api.example"))[0],
            party()[2].authority.client(uri("spiffe://example.org/api"))[0],
        ],
    ),
    "identity-discovery": (
        lambda data: parse_discovery(data, issuer=ISSUER),
        lambda: [json.dumps({"issuer": ISSUER, "jwks_uri": ISSUER + "/keys"}).encode()],
    ),
    "identity-issuer": (Issuer.parse, lambda: [json.dumps(item.document()).encode() for item in party()]),
}
"""Name of a target: what reads the bytes (``Malformed`` and ``Rejected`` are no findings), and seeds for it."""
