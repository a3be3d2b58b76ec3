"""X.509 certification paths walked by hand to pinned roots (RFC 5280 section 6, a strict subset).

Vendors' device certificates do not pass general web verifiers: their extended key usages are the
vendor's own and their subject alternative names are critical. So the path is walked here, step by step,
and the caller says which critical extensions it looks at itself.

Not done here: revocation (``crl``), policies, name constraints (refused where
critical).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtensionOID, ObjectIdentifier

from cloister.errors import Malformed, Rejected

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

__all__ = ["MAX_CERTIFICATE_BYTES", "UNREADABLE", "Certificate", "parse_certificates", "shown_name", "verify_chain"]

MAX_CERTIFICATE_BYTES = 8192  # bytes of one DER certificate
MAX_CHAIN = 5  # certificates between leaf and root, the leaf among them
_MAX_PEM_BYTES = 64 * 1024
_MIN_RSA_BITS = 2048
_MAX_SHOWN_CHARS = 120
_MAX_SERIAL_BITS = 160  # RFC 5280 section 4.1.2.2: 20 bytes
_REMEMBERED = 512  # pairs of certificates, some 2 KiB each
_PEM = b"-----BEGIN CERTIFICATE-----"
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    UserWarning,  # the library's own about odd certificates, where warnings are errors
    KeyError,  # a TLS feature without a name
)
"""What the library raises about certificates, lists and answers that are not as it wants them."""

_HANDLED = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE})


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate whose every part was read once, so that nothing in it fails later."""

    x509: x509.Certificate

    @classmethod
    def parse(cls, der: bytes, *, zero_serial: bool = False) -> Self:
        """Parse exactly one DER certificate. Raises ``Malformed``.

        ``zero_serial`` admits the serial number 0, which AMD gives every VCEK (against RFC 5280): such a
        certificate cannot be revoked by its number, only by what it is about.
        """
        if len(der) > MAX_CERTIFICATE_BYTES:
            msg = f"certificate: {len(der)} bytes, want at most {MAX_CERTIFICATE_BYTES}"
            raise Malformed(msg)
        try:
            with warnings.catch_warnings():  # the library announces that it will refuse what is refused below
                warnings.simplefilter("ignore", CryptographyDeprecationWarning)
                certificate = x509.load_der_x509_certificate(der)
                serial = certificate.serial_number
            # The library reads lazily: what is broken must say so here.
            for part in (certificate.subject, certificate.issuer):
                part.rfc4514_string()
            certificate.public_key()
            list(certificate.extensions)
            certificate.signature_hash_algorithm  # noqa: B018 - read for its errors
            certificate.not_valid_before_utc  # noqa: B018
            certificate.not_valid_after_utc  # noqa: B018
        except UNREADABLE as exc:
            msg = "certificate: not der, or of a kind we do not read"
            raise Malformed(msg) from exc
        if serial < 0 or (serial == 0 and not zero_serial) or serial.bit_length() > _MAX_SERIAL_BITS:
            msg = "certificate: serial number is not positive, or longer than 20 bytes"
            raise Malformed(msg)
        # The signature is a bit string at the end; the library does not look at its count of unused bits, so
        # that one certificate would have two spellings.
        if der[-len(certificate.signature) - 1] != 0:
            msg = "certificate: signature is not whole bytes"
            raise Malformed(msg)
        return cls(certificate)

    @property
    def der(self) -> bytes:
        """The exact bytes."""
        return self.x509.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        """The certificate as PEM."""
        return self.x509.public_bytes(serialization.Encoding.PEM)

    @property
    def public_key_der(self) -> bytes:
        """The SubjectPublicKeyInfo."""
        return self.x509.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def shown(self) -> str:
        """The subject, for a message."""
        return shown_name(self.x509.subject)


def shown_name(name: x509.Name) -> str:
    """Return a name for a message: short, and as escapes where it would steer a terminal or a log line (T84)."""
    text = name.rfc4514_string()
    return (text if text.isprintable() else ascii(text)[1:-1])[:_MAX_SHOWN_CHARS]


def parse_certificates(data: bytes) -> tuple[Certificate, ...]:
    """Parse one DER certificate or a PEM file with at least one. Raises ``Malformed``."""
    if not data.lstrip().startswith(_PEM):
        return (Certificate.parse(data),)
    if len(data) > _MAX_PEM_BYTES:
        msg = f"certificates: {len(data)} bytes of pem, want at most {_MAX_PEM_BYTES}"
        raise Malformed(msg)
    try:
        found = x509.load_pem_x509_certificates(data)
    except UNREADABLE as exc:
        msg = "certificates: not pem"
        raise Malformed(msg) from exc
    return tuple(Certificate.parse(item.public_bytes(serialization.Encoding.DER)) for item in found)


def verify_chain(
    leaf: Certificate,
    between: Sequence[Certificate],
    roots: Sequence[Certificate],
    now: datetime,
    *,
    looked_at: Collection[ObjectIdentifier] = (),
) -> tuple[Certificate, ...]:
    """Prove that a pinned root vouches for ``leaf`` at ``now``; return the path from leaf to root.

    ``between`` may hold other certificates in any order. ``looked_at`` names critical extensions of the
    leaf that the caller looks at. Raises ``Rejected``: ``untrusted_root``, ``chain_invalid``,
    ``cert_not_yet_valid``, ``cert_expired``, ``algorithm_not_allowed``.
    """
    # 1. Own form of the leaf; what it may do is the caller's to say.
    _verify_form(leaf, now, {*_HANDLED, ExtensionOID.EXTENDED_KEY_USAGE, *looked_at})
    path = [leaf]
    while True:
        # 2. Upwards: a pinned root if one issued this, else one of the certificates sent along.
        root = _issuer(path[-1], roots)
        issuer = _issuer(path[-1], [item for item in between if item not in path]) if root is None else root
        if issuer is None:
            raise Rejected.because("untrusted_root", path[-1].shown, got=shown_name(path[-1].x509.issuer))
        # 3. The issuer may issue: to this depth, now, with a key we accept.
        _verify_form(issuer, now, {*_HANDLED, ExtensionOID.EXTENDED_KEY_USAGE})
        _verify_authority(issuer, below=len(path) - 1)
        path.append(issuer)
        if root is not None:
            return tuple(path)
        if len(path) > MAX_CHAIN:
            raise Rejected.because("chain_invalid", leaf.shown, got="too long", want=f"at most {MAX_CHAIN}")


def _issuer(certificate: Certificate, candidates: Sequence[Certificate]) -> Certificate | None:
    """Return the candidate whose key signed ``certificate`` under the name it states."""
    for candidate in candidates:
        if candidate.x509.subject != certificate.x509.issuer:
            continue
        if _is_issued_by(certificate.x509, candidate.x509):
            return candidate
    return None


@lru_cache(maxsize=_REMEMBERED)
def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tell whether the key of ``issuer`` signed ``certificate``.

    Remembered by the bytes of both: vendors' authorities come again with every piece of evidence, and nothing about
    this answer changes with time (validity and revocation are looked at every time).
    """
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


def _verify_form(certificate: Certificate, now: datetime, handled: Collection[ObjectIdentifier]) -> None:
    inner = certificate.x509
    if now < inner.not_valid_before_utc:
        want = inner.not_valid_before_utc.isoformat()
        raise Rejected.because("cert_not_yet_valid", certificate.shown, got=now.isoformat(), want=want)
    if now > inner.not_valid_after_utc:
        want = inner.not_valid_after_utc.isoformat()
        raise Rejected.because("cert_expired", certificate.shown, got=now.isoformat(), want=want)
    if not isinstance(inner.signature_hash_algorithm, _HASHES):
        got = inner.signature_algorithm_oid.dotted_string
        raise Rejected.because("algorithm_not_allowed", certificate.shown, got=got, want="a signature over SHA-2")
    key = inner.public_key()
    strong = (isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_RSA_BITS) or (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)
    )
    if not strong:
        raise Rejected.because("algorithm_not_allowed", certificate.shown, got=type(key).__name__, want="a strong key")
    unknown = [item.oid.dotted_string for item in inner.extensions if item.critical and item.oid not in handled]
    if unknown:  # RFC 5280 section 4.2: what is critical and not understood refuses the certificate
        raise Rejected.because("chain_invalid", certificate.shown, got=f"critical extension {unknown[0]}")


def _verify_authority(certificate: Certificate, *, below: int) -> None:
    """Demand an authority that may have ``below`` authorities under it (RFC 5280 sections 4.2.1.3 and 4.2.1.9)."""
    found = {item.oid: item.value for item in certificate.x509.extensions}
    basic = found.get(ExtensionOID.BASIC_CONSTRAINTS)
    if not isinstance(basic, x509.BasicConstraints) or not basic.ca:
        raise Rejected.because("chain_invalid", certificate.shown, got="no authority", want="ca true")
    if basic.path_length is not None and below > basic.path_length:
        raise Rejected.because("chain_invalid", certificate.shown, got=f"{below} below", want=str(basic.path_length))
    usage = found.get(ExtensionOID.KEY_USAGE)
    if not isinstance(usage, x509.KeyUsage) or not usage.key_cert_sign:
        raise Rejected.because("chain_invalid", certificate.shown, got="key usage", want="keyCertSign")
