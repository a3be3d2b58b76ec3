"""A key-encryption key at work: what it wraps, and how it rests in the database (docs/spec/vault.md).

The first one lies in the vault file. Those that rotations made lie in the database, wrapped under a key that
only the open vault can derive, so that a rotation rewrites no vault file: shares, key services and every copy of
that file stay good.

Not done here: deciding which one is used, and when one is destroyed (``service.rotation``).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cloister.custodian.vaults.unlock import KEY_BYTES
from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Kek", "KekRing"]

_NONCE_BYTES = 12
_TAG_BYTES = 16
_WRAP_LABEL = b"cloister/vault/v1/wrap"
_RING_LABEL = b"cloister/vault/v1/kek"


class Kek:
    """One key-encryption key. It never prints itself."""

    __slots__ = ("_cipher", "_rng", "id")

    def __init__(self, key: bytes, *, rng: Callable[[int], bytes]) -> None:
        """Keep the key; its name is a digest of it."""
        self._cipher = AESGCM(key)
        self._rng = rng
        self.id = "kek:" + hashlib.sha256(_WRAP_LABEL + key).hexdigest()[:32]

    def wrap(self, plain: bytes, *, aad: bytes) -> bytes:
        """Return nonce, ciphertext and tag. Random nonces: far below 2**32 wraps under one key."""
        nonce = self._rng(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, _WRAP_LABEL + aad)

    def unwrap(self, wrapped: bytes, *, aad: bytes) -> bytes:
        """Return what was wrapped with the same ``aad``. Raises ``Rejected`` (``wrong_key``)."""
        return _open(self._cipher, wrapped, _WRAP_LABEL + aad)

    def __repr__(self) -> str:
        """Show the public name only."""
        return f"Kek({self.id})"


class KekRing:
    """Makes key-encryption keys that rest outside of the vault file, and opens them again."""

    __slots__ = ("_cipher", "_rng")

    def __init__(self, *, kek: bytes, signing: bytes, rng: Callable[[int], bytes]) -> None:
        """Derive the key they rest under. It takes both secrets: who learns only the vault's KEK has no other."""
        derive = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=_RING_LABEL)
        self._cipher = AESGCM(derive.derive(signing + kek))
        self._rng = rng

    def make(self) -> tuple[Kek, bytes]:
        """Return a new key and the bytes it rests as."""
        key = self._rng(KEY_BYTES)
        kek, nonce = Kek(key, rng=self._rng), self._rng(_NONCE_BYTES)
        return kek, nonce + self._cipher.encrypt(nonce, key, _RING_LABEL + kek.id.encode())

    def open(self, kek_id: str, wrapped: bytes) -> Kek:
        """Return the key of that name. Raises ``Rejected`` (``wrong_key``)."""
        return Kek(_open(self._cipher, wrapped, _RING_LABEL + kek_id.encode()), rng=self._rng)


def _open(cipher: AESGCM, wrapped: bytes, aad: bytes) -> bytes:
    try:
        if len(wrapped) < _NONCE_BYTES + _TAG_BYTES:
            raise InvalidTag  # noqa: TRY301 - one answer for every cause
        return cipher.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], aad)
    except InvalidTag as exc:
        raise Rejected.because("wrong_key", "vault", hint="this vault did not wrap it, or it was altered") from exc
