"""TLS from the first start: an authority of the custodian's own and a server certificate below it.

ECDSA P-256 with SHA-256; names as RFC 6125 wants them, in the subject alternative name. Borrowers pin
the authority by its certificate in the loan file. The authority's key stays in the vault; the server's
key is a file of mode 0600, made anew when its certificate nears its end or its names change.

TLS is outer armour here (T7): what must stay secret is encrypted to attested keys inside it.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloister.custodian.certificates.draft import draft
from cloister.errors import Malformed, Unavailable, UsageError
from cloister.private_file import read_private, write_private

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cloister.custodian.config import Config

__all__ = ["authority_certificate", "load_authority", "server_authority", "write_server_certificate"]

_AUTHORITY_LIFE = timedelta(days=3650)
_SERVER_LIFE = timedelta(days=90)
_RENEW_BEFORE = timedelta(days=30)
_BACKDATE = timedelta(minutes=5)  # a peer's clock may be a little behind
_MAX_PEM_BYTES = 64 * 1024


def load_authority(pkcs8: bytes) -> ec.EllipticCurvePrivateKey:
    """Return an authority's P-256 key. Raises ``Malformed``."""
    try:
        key = load_der_private_key(pkcs8, password=None)
    except (ValueError, TypeError) as exc:
        msg = "authority key: not a pkcs #8 key"
        raise Malformed(msg) from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        msg = "authority key: want an elliptic curve key"
        raise Malformed(msg)
    return key


def authority_certificate(pkcs8: bytes, *, name: str, now: datetime) -> bytes:
    """Return a self-signed authority certificate as PEM, good for ten years."""
    key = load_authority(pkcs8)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        draft(subject, subject, key.public_key(), begins=now - _BACKDATE, ends=now + _AUTHORITY_LIFE, authority=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def server_authority(home: Path, config: Config) -> str | None:
    """Return the authority, as PEM, that proves the server's certificate; None where every system knows it.

    Raises ``UsageError``.
    """
    if config.is_outside and not config.tls_ca:
        return None
    place = home / (config.tls_ca or "tls/ca.pem")
    try:
        return place.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as exc:
        msg = f"{place}: cannot be read as pem"
        raise UsageError(msg) from exc


def write_server_certificate(folder: Path, pkcs8: bytes, *, names: Sequence[str], now: datetime) -> bool:
    """Renew ``server.pem`` and ``server.key`` below ``ca.pem`` in ``folder`` where that is due.

    Returns whether they were renewed: absent, within 30 days of their end, or for other names. Raises
    ``Unavailable`` where they cannot be written; half of them written is renewed again.
    """
    certificate_path, key_path = folder / "server.pem", folder / "server.key"
    if certificate_path.exists() and key_path.exists():
        key_pem = read_private(key_path, cap=_MAX_PEM_BYTES)  # refuses a key that others can read
        if _still_good(certificate_path.read_bytes(), key_pem, names, now):
            return False
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _server_certificate(authority, load_authority(pkcs8), key, names, now)
    fresh_key, fresh_certificate = folder / "server.key.new", folder / "server.pem.new"
    try:
        fresh_key.unlink(missing_ok=True)
        write_private(fresh_key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        fresh_certificate.write_bytes(certificate)
        fresh_key.replace(key_path)
        fresh_certificate.replace(certificate_path)
    except OSError as exc:
        msg = f"{folder}: {exc.strerror}"
        raise Unavailable(msg, hint="the next start writes the certificate again") from exc
    return True


def _still_good(pem: bytes, key_pem: bytes, names: Sequence[str], now: datetime) -> bool:
    """Tell whether the certificate fits key, names and time; one whose key was renewed without it does not."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        fits = load_pem_private_key(key_pem, password=None).public_key() == certificate.public_key()
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return False
    in_time = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - _RENEW_BEFORE
    return fits and in_time and list(alternative) == _alternatives(names)


def _server_certificate(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    names: Sequence[str],
    now: datetime,
) -> bytes:
    if authority.public_key() != authority_key.public_key():
        msg = "tls: ca.pem does not belong to this vault"
        raise UsageError(msg, hint="restore the home's tls folder and its vault together")
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    ends = min(now + _SERVER_LIFE, authority.not_valid_after_utc)
    builder = (
        draft(subject, authority.subject, key.public_key(), begins=now - _BACKDATE, ends=ends)
        .add_extension(x509.SubjectAlternativeName(_alternatives(names)), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    return builder.sign(authority_key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _alternatives(names: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found
