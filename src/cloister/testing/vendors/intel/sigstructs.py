"""Signature files of enclaves (SIGSTRUCT, Intel SDM volume 3D section 38.13), made with a key of 3072 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

if TYPE_CHECKING:
    from cloister.testing.vendors.intel.bodies import EnclaveBody

__all__ = ["make_key", "sigstruct"]

_RSA_BYTES = 384


def _le(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


def make_key() -> rsa.RSAPrivateKey:
    """Return a key as enclaves are signed with: 3072 bits, exponent 3."""
    return rsa.generate_private_key(public_exponent=3, key_size=_RSA_BYTES * 8)


def sigstruct(body: EnclaveBody, key: rsa.RSAPrivateKey) -> bytes:
    """Return the signed file for an enclave with the measurement of ``body``."""
    header = bytes.fromhex("06000000e10000000000010000000000") + _le(0, 4) + _le(0x20260601, 4)
    header += bytes.fromhex("01010000600000006000000001000000") + bytes(4 + 84)
    measured = body.miscselect + b"\xff" * 4 + bytes(4) + body.isvfamilyid + body.attributes + b"\xff" * 16
    measured += body.mrenclave + bytes(16) + body.isvextprodid + _le(body.isvprodid, 2) + _le(body.isvsvn, 2)
    modulus = key.public_key().public_numbers().n
    signature = int.from_bytes(key.sign(header + measured, padding.PKCS1v15(), hashes.SHA256()), "big")
    q1, rest = divmod(signature**2, modulus)
    q2 = rest * signature // modulus
    middle = _le(modulus, _RSA_BYTES) + _le(3, 4) + _le(signature, _RSA_BYTES)
    return header + middle + measured + bytes(12) + _le(q1, _RSA_BYTES) + _le(q2, _RSA_BYTES)
