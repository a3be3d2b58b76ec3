"""Authorities and the certificates below them, as X.509 (RFC 5280; docs/spec/certificates.md).

An authority is a self-signed P-256 certificate of the custodian's own, apart from the one that borrowers pin for the
server: path length 0, name constraints that leave it nothing but URIs in the trust domain, and a life of weeks. A leaf
has an empty subject, one URI, a random serial number, its uses and no right to sign anything, and a life of hours.

Not done here: who gets one, and where keys rest (``service.certificates``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_network
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloister.custodian.certificates.names import PeerName
from cloister.errors import Malformed, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric import ec

    from cloister.custodian.certificates.signing_request import CertifiedKey

__all__ = ["BACKDATE", "Peer", "fingerprint", "issue", "make_authority", "verify_peer"]

BACKDATE = timedelta(minutes=1)
"""How far before its issue a certificate begins: for another custodian whose clock is a little behind."""

_ANYTHING = (x509.DNSName(""), x509.IPAddress(ip_network("0.0.0.0/0")), x509.IPAddress(ip_network("::/0")))
_UNREADABLE = (ValueError, x509.DuplicateExtension, x509.ExtensionNotFound, x509.UnsupportedGeneralNameType)
_BOTH = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who showed a certificate, proven to be of one of our authorities, and until when it says so."""

    name: PeerName
    ends_at: datetime
    fingerprint: str


def fingerprint(certificate: x509.Certificate) -> str:
    """Return SHA-256 over a certificate's DER, in hex."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


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
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
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
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.subject)
        .public_key(certified.key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(min(now + life, authority.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name.uri)]), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(certified.key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
    )
    return builder.sign(authority_key, hashes.SHA256())


def verify_peer(certificate: x509.Certificate, authorities: Iterable[x509.Certificate], *, domain: str) -> Peer:
    """Return whom a certificate names, once one of these authorities is proven to have issued it.

    The handshake proved a chain and that the peer holds the key; it may trust more authorities than ours, and proves
    neither which one it was nor who was named. Does not look at the time: ``ends_at`` is for who does.

    Raises ``Rejected``: ``wrong_peer``.
    """
    if not any(_issued(certificate, authority) for authority in authorities):
        raise Rejected.because("wrong_peer", "peer certificate", got="another authority's")
    try:
        found = certificate.extensions
        alternative = list(found.get_extension_for_class(x509.SubjectAlternativeName).value)
        uses = set(found.get_extension_for_class(x509.ExtendedKeyUsage).value)
        is_leaf = not found.get_extension_for_class(x509.BasicConstraints).value.ca
    except _UNREADABLE as exc:
        raise Rejected.because("wrong_peer", "peer certificate", got="extensions missing") from exc
    if not is_leaf or ExtendedKeyUsageOID.CLIENT_AUTH not in uses or not uses <= set(_BOTH):
        raise Rejected.because("wrong_peer", "peer certificate", got="other uses", want="a client's")
    only = alternative[0] if len(alternative) == 1 else None
    if not isinstance(only, x509.UniformResourceIdentifier):
        raise Rejected.because("wrong_peer", "peer certificate", got="other names", want="one uri")
    try:
        name = PeerName.parse(only.value)
    except Malformed as exc:
        raise Rejected.because("wrong_peer", "peer certificate", got="a name of another form") from exc
    if name.domain != domain:
        raise Rejected.because("wrong_peer", "peer certificate", got=name.domain, want=domain)
    return Peer(name=name, ends_at=certificate.not_valid_after_utc, fingerprint=fingerprint(certificate))


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
