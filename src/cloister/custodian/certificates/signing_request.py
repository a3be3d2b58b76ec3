"""A certificate signing request (PKCS #10, RFC 2986) as we take one: a key, proof that it is held, and no wishes.

What a certificate says is the custodian's to decide. A request that asks for an extension (other names, an authority
of its own, other uses) is refused as a whole rather than answered with less than it asked for; a subject is passed
over, for tools cannot leave it out, and goes into no certificate.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloister.errors import Malformed, Rejected

__all__ = ["MAX_REQUEST_BYTES", "CertifiedKey", "verify_signing_request"]

MAX_REQUEST_BYTES = 8 * 1024
_CURVES = (ec.SECP256R1, ec.SECP384R1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedKey:
    """A public key whose owner signed for it. Only ``verify_signing_request`` makes one."""

    key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
    spki_sha256: bytes


def verify_signing_request(data: bytes) -> CertifiedKey:
    """Return the key of a request (DER) once its owner is proven to have signed it.

    Raises ``Malformed``, and ``Rejected``: ``key_unsuitable``, ``signature_invalid``, or ``csr_extension`` where it
    asks for anything.
    """
    if len(data) > MAX_REQUEST_BYTES:
        msg = f"certificate request: {len(data)} bytes, want at most {MAX_REQUEST_BYTES}"
        raise Malformed(msg)
    try:
        request = x509.load_der_x509_csr(data)
        key, asked = request.public_key(), list(request.attributes)
    except (ValueError, UnsupportedAlgorithm, TypeError, x509.InvalidVersion) as exc:
        msg = "certificate request: not a pkcs #10 request that can be read"
        raise Malformed(msg) from exc
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) or not _suits(key):
        raise Rejected.because("key_unsuitable", "certificate request", want="P-256, P-384 or Ed25519")
    _demand_signed(request)
    if asked:
        raise Rejected.because("csr_extension", "certificate request", got="attributes", want="a key and nothing else")
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return CertifiedKey(key=key, spki_sha256=hashlib.sha256(spki).digest())


def _suits(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> bool:
    return isinstance(key, ed25519.Ed25519PublicKey) or isinstance(key.curve, _CURVES)


def _demand_signed(request: x509.CertificateSigningRequest) -> None:
    try:
        proven = request.is_signature_valid
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        proven = False
    if not proven:
        raise Rejected.because("signature_invalid", "certificate request")
