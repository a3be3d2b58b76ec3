"""The vault file: its content under one key, and what gives that key (docs/spec/vault.md).

A passphrase or key file gives the key by Argon2id (RFC 9106), or a key service unwraps it; the content is under
AES-256-GCM with the file's header as additional data. A wrong secret and an altered file get one answer.

Not done here: what the content is, and where the file lies.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from cloister.custodian.vaults.unlock import KEY_BYTES, FileKey, KeyFile, Passphrase, Unlock
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.wire import Fields, dump_b64u, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.custodian.vaults.key_service import KeyService
    from cloister.wire import Json

__all__ = ["MAX_VAULT_BYTES", "Kdf", "Opened", "lock_content", "open_content", "service_of"]

MAX_VAULT_BYTES: Final = 64 * 1024
_NONCE_BYTES = 12
_SALT_BYTES = 16
_MAX_WRAPPED_BYTES = 8192  # AWS KMS: 6144
_ONE_AT_A_TIME = threading.Lock()
"""Two derivations of several lanes at once can wait for ever for each other's threads in OpenSSL's one pool of them."""
_SERVICE = re.compile(r"[a-z0-9-]{1,32}:[!-~]{1,1024}")


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
        with _ONE_AT_A_TIME:
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
        if not isinstance(unlock, Passphrase | KeyFile):
            msg = f"vault file: opens by a passphrase or key file, not by {unlock.name}"
            raise UsageError(msg)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _ServiceLock:
    """The file's key as a key service wrapped it, and that service's name."""

    service: str
    salt: bytes
    wrapped: bytes

    def header(self, nonce: bytes) -> dict[str, Json]:
        """Return the members of the file that stand in clear."""
        return {
            "nonce": dump_b64u(nonce),
            "salt": dump_b64u(self.salt),
            "service": self.service,
            "v": 2,
            "wrapped": dump_b64u(self.wrapped),
        }

    def key(self, unlock: Unlock) -> bytes:
        """Return the file's key. Raises as ``KeyService.unwrap``."""
        if isinstance(unlock, Passphrase | KeyFile) or unlock.name != self.service:
            msg = f"vault file: opens by {self.service}"
            raise UsageError(msg, hint="leave out --key-file and --passphrase-file")
        key = unlock.unwrap(self.wrapped, context=_context(self.salt))
        if len(key) != KEY_BYTES:
            raise Rejected.because("wrong_key", self.service, got=f"{len(key)} bytes", want=f"{KEY_BYTES}")
        return key

    @classmethod
    def take(cls, fields: Fields) -> Self:
        """Take the lock's members out of a vault file."""
        return cls(
            service=fields.match("service", _SERVICE),
            salt=fields.b64u("salt", size=_SALT_BYTES),
            wrapped=fields.b64u("wrapped", cap=_MAX_WRAPPED_BYTES),
        )


def _context(salt: bytes) -> str:
    """Return what a service binds the key to: this file alone, in words that its log may show."""
    return f"vault/v2/{salt.hex()}"


def _new_lock(unlock: Unlock, rng: Callable[[int], bytes], kdf: Kdf | None) -> tuple[_Argon2Lock | _ServiceLock, bytes]:
    """Return a lock that ``unlock`` opens, and the key it gives."""
    salt = rng(_SALT_BYTES)
    if isinstance(unlock, Passphrase | KeyFile):
        lock = _Argon2Lock(kdf=kdf or Kdf(), salt=salt)
        return lock, lock.key(unlock)
    key = rng(KEY_BYTES)
    return _ServiceLock(service=unlock.name, salt=salt, wrapped=_wrapped(unlock, key, _context(salt))), key


def _wrapped(service: KeyService, key: bytes, context: str) -> bytes:
    """Return ``key`` wrapped, once the service gave it back: a vault that it never opens must not be made."""
    wrapped = service.wrap(key, context=context)
    if key in wrapped or not 0 < len(wrapped) <= _MAX_WRAPPED_BYTES or service.unwrap(wrapped, context=context) != key:
        msg = f"{service.name}: does not wrap a key and give it back"
        raise Unavailable(msg)
    _demand_bound(service, wrapped, context)
    return wrapped


def _demand_bound(service: KeyService, wrapped: bytes, context: str) -> None:
    """Refuse a service that does not look at the context: it may be older than that part of its interface."""
    try:
        service.unwrap(wrapped, context=context + "/another")
    except Rejected as refusal:
        if refusal.code == "wrong_key":  # any other no says nothing of the context
            return
        raise
    msg = f"{service.name}: does not bind a key to its context"
    raise Unavailable(msg, hint="is it too old, or the key of another kind?")


def lock_content(content: bytes, unlock: Unlock, *, rng: Callable[[int], bytes], kdf: Kdf | None = None) -> bytes:
    """Return a vault file with ``content``, salt and nonce drawn anew. Raises as ``KeyService``, ``UsageError``."""
    lock, key = _new_lock(unlock, rng, kdf)
    nonce = rng(_NONCE_BYTES)
    header = lock.header(nonce)
    sealed = AESGCM(key).encrypt(nonce, content, dump_json(header))
    return dump_json({**header, "sealed": dump_b64u(sealed)})


def service_of(data: bytes) -> str | None:
    """Return the key service that a vault file names, if any. Raises ``Malformed``. Not proven before it is open."""
    lock = _parse(data)[0]
    return lock.service if isinstance(lock, _ServiceLock) else None


def _parse(data: bytes) -> tuple[_Argon2Lock | _ServiceLock, bytes, bytes]:
    """Return lock, nonce and ciphertext of a vault file."""
    fields = Fields.parse(data, what="vault file", cap=MAX_VAULT_BYTES, canonical=True)
    lock: _Argon2Lock | _ServiceLock
    match fields.integer("v", floor=1, cap=2):
        case 1:
            lock = _Argon2Lock.take(fields)
        case _:
            lock = _ServiceLock.take(fields)
    nonce, sealed = fields.b64u("nonce", size=_NONCE_BYTES), fields.b64u("sealed", cap=MAX_VAULT_BYTES)
    fields.end()
    return lock, nonce, sealed


def open_content(data: bytes, unlock: Unlock | FileKey) -> Opened:
    """Return what is in a vault file. Raises ``Malformed``, ``Rejected`` (``wrong_key``), as ``KeyService``."""
    lock, nonce, sealed = _parse(data)
    key = unlock.held.reveal() if isinstance(unlock, FileKey) else lock.key(unlock)
    try:
        return Opened(content=AESGCM(key).decrypt(nonce, sealed, dump_json(lock.header(nonce))), key=key)
    except InvalidTag as exc:
        raise Rejected.because(
            "wrong_key", "vault file", hint="wrong passphrase or key file, or the vault was altered"
        ) from exc
