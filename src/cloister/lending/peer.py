"""Whom a certificate names, once an authority of the custodian's has issued it (docs/spec/certificates.md).

Not done here: handshakes, who issues (``custodian.certificates``), and what a peer may do.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloister.errors import Malformed, Rejected
from cloister.lending.peer_name import PeerName

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

__all__ = ["Peer", "fingerprint", "issuer_among", "peer_of", "verify_peer"]

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


def verify_peer(certificate: x509.Certificate, authorities: Iterable[x509.Certificate], *, domain: str) -> Peer:
    """Return whom a certificate names in a trust domain, once one of these authorities is proven to have issued it.

    Raises ``Rejected``: ``wrong_peer``, as ``peer_of`` and for a name in another domain.
    """
    peer = peer_of(certificate, authorities)
    if peer.name.domain != domain:
        raise Rejected.because("wrong_peer", "peer certificate", got=peer.name.domain, want=domain)
    return peer


def peer_of(certificate: x509.Certificate, authorities: Iterable[x509.Certificate]) -> Peer:
    """Return whom a certificate names, in whatever domain, once one of these authorities is proven to have issued it.

    The handshake proved a chain and that the peer holds the key; it may trust more authorities than ours, and proves
    neither which one it was nor who was named. Does not look at the time: ``ends_at`` is for who does.

    Raises ``Rejected``: ``wrong_peer``.
    """
    if issuer_among(certificate, authorities) is None:
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
    return Peer(name=name, ends_at=certificate.not_valid_after_utc, fingerprint=fingerprint(certificate))


def issuer_among(certificate: x509.Certificate, authorities: Iterable[x509.Certificate]) -> x509.Certificate | None:
    """Return which of these authorities issued a certificate, None where none of them did."""
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return authority
    return None
