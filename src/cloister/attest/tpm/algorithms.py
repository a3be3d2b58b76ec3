"""The TPM's algorithm numbers that Cloister knows, and what they stand for (TCG Algorithm Registry 1.34).

SHA-1 has a number here because event logs carry it; nothing signed, named or replayed with it is accepted.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum
from typing import TYPE_CHECKING, Final, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.wire import Reader

__all__ = ["CURVES", "DIGEST_BYTES", "Alg", "CurveId", "Hash", "digest", "hash_of", "take_alg"]

Hash: TypeAlias = "hashes.SHA256 | hashes.SHA384 | hashes.SHA512"


class Alg(IntEnum):
    """TPM_ALG_ID (TPM 2.0 Part 2 section 6.3)."""

    RSA = 0x0001
    SHA1 = 0x0004
    HMAC = 0x0005
    AES = 0x0006
    KEYEDHASH = 0x0008
    SHA256 = 0x000B
    SHA384 = 0x000C
    SHA512 = 0x000D
    NULL = 0x0010
    RSASSA = 0x0014
    RSAPSS = 0x0016
    ECDSA = 0x0018
    ECC = 0x0023
    CFB = 0x0043


class CurveId(IntEnum):
    """TPM_ECC_CURVE (TPM 2.0 Part 2 section 6.4)."""

    P256 = 0x0003
    P384 = 0x0004


DIGEST_BYTES: Final[Mapping[Alg, int]] = {Alg.SHA1: 20, Alg.SHA256: 32, Alg.SHA384: 48, Alg.SHA512: 64}
CURVES: Final[Mapping[CurveId, ec.EllipticCurve]] = {CurveId.P256: ec.SECP256R1(), CurveId.P384: ec.SECP384R1()}

_HASHES: Final[Mapping[Alg, Hash]] = {
    Alg.SHA256: hashes.SHA256(),
    Alg.SHA384: hashes.SHA384(),
    Alg.SHA512: hashes.SHA512(),
}


def hash_of(alg: Alg) -> Hash:
    """Return the hash for signatures, names and key derivation; SHA-1 is none of ours."""
    if alg not in _HASHES:
        msg = f"tpm: {alg.name} is no hash to trust"
        raise UsageError(msg)
    return _HASHES[alg]


def digest(alg: Alg, data: bytes) -> bytes:
    """Return the digest of ``data``."""
    return hashlib.new(hash_of(alg).name, data).digest()


def take_alg(reader: Reader, *allowed: Alg) -> Alg:
    """Return the next algorithm number, which must be one of ``allowed``."""
    number = reader.u16()
    for alg in allowed:
        if number == alg:
            return alg
    return reader.fail(f"algorithm {number:#06x}, want {' or '.join(alg.name for alg in allowed)}")
