"""Certificates and revocation lists that no vendor issues: signed by themselves, with whatever a stranger puts in."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier

TLS_FEATURE = (ObjectIdentifier("1.3.6.1.5.5.7.1.24"), bytes.fromhex("3003020103"))  # a feature that has no name
X400_NAME = (ObjectIdentifier("2.5.29.35"), bytes.fromhex("3007a102a300820101"))  # an issuer by its address of X.400
STEERING = "\x1b[2Jtrusted\u202e\nroot: accepted"
"""What a terminal would obey, and a log would take for a line of its own."""

_KEY = ec.generate_private_key(ec.SECP256R1())
_SINCE, _UNTIL = datetime(2024, 1, 1, tzinfo=UTC), datetime(2034, 1, 1, tzinfo=UTC)
_DER = serialization.Encoding.DER


def odd_certificate(*extensions: tuple[ObjectIdentifier, bytes], name: str = "odd") -> bytes:
    """Return a certificate in DER with these extensions."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(
        issuer_name=subject,
        subject_name=subject,
        public_key=_KEY.public_key(),
        serial_number=7,
        not_valid_before=_SINCE,
        not_valid_after=_UNTIL,
    )
    for oid, value in extensions:
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
    return builder.sign(_KEY, hashes.SHA256()).public_bytes(_DER)


def odd_list(*extensions: tuple[ObjectIdentifier, bytes], name: str = "odd") -> bytes:
    """Return a revocation list in DER with these extensions."""
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateRevocationListBuilder(issuer_name=issuer, last_update=_SINCE, next_update=_UNTIL)
    for oid, value in extensions:
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
    return builder.sign(_KEY, hashes.SHA256()).public_bytes(_DER)


def pem(der: bytes) -> bytes:
    """Return a certificate as PEM."""
    return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)
