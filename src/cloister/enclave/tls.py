"""Outer TLS of an enclave: a key made in memory, or the operator's files; its SPKI hash goes into the keyset.

A generated certificate is self-signed and proves nothing by itself. The hash inside attested evidence is for clients
that pin it (docs/spec/channel.md); ours do not yet, for what they send is encrypted to attested keys anyway. The
generated key never touches a disk: the server's library insists on paths, so it gets paths into anonymous memory.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from cloister.enclave.config import Tls
from cloister.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from cloister.enclave.config import EnclaveConfig

__all__ = ["OuterTls", "prepare_tls"]

_LIFETIME = timedelta(days=30)
_BACKDATED = timedelta(minutes=5)  # for clients whose clock is behind


@dataclass(slots=True, kw_only=True)
class OuterTls:
    """Where certificate and key are, and the hash of the public key. ``close`` gives memory back.

    ``is_own`` says that the key was made here and is in nobody else's hands: only then may consumers pin it.
    """

    certificate: str
    key: str
    spki_sha256: bytes
    is_own: bool
    descriptors: tuple[int, ...] = ()

    def close(self) -> None:
        """Close the memory files; the server has read them."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = ()


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
    certificate_fd = _memory(certificate.public_bytes(Encoding.PEM))
    key_fd = _memory(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return OuterTls(
        certificate=f"/proc/self/fd/{certificate_fd}",
        key=f"/proc/self/fd/{key_fd}",
        spki_sha256=_spki(certificate),
        is_own=True,
        descriptors=(certificate_fd, key_fd),
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _memory(data: bytes) -> int:
    descriptor = os.memfd_create("cloister", os.MFD_CLOEXEC)
    os.write(descriptor, data)
    return descriptor


def _from_files(certificate: Path | None, key: Path | None) -> OuterTls:
    if certificate is None or key is None:
        msg = "tls: want tls_certificate and tls_key"
        raise UsageError(msg)
    try:
        if key.stat().st_mode & 0o077:
            msg = f"{key}: readable by others, want mode 0600"
            raise UsageError(msg, hint=f"chmod 600 {key}")
        parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError) as exc:
        msg = f"tls: {certificate} and {key}: cannot be read as PEM"
        raise UsageError(msg) from exc
    return OuterTls(certificate=str(certificate), key=str(key), spki_sha256=_spki(parsed), is_own=False)


def _spki(certificate: x509.Certificate) -> bytes:
    return hashlib.sha256(
        certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).digest()
