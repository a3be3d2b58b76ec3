"""Certificates and revocation answers of the synthetic NVIDIA; every field and fault is an argument."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloister.attest.chain import Certificate

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ALWAYS", "Issuer", "Window", "answer", "usage"]

Window = tuple[datetime, datetime]
ALWAYS: Window = (datetime(2020, 10, 17, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
"""NVIDIA's device certificates never end (RFC 5280 section 4.1.2.5)."""


def usage(*, signs: bool = False, issues: bool = False, lists: bool = False) -> x509.KeyUsage:
    """Return a key usage: digitalSignature, keyCertSign, cRLSign."""
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issues,
        crl_sign=lists,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """A certificate and its key."""

    certificate: Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def root(cls, name: str, *, window: Window = ALWAYS) -> Issuer:
        """Return a self-signed authority."""
        key = ec.generate_private_key(ec.SECP384R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return cls(certificate=_sign(subject, key, subject, key, window=window, extensions=_authority()), key=key)

    def authority(self, name: str, *, serial: int | None = None, window: Window = ALWAYS) -> Issuer:
        """Return an authority below this one."""
        return self.issue(name, serial=serial, window=window, extensions=_authority())

    def issue(
        self,
        name: str,
        *,
        extensions: Sequence[tuple[x509.ExtensionType, bool]],
        serial: int | None = None,
        window: Window = ALWAYS,
        curve: ec.EllipticCurve | None = None,
    ) -> Issuer:
        """Return whatever ``extensions`` (with their criticality) make of it."""
        key = ec.generate_private_key(curve or ec.SECP384R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = self.certificate.x509.subject
        certificate = _sign(subject, key, issuer, self.key, serial=serial, window=window, extensions=extensions)
        return Issuer(certificate=certificate, key=key)

    def responder(self, *, window: Window = ALWAYS, for_ocsp: bool = True) -> Issuer:
        """Return one who answers about revocation in this issuer's place."""
        purpose = ExtendedKeyUsageOID.OCSP_SIGNING if for_ocsp else ExtendedKeyUsageOID.SERVER_AUTH
        extensions = [(usage(signs=True), True), (x509.ExtendedKeyUsage([purpose]), False)]
        return self.issue("synthetic OCSP responder", window=window, extensions=extensions)


def _authority() -> list[tuple[x509.ExtensionType, bool]]:
    return [(x509.BasicConstraints(ca=True, path_length=None), True), (usage(issues=True, lists=True), True)]


def _sign(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    window: Window,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
    serial: int | None = None,
) -> Certificate:
    builder = x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number() if serial is None else serial,
        not_valid_before=window[0],
        not_valid_after=window[1],
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    signed = builder.sign(issuer_key, hashes.SHA384())
    return Certificate.parse(signed.public_bytes(serialization.Encoding.DER))


def answer(
    certificate: Certificate,
    issuer: Issuer,
    *,
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
    reason: x509.ReasonFlags | None = None,
    this_update: datetime = ALWAYS[0],
    next_update: datetime | None = ALWAYS[1],
    responder: Issuer | None = None,
    signer: Issuer | None = None,
    named: Issuer | None = None,
    algorithm: hashes.HashAlgorithm | None = None,
    nonce: bytes | None = None,
    attached: bool = True,
) -> bytes:
    """Return an answer about ``certificate``, signed by ``issuer`` or by a ``responder`` it certified.

    Faults: a ``signer`` of the same name with another key, an answer about a certificate ``named`` by another issuer,
    a responder's certificate not ``attached``.
    """
    speaker = responder or issuer
    revoked = status is ocsp.OCSPCertStatus.REVOKED
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=certificate.x509,
        issuer=(named or issuer).certificate.x509,
        algorithm=algorithm or hashes.SHA384(),
        cert_status=status,
        this_update=this_update,
        next_update=next_update,
        revocation_time=this_update if revoked else None,
        revocation_reason=reason if revoked else None,
    )
    encoding = ocsp.OCSPResponderEncoding.HASH if signer is None else ocsp.OCSPResponderEncoding.NAME
    builder = builder.responder_id(encoding, (signer or speaker).certificate.x509)
    if responder is not None and attached:
        builder = builder.certificates([responder.certificate.x509])
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    response = builder.sign((signer or speaker).key, hashes.SHA384())
    return response.public_bytes(serialization.Encoding.DER)
