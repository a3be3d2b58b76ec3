"""The two key encapsulation mechanisms of Cloister: DHKEM(X25519) and MLKEM768-X25519.

DHKEM(X25519, HKDF-SHA256) is RFC 9180 section 4.1; MLKEM768-X25519 is draft-ietf-hpke-pq section 3,
whose combiner is X-Wing (draft-connolly-cfrg-xwing-kem section 5). The primitives are
``cryptography``'s; expansion of the seed and the combiner are here because its hybrid keys can
neither be written out nor give their shared secret.

Not done here: the HPKE key schedule (``hpke``); other KEMs; the modes that authenticate a sender.
"""

from __future__ import annotations

import hashlib
import secrets
from enum import IntEnum
from typing import Self, assert_never

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from cloister.errors import Malformed

__all__ = ["Kem", "KemPrivateKey", "encapsulate", "verify_public_key"]

_X25519_BYTES = 32
_MLKEM_PUBLIC_BYTES = 1184  # FIPS 203 table 3, ML-KEM-768
_MLKEM_CIPHERTEXT_BYTES = 1088
_MLKEM_SEED_BYTES = 64
_SEED_BYTES = 32
_SHARED_SECRET_BYTES = 32
_XWING_LABEL = bytes.fromhex("5c2e2f2f5e5c")  # draft-connolly-cfrg-xwing-kem section 5.3
_DHKEM_SUITE_ID = b"KEM\x00\x20"


class Kem(IntEnum):
    """KEM identifiers of the IANA HPKE registry."""

    X25519 = 0x0020
    MLKEM768_X25519 = 0x647A

    @property
    def public_key_bytes(self) -> int:
        """Size of a serialised public key (Npk)."""
        return _X25519_BYTES if self is Kem.X25519 else _MLKEM_PUBLIC_BYTES + _X25519_BYTES

    @property
    def private_key_bytes(self) -> int:
        """Size of a serialised private key (Nsk)."""
        return _SEED_BYTES

    @property
    def enc_bytes(self) -> int:
        """Size of an encapsulated key (Nenc)."""
        return _X25519_BYTES if self is Kem.X25519 else _MLKEM_CIPHERTEXT_BYTES + _X25519_BYTES


class KemPrivateKey:
    """A private KEM key. It never prints itself and cannot be written out again."""

    __slots__ = ("_mlkem", "_public", "_x25519", "kem")

    def __init__(self, kem: Kem, data: bytes) -> None:
        """Take the serialised private key (RFC 9180 section 7.1.2; for the hybrid its 32-byte seed)."""
        if len(data) != kem.private_key_bytes:
            msg = f"kem private key: {len(data)} bytes, want {kem.private_key_bytes}"
            raise Malformed(msg)
        self.kem = kem
        self._mlkem: MLKEM768PrivateKey | None = None
        match kem:
            case Kem.X25519:
                self._x25519 = X25519PrivateKey.from_private_bytes(data)
                self._public = self._x25519.public_key().public_bytes_raw()
            case Kem.MLKEM768_X25519:
                # draft-connolly-cfrg-xwing-kem section 5.2: seed -> d || z || X25519 private key
                expanded = hashlib.shake_256(data).digest(_MLKEM_SEED_BYTES + _X25519_BYTES)
                self._mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED_BYTES])
                self._x25519 = X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED_BYTES:])
                self._public = (
                    self._mlkem.public_key().public_bytes_raw() + self._x25519.public_key().public_bytes_raw()
                )
            case _:
                assert_never(kem)

    @classmethod
    def generate(cls, kem: Kem) -> Self:
        """Return a fresh key from the operating system's randomness."""
        return cls(kem, secrets.token_bytes(kem.private_key_bytes))

    @classmethod
    def from_bytes(cls, kem: Kem, data: bytes) -> Self:
        """Return the key with this serialisation. Raises ``Malformed`` for a wrong size."""
        return cls(kem, data)

    def public_bytes(self) -> bytes:
        """Return the serialised public key."""
        return self._public

    def decapsulate(self, enc: bytes) -> bytes:
        """Return the shared secret in ``enc``.

        Proves nothing about who made it: a damaged ML-KEM part gives another secret (implicit
        rejection, FIPS 203 section 6.3), which the AEAD finds. Raises ``Malformed`` for a wrong size
        or a low-order point.
        """
        _require_size(enc, self.kem.enc_bytes, what="encapsulated key")
        point = enc[-_X25519_BYTES:]
        dh = _diffie_hellman(self._x25519, point)
        public_point = self._public[-_X25519_BYTES:]
        if self._mlkem is None:
            return _extract_and_expand(dh, kem_context=point + public_point)
        return _combine(self._mlkem.decapsulate(enc[:_MLKEM_CIPHERTEXT_BYTES]), dh, point, public_point)

    def __repr__(self) -> str:
        """Show the KEM only."""
        return f"KemPrivateKey({self.kem.name})"


def encapsulate(kem: Kem, public_key: bytes) -> tuple[bytes, bytes]:
    """Return ``(enc, shared secret)`` for the owner of ``public_key``, with fresh randomness.

    Raises ``Malformed`` for a public key of wrong size, of low order or outside ML-KEM's modulus.
    """
    return _encapsulate(kem, public_key, ephemeral=X25519PrivateKey.generate())


def verify_public_key(kem: Kem, data: bytes) -> None:
    """Prove that one can encapsulate to ``data``. Does not say whose key it is. Raises ``Malformed``."""
    encapsulate(kem, data)


def _encapsulate(kem: Kem, public_key: bytes, *, ephemeral: X25519PrivateKey) -> tuple[bytes, bytes]:
    """Encapsulate with a given ephemeral key: the seam of the RFC's vectors, for tests only."""
    _require_size(public_key, kem.public_key_bytes, what="kem public key")
    point = ephemeral.public_key().public_bytes_raw()
    public_point = public_key[-_X25519_BYTES:]
    dh = _diffie_hellman(ephemeral, public_point)
    match kem:
        case Kem.X25519:
            return point, _extract_and_expand(dh, kem_context=point + public_point)
        case Kem.MLKEM768_X25519:
            try:
                secret, ciphertext = MLKEM768PublicKey.from_public_bytes(public_key[:_MLKEM_PUBLIC_BYTES]).encapsulate()
            except ValueError as exc:  # FIPS 203 section 7.2: the modulus check
                msg = "kem public key: not an ml-kem-768 key"
                raise Malformed(msg) from exc
            return ciphertext + point, _combine(secret, dh, point, public_point)
        case _:
            assert_never(kem)


def _require_size(data: bytes, size: int, *, what: str) -> None:
    if len(data) != size:
        msg = f"{what}: {len(data)} bytes, want {size}"
        raise Malformed(msg)


def _diffie_hellman(private: X25519PrivateKey, point: bytes) -> bytes:
    """Return the X25519 output, refusing the all-zero one (RFC 9180 section 7.1.4)."""
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(point))
    except ValueError as exc:
        msg = "x25519 point: low order"
        raise Malformed(msg) from exc


def _extract_and_expand(dh: bytes, *, kem_context: bytes) -> bytes:
    """ExtractAndExpand of RFC 9180 section 4.1, with the labels of section 4."""
    prk = HKDF.extract(SHA256(), b"", b"HPKE-v1" + _DHKEM_SUITE_ID + b"eae_prk" + dh)
    info = _SHARED_SECRET_BYTES.to_bytes(2, "big") + b"HPKE-v1" + _DHKEM_SUITE_ID + b"shared_secret" + kem_context
    return HKDFExpand(SHA256(), _SHARED_SECRET_BYTES, info).derive(prk)


def _combine(mlkem: bytes, dh: bytes, point: bytes, public_point: bytes) -> bytes:
    """Combine as in draft-connolly-cfrg-xwing-kem section 5.3."""
    return hashlib.sha3_256(mlkem + dh + point + public_point + _XWING_LABEL).digest()
