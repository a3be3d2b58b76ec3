"""Outer TLS of an enclave: a key made in memory, or the operator's files; its SPKI hash goes into the keyset.

A generated certificate is self-signed and proves nothing by itself. The hash inside attested evidence is for clients
that pin it (docs/spec/channel.md). The generated key never touches a disk.

Not done here: what is shown with the key while serving (``listener_tls``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from cloister.enclave.certificate import pem_of_key
from cloister.enclave.modes import Tls
from cloister.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from cloister.enclave.config import EnclaveConfig

__all__ = ["OuterTls", "prepare_tls"]

_LIFETIME = timedelta(days=30)
_BACKDATED = timedelta(minutes=5)  # for clients whose clock is behind


@dataclass(frozen=True, slots=True, kw_only=True)
class OuterTls:
    """Certificate chain and key, both PEM, and the hash of the public key.

    ``own`` is the key where it was made here and is in nobody else's hands: only then may consumers pin it.
    """

    chain: bytes
    key: bytes = field(repr=False)
    spki_sha256: bytes
    own: ec.EllipticCurvePrivateKey | None = field(default=None, repr=False)


def prepare_tls(config: EnclaveConfig, now: datetime) -> OuterTls | None:
    """Return what the server needs, None where TLS is off. Raises ``UsageError`` for files that do not fit."""
    match config.tls:
        case Tls.OFF:
            return None
        case Tls.GENERATED:
            return _generated(config.host, now)
        case Tls.FILES:
            return _from_files(config.tls_certificate, config.tls_key)


def _generated(host: str, now: datetime) -> OuterTls:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cloister enclave")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), _name(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    return OuterTls(
        chain=certificate.public_bytes(Encoding.PEM), key=pem_of_key(key), spki_sha256=_spki(certificate), own=key
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _from_files(certificate: Path | None, key: Path | None) -> OuterTls:
    if certificate is None or key is None:
        msg = "tls: want tls_certificate and tls_key"
        raise UsageError(msg)
    try:
        if key.stat().st_mode & 0o077:
            msg = f"{key}: readable by others, want mode 0600"
            raise UsageError(msg, hint=f"chmod 600 {key}")
        chain, secret = certificate.read_bytes(), key.read_bytes()
        parsed = x509.load_pem_x509_certificate(chain)
    except (OSError, ValueError) as exc:
        msg = f"tls: {certificate} and {key}: cannot be read as PEM"
        raise UsageError(msg) from exc
    return OuterTls(chain=chain, key=secret, spki_sha256=_spki(parsed))


def _spki(certificate: x509.Certificate) -> bytes:
    return hashlib.sha256(
        certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).digest()
