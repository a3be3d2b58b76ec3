"""Signatures in AMD's form: ECDSA P-384 over SHA-384, little-endian (AMD 56860 chapter 10)."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

__all__ = ["ECDSA_P384_SHA384", "holds"]

ECDSA_P384_SHA384 = 1
"""SIGNATURE_ALGO; there is no other."""

_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973  # of P-384


def holds(key: ec.EllipticCurvePublicKey, pair: tuple[int, int], signed: bytes) -> bool:
    """Tell whether R, S is a signature of ``key`` (P-384) over ``signed``. Zeros, as in unsigned reports, never are."""
    r, s = pair
    if not (0 < r < _ORDER and 0 < s < _ORDER):
        return False
    try:
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True
