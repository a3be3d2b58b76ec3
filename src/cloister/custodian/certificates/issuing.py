"""Authorities and the certificates below them, as X.509 (RFC 5280; docs/spec/certificates.md).

An authority is a self-signed P-256 certificate of the custodian's own, apart from the one that borrowers pin for the
server: path length 0, name constraints that leave it nothing but URIs in the trust domain, and a life of weeks. A leaf
has an empty subject, one URI, a random serial number, its uses and no right to sign anything, and a life of hours.

Not done here: who gets one, where keys rest (``service.certificates``), and whom one names (``lending.peer``).
"""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_network
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloister.custodian.certificates.draft import draft

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric import ec

    from cloister.custodian.certificates.signing_request import CertifiedKey
    from cloister.lending.peer_name import PeerName

__all__ = ["BACKDATE", "issue", "make_authority"]

BACKDATE = timedelta(minutes=1)
"""How far before its issue a certificate begins: for another custodian whose clock is a little behind."""

_ANYTHING = (x509.DNSName(""), x509.IPAddress(ip_network("0.0.0.0/0")), x509.IPAddress(ip_network("::/0")))
_BOTH = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=signs_certificates, crl_sign=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def make_authority(
    key: ec.EllipticCurvePrivateKey, *, domain: str, name: str, now: datetime, life: timedelta
) -> x509.Certificate:
    """Return an authority for ``domain``. ``name`` is its own: two authorities that overlap are never confused."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Cloister peers {name}"[:64])])
    constraints = x509.NameConstraints(
        permitted_subtrees=[x509.UniformResourceIdentifier(domain)], excluded_subtrees=_ANYTHING
    )
    builder = (
        draft(subject, subject, key.public_key(), begins=now - BACKDATE, ends=now + life, authority=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_BOTH), critical=False)
        .add_extension(constraints, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256())


def issue(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    certified: CertifiedKey,
    name: PeerName,
    *,
    now: datetime,
    life: timedelta,
    server: bool = False,
) -> x509.Certificate:
    """Return a certificate for a key whose owner asked for it; with ``server`` for both ends of a connection.

    It ends with its authority at the latest.
    """
    uses = _BOTH if server else _BOTH[:1]
    own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    ends = min(now + life, authority.not_valid_after_utc)
    builder = (
        draft(x509.Name([]), authority.subject, certified.key, begins=now - BACKDATE, ends=ends)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name.uri)]), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(certified.key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
    )
    return builder.sign(authority_key, hashes.SHA256())
