"""The vault file: its content under one key, and what gives that key (docs/spec/vault.md).

A passphrase or key file gives the key by Argon2id (RFC 9106); the content is under AES-256-GCM with the file's header
as additional data. A wrong secret and an altered file get one answer.

Not done here: what the content is, and where the file lies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from cloister.custodian.vaults.unlock import KEY_BYTES, FileKey, Unlock
from cloister.errors import Malformed, Rejected
from cloister.wire import Fields, dump_b64u, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.wire import Json

__all__ = ["MAX_VAULT_BYTES", "Kdf", "Opened", "lock_content", "open_content"]

MAX_VAULT_BYTES: Final = 64 * 1024
_NONCE_BYTES = 12
_SALT_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Kdf:
    """Costs of Argon2id: memory in KiB, passes, lanes. The defaults are RFC 9106 section 4, second choice."""

    memory_kib: int = 64 * 1024
    passes: int = 3
    lanes: int = 4

    def derive(self, secret: bytes, salt: bytes) -> bytes:
        """Return 32 bytes of key."""
        kdf = Argon2id(
            salt=salt, length=KEY_BYTES, iterations=self.passes, lanes=self.lanes, memory_cost=self.memory_kib
        )
        return kdf.derive(secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An opened vault file: its content, and the key that was under. It never prints itself."""

    content: bytes = field(repr=False)
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Argon2Lock:
    """Costs and salt by which a secret becomes the file's key."""

    kdf: Kdf
    salt: bytes

    def header(self, nonce: bytes) -> dict[str, Json]:
        """Return the members of the file that stand in clear."""
        return {
            "kdf": "argon2id",
            "lanes": self.kdf.lanes,
            "memory_kib": self.kdf.memory_kib,
            "nonce": dump_b64u(nonce),
            "passes": self.kdf.passes,
            "salt": dump_b64u(self.salt),
            "v": 1,
        }

    def key(self, unlock: Unlock) -> bytes:
        """Return the file's key. The costs were bounded before any memory is taken."""
        return self.kdf.derive(unlock.secret(), self.salt)

    @classmethod
    def take(cls, fields: Fields) -> Self:
        """Take the lock's members out of a vault file."""
        fields.literal("kdf", "argon2id")
        kdf = Kdf(
            memory_kib=fields.integer("memory_kib", floor=64, cap=1 << 20),
            passes=fields.integer("passes", floor=1, cap=16),
            lanes=fields.integer("lanes", floor=1, cap=16),
        )
        if kdf.memory_kib < 8 * kdf.lanes:  # RFC 9106 section 3.1: memory of at least 8 lanes
            msg = "vault file: memory_kib below 8 for each lane"
            raise Malformed(msg)
        return cls(kdf=kdf, salt=fields.b64u("salt", size=_SALT_BYTES))


def lock_content(content: bytes, unlock: Unlock, *, rng: Callable[[int], bytes], kdf: Kdf | None = None) -> bytes:
    """Return a vault file with ``content``, salt and nonce drawn anew."""
    lock = _Argon2Lock(kdf=kdf or Kdf(), salt=rng(_SALT_BYTES))
    nonce = rng(_NONCE_BYTES)
    header = lock.header(nonce)
    sealed = AESGCM(lock.key(unlock)).encrypt(nonce, content, dump_json(header))
    return dump_json({**header, "sealed": dump_b64u(sealed)})


def open_content(data: bytes, unlock: Unlock | FileKey) -> Opened:
    """Return what is in a vault file. Raises ``Malformed``, ``Rejected`` (``wrong_key``), ``UsageError``."""
    fields = Fields.parse(data, what="vault file", cap=MAX_VAULT_BYTES, canonical=True)
    fields.literal("v", 1)
    lock = _Argon2Lock.take(fields)
    nonce = fields.b64u("nonce", size=_NONCE_BYTES)
    sealed = fields.b64u("sealed", cap=MAX_VAULT_BYTES)
    fields.end()
    key = unlock.value if isinstance(unlock, FileKey) else lock.key(unlock)
    try:
        return Opened(content=AESGCM(key).decrypt(nonce, sealed, dump_json(lock.header(nonce))), key=key)
    except InvalidTag as exc:
        raise Rejected.because(
            "wrong_key", "vault file", hint="wrong passphrase or key file, or the vault was altered"
        ) from exc
