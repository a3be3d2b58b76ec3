"""Client certificates: whom one names, proven (RFC 5280, RFC 9525, X509-SVID).

A certificate with a SPIFFE id of a trust domain that is known is an X.509-SVID and goes by that domain's bundle alone;
any other goes by the authorities of a site's own. That the caller holds its key, the TLS handshake has proven.

Not done here: revocation: certificates that get short lives need none. Name constraints: a path with some is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from cloister.attest.chain import MAX_CHAIN, Certificate, verify_chain
from cloister.errors import Malformed, Rejected
from cloister.identity.identity import MAX_SUBJECT_CHARS, Identity, IdentityKind
from cloister.identity.issuer import IssuerKind
from cloister.identity.rules import take_claims
from cloister.identity.spiffe import parse_spiffe_id, prefixes
from cloister.wire import STEERING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cloister.identity.issuers import Issuers, Trusted
    from cloister.wire import Json

__all__ = ["verify_client_certificate"]

T = TypeVar("T", bound=x509.ExtensionType)

_MAX_NAMES = 64  # alternative names of one certificate


def verify_client_certificate(chain: Sequence[bytes], issuers: Issuers, now: datetime) -> Identity:
    """Prove that a trusted authority vouches, now, for the names in the first certificate (DER); return who it is.

    The others are authorities below the root, in any order. Raises ``Malformed``; ``Rejected``: those of
    ``verify_chain``, ``issuer_unknown``, ``name_missing``, ``usage_not_allowed``.
    """
    # 1. Every certificate parses.
    if not 0 < len(chain) <= MAX_CHAIN + 1:
        msg = f"client certificate: {len(chain)} certificates, want 1 to {MAX_CHAIN + 1}"
        raise Malformed(msg)
    leaf, *between = (Certificate.parse(der) for der in chain)
    names = _names(leaf)
    # 2. Whose it is: of the trust domain that its id names, or of an authority of the site's own.
    domain = _domain(names, issuers)
    candidates = issuers.authorities() if domain is None else (domain,)
    trusted, path = _path(leaf, between, candidates, now)
    # 3. It is a client's, and nobody above it is limited in a way we do not look at.
    _verify_usage(leaf, spiffe=domain is not None)
    for item in path:
        if _extension(item, x509.NameConstraints) is not None:
            raise Rejected.because("chain_invalid", item.shown, got="name constraints", want="none")
    # 4. Who it names.
    ends = min(item.x509.not_valid_after_utc for item in path)
    subject = _subject(names, spiffe=domain is not None)
    return Identity(
        kind=IdentityKind.CERTIFICATE if domain is None else IdentityKind.X509_SVID,
        issuer=trusted.issuer.name,
        subject=subject,
        claims=take_claims(_claims(names, subject, spiffe=domain is not None), trusted.issuer.rules),
        expires_at=ends,
        confirmation=None,
    )


def _names(leaf: Certificate) -> Mapping[str, list[str]]:
    """Return the alternative names by kind: URIs, e-mail addresses, hosts (RFC 5280 section 4.2.1.6)."""
    names: dict[str, list[str]] = {"uri": [], "email": [], "dns": []}
    kinds = {x509.UniformResourceIdentifier: "uri", x509.RFC822Name: "email", x509.DNSName: "dns"}
    for item in _extension(leaf, x509.SubjectAlternativeName) or ():
        kind = kinds.get(type(item))
        if kind is None:
            continue
        text = str(item.value)
        if not text or len(text) > MAX_SUBJECT_CHARS or STEERING.search(text):
            msg = "client certificate: an alternative name out of form"
            raise Malformed(msg)
        names[kind].append(text)
    if sum(len(found) for found in names.values()) > _MAX_NAMES:
        msg = f"client certificate: more than {_MAX_NAMES} alternative names"
        raise Malformed(msg)
    return names


def _domain(names: Mapping[str, list[str]], issuers: Issuers) -> Trusted | None:
    """Return the known trust domain that the certificate's id names, None where it names none."""
    for uri in names["uri"]:
        if uri.startswith("spiffe://"):
            found = issuers.of_trust_domain(parse_spiffe_id(uri)[0])
            if found is not None and found.issuer.kind is IssuerKind.SPIFFE:
                return found
    return None


def _path(
    leaf: Certificate, between: Sequence[Certificate], candidates: Sequence[Trusted], now: datetime
) -> tuple[Trusted, tuple[Certificate, ...]]:
    """Return the authority that vouches for the leaf, with the path to its root."""
    refusal = Rejected.because("issuer_unknown", "client certificate", hint="register its authority first")
    for trusted in candidates:
        try:
            path = verify_chain(
                leaf, between, trusted.keys.roots, now, looked_at=(ExtensionOID.SUBJECT_ALTERNATIVE_NAME,)
            )
        except Rejected as exc:
            if exc.code != "untrusted_root" or refusal.code == "issuer_unknown":
                refusal = exc
            continue
        return trusted, path
    raise refusal


def _verify_usage(leaf: Certificate, *, spiffe: bool) -> None:
    """Demand a certificate of a client and of no authority (RFC 5280 section 4.2.1, X509-SVID sections 4.2 and 4.3)."""
    basic, usage = _extension(leaf, x509.BasicConstraints), _extension(leaf, x509.KeyUsage)
    extended = _extension(leaf, x509.ExtendedKeyUsage)
    faults = []
    if basic is not None and basic.ca:
        faults.append("an authority")
    if usage is None:
        if spiffe:
            faults.append("no key usage")
    elif not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        faults.append("key usage")
    if extended is None:
        if not spiffe:
            faults.append("no extended key usage")
    elif ExtendedKeyUsageOID.CLIENT_AUTH not in extended:
        faults.append("extended key usage")
    if faults:
        raise Rejected.because("usage_not_allowed", leaf.shown, got=", ".join(faults), want="a client's certificate")


def _subject(names: Mapping[str, list[str]], *, spiffe: bool) -> str:
    """Return the SPIFFE id, or the first name: a URI before an e-mail address before a host; never the common name."""
    if spiffe:
        if len(names["uri"]) != 1:  # X509-SVID section 2
            raise Rejected.because("name_missing", "client certificate", got="several uris", want="one spiffe id")
        return names["uri"][0]
    for kind, found in names.items():
        if found:
            return f"{kind}:{found[0]}"
    raise Rejected.because("name_missing", "client certificate", got="none", want="a uri, e-mail address or host")


def _claims(names: Mapping[str, list[str]], subject: str, *, spiffe: bool) -> Mapping[str, Json]:
    claims: dict[str, Json] = {"san": {kind: list(found) for kind, found in names.items() if found}}
    if spiffe:
        claims["spiffe"] = {"below": list(prefixes(parse_spiffe_id(subject)[1]))}
    return claims


def _extension(certificate: Certificate, kind: type[T]) -> T | None:
    return next((item.value for item in certificate.x509.extensions if isinstance(item.value, kind)), None)
