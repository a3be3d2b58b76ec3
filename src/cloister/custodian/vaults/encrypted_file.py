"""The embedded vault: one file, encrypted under a passphrase or under a key file (docs/spec/vault.md).

The passphrase goes through Argon2id (RFC 9106), the content through AES-256-GCM with the file's header
as additional data. A key file and the vault file must be readable by their owner only.

Not done here: guarding the unlocked keys in memory; a custodian's host is trusted with its own keys.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloister.crypto.sign import SigningKey
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.wire import Fields, dump_b64u, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["EncryptedFileVault", "Kdf", "KeyFile", "Passphrase", "Unlock", "read_private", "write_private"]

MIN_PASSPHRASE_BYTES = 8  # bytes; Argon2id makes guessing slow, not impossible
MAX_SECRET_BYTES = 4096  # bytes of a passphrase or key file
_MAX_VAULT_BYTES = 64 * 1024
_KEY_BYTES = 32
_NONCE_BYTES = 12
_SALT_BYTES = 16
_TAG_BYTES = 16
_WRAP_LABEL = b"cloister/vault/v1/wrap"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kdf:
    """Costs of Argon2id: memory in KiB, passes, lanes. The defaults are RFC 9106 section 4, second choice."""

    memory_kib: int = 64 * 1024
    passes: int = 3
    lanes: int = 4

    def derive(self, secret: bytes, salt: bytes) -> bytes:
        """Return 32 bytes of key."""
        kdf = Argon2id(
            salt=salt, length=_KEY_BYTES, iterations=self.passes, lanes=self.lanes, memory_cost=self.memory_kib
        )
        return kdf.derive(secret)


@dataclass(frozen=True, slots=True)
class Passphrase:
    """Unlocks by a passphrase somebody typed. It never prints itself."""

    value: bytes = field(repr=False)

    def secret(self) -> bytes:
        """Return the passphrase."""
        if not MIN_PASSPHRASE_BYTES <= len(self.value) <= MAX_SECRET_BYTES:
            msg = f"passphrase: want {MIN_PASSPHRASE_BYTES} to {MAX_SECRET_BYTES} bytes"
            raise UsageError(msg)
        return self.value


@dataclass(frozen=True, slots=True)
class KeyFile:
    """Unlocks by a file of at least 32 random bytes that only its owner can read."""

    path: Path

    def secret(self) -> bytes:
        """Return the file's bytes. Raises ``UsageError`` when anybody else could read it."""
        data = read_private(self.path, cap=MAX_SECRET_BYTES)
        if len(data) < _KEY_BYTES:
            msg = f"key file {self.path}: {len(data)} bytes, want at least {_KEY_BYTES}"
            raise UsageError(msg)
        return data

    @classmethod
    def create(cls, path: Path, *, rng: Callable[[int], bytes] = os.urandom) -> Self:
        """Write a fresh key file, mode 0600. Refuses to replace one."""
        write_private(path, rng(_KEY_BYTES))
        return cls(path)


Unlock: TypeAlias = Passphrase | KeyFile


def read_private(path: Path, *, cap: int) -> bytes:
    """Return a file's bytes if it is a regular file that group and others cannot touch.

    The mode is read from the open descriptor, so that nobody swaps the file in between.
    """
    try:
        # A pipe must not make us wait before we can say that it is none of ours.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as exc:
        msg = f"{path}: no such file"
        raise UsageError(msg) from exc
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc
    try:
        _demand_private(path, os.fstat(fd), cap)
        return os.read(fd, cap)
    finally:
        os.close(fd)


def _demand_private(path: Path, status: os.stat_result, cap: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        msg = f"{path}: not a regular file"
        raise UsageError(msg)
    if status.st_mode & 0o077:
        msg = f"{path}: mode {stat.S_IMODE(status.st_mode):04o}, want 0600"
        raise UsageError(msg, hint=f"chmod 600 {path}")
    if status.st_size > cap:
        msg = f"{path}: {status.st_size} bytes, want at most {cap}"
        raise UsageError(msg)


def write_private(path: Path, data: bytes) -> None:
    """Write a new file of mode 0600, durably, or none. Raises ``UsageError`` when it exists, ``Unavailable``."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as exc:
        msg = f"{path}: exists already"
        raise UsageError(msg, hint="choose another place, or move the old file away") from exc
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise Unavailable(msg) from exc
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
    except OSError as exc:
        path.unlink(missing_ok=True)  # half a file would stand in the way of the next try
        msg = f"{path}: {exc.strerror}"
        raise Unavailable(msg) from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class _Secrets:
    """What is inside the vault. It never prints itself."""

    kek: bytes = field(repr=False)
    signing: bytes = field(repr=False)
    publisher: bytes = field(repr=False)
    tls_authority: bytes = field(repr=False)
    device_authority: bytes = field(repr=False)

    def dump(self) -> bytes:
        return dump_json({name: dump_b64u(getattr(self, name)) for name in self.__slots__})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        fields = Fields.parse(data, what="vault content", cap=_MAX_VAULT_BYTES, canonical=True)
        secrets = cls(
            kek=fields.b64u("kek", size=_KEY_BYTES),
            signing=fields.b64u("signing", size=_KEY_BYTES),
            publisher=fields.b64u("publisher", size=_KEY_BYTES),
            tls_authority=fields.b64u("tls_authority", cap=1024),
            device_authority=fields.b64u("device_authority", cap=1024),
        )
        fields.end()
        return secrets


def _new_ec_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


class EncryptedFileVault:
    """An unlocked vault. It never prints its keys."""

    __slots__ = ("_secrets", "_wrapper", "kek_id", "kid", "publisher_key", "rng", "signing_key")

    def __init__(self, secrets: _Secrets, *, rng: Callable[[int], bytes] = os.urandom) -> None:
        """Keep the content of an opened vault file."""
        self._secrets = secrets
        self._wrapper = AESGCM(secrets.kek)
        self.rng = rng
        self.signing_key = SigningKey(secrets.signing)
        self.publisher_key = SigningKey(secrets.publisher)
        self.kid = f"vault:{self.signing_key.key_id}"
        self.kek_id = "kek:" + hashlib.sha256(_WRAP_LABEL + secrets.kek).hexdigest()[:32]

    @classmethod
    def create(
        cls, path: Path, unlock: Unlock, *, rng: Callable[[int], bytes] = os.urandom, kdf: Kdf | None = None
    ) -> Self:
        """Make fresh keys and write them to ``path``, mode 0600. Refuses to replace a vault."""
        secrets = _Secrets(
            kek=rng(_KEY_BYTES),
            signing=rng(_KEY_BYTES),
            publisher=rng(_KEY_BYTES),
            tls_authority=_new_ec_key(),
            device_authority=_new_ec_key(),
        )
        write_private(path, _lock(secrets.dump(), unlock.secret(), kdf or Kdf(), rng))
        return cls(secrets, rng=rng)

    @classmethod
    def open(cls, path: Path, unlock: Unlock, *, rng: Callable[[int], bytes] = os.urandom) -> Self:
        """Return the vault. Raises ``Rejected`` (``wrong_key``), ``Malformed``, ``UsageError``."""
        return cls(_Secrets.parse(_unlock(read_private(path, cap=_MAX_VAULT_BYTES), unlock.secret())), rng=rng)

    @property
    def tls_authority_key(self) -> bytes:
        """PKCS #8 DER of the key of the custodian's own TLS authority."""
        return self._secrets.tls_authority

    @property
    def device_authority_key(self) -> bytes:
        """PKCS #8 DER of the key that issues TPM identities."""
        return self._secrets.device_authority

    def wrap(self, plain: bytes, *, aad: bytes) -> bytes:
        """Return nonce, ciphertext and tag. Random nonces: far below 2**32 wraps under one key."""
        nonce = self.rng(_NONCE_BYTES)
        return nonce + self._wrapper.encrypt(nonce, plain, _WRAP_LABEL + aad)

    def unwrap(self, wrapped: bytes, *, aad: bytes) -> bytes:
        """Return what was wrapped with the same ``aad``. Raises ``Rejected`` (``wrong_key``)."""
        try:
            if len(wrapped) < _NONCE_BYTES + _TAG_BYTES:
                raise InvalidTag  # noqa: TRY301 - one answer for every cause
            return self._wrapper.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], _WRAP_LABEL + aad)
        except InvalidTag as exc:
            raise Rejected.because("wrong_key", "vault", hint="this vault did not wrap it, or it was altered") from exc

    def __repr__(self) -> str:
        """Show public names only."""
        return f"EncryptedFileVault({self.kid})"


def _header(kdf: Kdf, salt: bytes, nonce: bytes) -> dict[str, str | int]:
    return {
        "kdf": "argon2id",
        "lanes": kdf.lanes,
        "memory_kib": kdf.memory_kib,
        "nonce": dump_b64u(nonce),
        "passes": kdf.passes,
        "salt": dump_b64u(salt),
        "v": 1,
    }


def _lock(content: bytes, secret: bytes, kdf: Kdf, rng: Callable[[int], bytes]) -> bytes:
    """Return the vault file for ``content``."""
    salt, nonce = rng(_SALT_BYTES), rng(_NONCE_BYTES)
    header = _header(kdf, salt, nonce)
    sealed = AESGCM(kdf.derive(secret, salt)).encrypt(nonce, content, dump_json(header))
    return dump_json({**header, "sealed": dump_b64u(sealed)})


def _unlock(data: bytes, secret: bytes) -> bytes:
    """Return the content of a vault file. The costs are bounded before any memory is taken."""
    fields = Fields.parse(data, what="vault file", cap=_MAX_VAULT_BYTES, canonical=True)
    fields.literal("v", 1)
    fields.literal("kdf", "argon2id")
    kdf = Kdf(
        memory_kib=fields.integer("memory_kib", floor=64, cap=1 << 20),
        passes=fields.integer("passes", floor=1, cap=16),
        lanes=fields.integer("lanes", floor=1, cap=16),
    )
    salt, nonce = fields.b64u("salt", size=_SALT_BYTES), fields.b64u("nonce", size=_NONCE_BYTES)
    sealed = fields.b64u("sealed", cap=_MAX_VAULT_BYTES)
    fields.end()
    if kdf.memory_kib < 8 * kdf.lanes:  # RFC 9106 section 3.1: memory of at least 8 lanes
        msg = "vault file: memory_kib below 8 for each lane"
        raise Malformed(msg)
    try:
        return AESGCM(kdf.derive(secret, salt)).decrypt(nonce, sealed, dump_json(_header(kdf, salt, nonce)))
    except InvalidTag as exc:
        raise Rejected.because(
            "wrong_key", "vault file", hint="wrong passphrase or key file, or the vault was altered"
        ) from exc
