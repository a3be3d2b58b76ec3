"""Certificate revocation lists (RFC 5280 section 5), a strict subset: whole lists, signed by their issuer.

Not done here: fetching them, delta and indirect lists (refused).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import CRLEntryExtensionOID, ExtensionOID

from cloister.attest.chain import UNREADABLE, shown_name
from cloister.errors import Malformed, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from cloister.attest.chain import Certificate

__all__ = ["MAX_CRL_BYTES", "RevocationList", "demand_current", "verify_crl", "verify_not_revoked"]

MAX_CRL_BYTES = 1 << 20  # bytes of one list
_PEM = b"-----BEGIN X509 CRL-----"
_HANDLED = frozenset({ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.CRL_NUMBER})


@dataclass(frozen=True, slots=True)
class RevocationList:
    """One list whose every part was read once; unverified."""

    x509: x509.CertificateRevocationList
    revoked: frozenset[int]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse one list, DER or PEM. Raises ``Malformed``."""
        if len(data) > MAX_CRL_BYTES:
            msg = f"crl: {len(data)} bytes, want at most {MAX_CRL_BYTES}"
            raise Malformed(msg)
        try:
            pem = data.lstrip().startswith(_PEM)
            found = x509.load_pem_x509_crl(data) if pem else x509.load_der_x509_crl(data)
            found.issuer.rfc4514_string()
            list(found.extensions)
            found.signature_hash_algorithm  # noqa: B018 - read for its errors
            found.last_update_utc  # noqa: B018
            found.next_update_utc  # noqa: B018
            revoked = frozenset(_serials(found))
        except UNREADABLE as exc:
            msg = "crl: not der or pem, or of a kind we do not read"
            raise Malformed(msg) from exc
        return cls(found, revoked)

    @property
    def der(self) -> bytes:
        """The exact bytes."""
        return self.x509.public_bytes(serialization.Encoding.DER)


def _serials(crl: x509.CertificateRevocationList) -> Iterable[int]:
    for entry in crl:
        for extension in entry.extensions:
            # RFC 5280 section 5.3.3: an entry about another issuer's certificate would be read wrongly here
            if extension.oid == CRLEntryExtensionOID.CERTIFICATE_ISSUER:
                msg = "indirect list"
                raise ValueError(msg)
        yield entry.serial_number


def verify_crl(crl: RevocationList, issuer: Certificate, now: datetime) -> None:
    """Prove that ``issuer``, already trusted, signed this list and that it is in its window at ``now``.

    Raises ``Rejected``: ``revocation_unknown`` (of another issuer, of one that signs no lists, without an end, of an
    unknown kind), ``collateral_signature_invalid``, ``collateral_not_yet_valid``, ``collateral_expired``.
    """
    subject = f"crl of {issuer.shown}"
    inner = crl.x509
    if inner.issuer != issuer.x509.subject:
        raise Rejected.because("revocation_unknown", subject, got=shown_name(inner.issuer), want=issuer.shown)
    usage = [item.value for item in issuer.x509.extensions if isinstance(item.value, x509.KeyUsage)]
    if not usage or not usage[0].crl_sign:  # RFC 5280 section 6.3.3 (f)
        raise Rejected.because("revocation_unknown", subject, got="key usage", want="cRLSign")
    critical = [item.oid.dotted_string for item in inner.extensions if item.critical and item.oid not in _HANDLED]
    if critical:  # RFC 5280 section 5.2: a delta or partial list says so here
        raise Rejected.because("revocation_unknown", subject, got=f"critical extension {critical[0]}")
    if not _is_signed(inner, issuer):
        raise Rejected.because("collateral_signature_invalid", subject)
    demand_current(inner.last_update_utc, inner.next_update_utc, now, subject=subject, what="a list")


def demand_current(begins: datetime, ends: datetime | None, now: datetime, *, subject: str, what: str) -> None:
    """Refuse what says of revocation nothing for ``now``, or says it without an end. Raises ``Rejected``."""
    if now < begins:
        raise Rejected.because("collateral_not_yet_valid", subject, got=now.isoformat(), want=begins.isoformat())
    if ends is None:
        raise Rejected.because("revocation_unknown", subject, got="no nextUpdate", want=f"{what} that ends")
    if now > ends:
        raise Rejected.because("collateral_expired", subject, got=now.isoformat(), want=ends.isoformat())


def _is_signed(crl: x509.CertificateRevocationList, issuer: Certificate) -> bool:
    key = issuer.x509.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            parameters = crl.signature_algorithm_parameters
            chosen = crl.signature_hash_algorithm
            if chosen is None or not isinstance(parameters, (padding.PSS, padding.PKCS1v15)):
                return False
            key.verify(crl.signature, crl.tbs_certlist_bytes, parameters, chosen)
            return True
        if isinstance(key, ec.EllipticCurvePublicKey):
            return crl.is_signature_valid(key)
    except (InvalidSignature, *UNREADABLE):
        pass
    return False


def verify_not_revoked(certificate: Certificate, crl: RevocationList) -> None:
    """Prove that a verified list does not name ``certificate``. Raises ``Rejected`` (``revoked``)."""
    if certificate.x509.serial_number in crl.revoked:
        raise Rejected.because("revoked", certificate.shown, got=f"serial {certificate.x509.serial_number:x}")
