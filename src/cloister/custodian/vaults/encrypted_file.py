"""The embedded vault: one file, encrypted under a passphrase or under a key file (docs/spec/vault.md).

A key file and the vault file must be readable by their owner only.

Not done here: guarding the unlocked keys in memory; a custodian's host is trusted with its own keys.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloister.crypto.mldsa import SEED_BYTES, SecondSigner
from cloister.crypto.sign import SigningKey
from cloister.custodian.vaults.kek import Kek, KekRing
from cloister.custodian.vaults.shares import rebuild_key, share_key, vault_digest
from cloister.custodian.vaults.unlock import KEY_BYTES, FileKey, KeyFile, Passphrase, Unlock
from cloister.custodian.vaults.vault_file import MAX_VAULT_BYTES, Kdf, lock_content, open_content
from cloister.errors import CloisterError
from cloister.private_file import read_private, replace_private, write_private
from cloister.wire import Fields, dump_b64u, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cloister.custodian.vaults.shares import Division, Share

__all__ = ["EncryptedFileVault", "Kdf", "KeyFile", "Passphrase", "Unlock", "open_by_shares", "relock", "split_vault"]

_SECOND_LABEL = b"cloister/vault/v1/second-publisher"


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
        fields = Fields.parse(data, what="vault content", cap=MAX_VAULT_BYTES, canonical=True)
        secrets = cls(
            kek=fields.b64u("kek", size=KEY_BYTES),
            signing=fields.b64u("signing", size=KEY_BYTES),
            publisher=fields.b64u("publisher", size=KEY_BYTES),
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

    __slots__ = ("_kek", "_ring", "_secrets", "file_digest", "kek_id", "kid", "publisher_key", "signing_key")

    def __init__(self, secrets: _Secrets, *, file: bytes, rng: Callable[[int], bytes] = os.urandom) -> None:
        """Keep the content of an opened vault file, and which file that was."""
        self._secrets = secrets
        self.file_digest = vault_digest(file)
        self._kek = Kek(secrets.kek, rng=rng)
        self._ring = KekRing(kek=secrets.kek, signing=secrets.signing, rng=rng)
        self.signing_key = SigningKey(secrets.signing)
        self.publisher_key = SigningKey(secrets.publisher)
        self.kid = f"vault:{self.signing_key.key_id}"
        self.kek_id = self._kek.id

    @classmethod
    def create(
        cls, path: Path, unlock: Unlock, *, rng: Callable[[int], bytes] = os.urandom, kdf: Kdf | None = None
    ) -> Self:
        """Make fresh keys and write them to ``path``, mode 0600. Refuses to replace a vault."""
        secrets = _Secrets(
            kek=rng(KEY_BYTES),
            signing=rng(KEY_BYTES),
            publisher=rng(KEY_BYTES),
            tls_authority=_new_ec_key(),
            device_authority=_new_ec_key(),
        )
        data = lock_content(secrets.dump(), unlock, rng=rng, kdf=kdf)
        open_content(data, unlock)  # a vault that nobody can open must never be made
        write_private(path, data)
        return cls(secrets, file=data, rng=rng)

    @classmethod
    def open(cls, path: Path, unlock: Unlock | FileKey, *, rng: Callable[[int], bytes] = os.urandom) -> Self:
        """Return the vault. Raises ``Rejected`` (``wrong_key``), ``Malformed``, ``UsageError``."""
        data = read_vault(path)
        return cls(_Secrets.parse(open_content(data, unlock).content), file=data, rng=rng)

    def second_publisher(self) -> SecondSigner:
        """Return the key that signs manifests a second time. Raises ``Unavailable`` where OpenSSL has no ML-DSA.

        Derived (docs/spec/vault.md): not from the publisher's key alone, which may fall with elliptic curves.
        """
        derive = HKDF(algorithm=SHA256(), length=SEED_BYTES, salt=None, info=_SECOND_LABEL)
        return SecondSigner(derive.derive(self._secrets.publisher + self._secrets.kek))

    @property
    def tls_authority_key(self) -> bytes:
        """PKCS #8 DER of the key of the custodian's own TLS authority."""
        return self._secrets.tls_authority

    @property
    def device_authority_key(self) -> bytes:
        """PKCS #8 DER of the key that issues TPM identities."""
        return self._secrets.device_authority

    def wrap(self, plain: bytes, *, aad: bytes) -> bytes:
        """Return ``plain`` encrypted under the vault file's own key-encryption key."""
        return self._kek.wrap(plain, aad=aad)

    def unwrap(self, wrapped: bytes, *, aad: bytes) -> bytes:
        """Return what was wrapped with the same ``aad``. Raises ``Rejected`` (``wrong_key``)."""
        return self._kek.unwrap(wrapped, aad=aad)

    def make_kek(self) -> tuple[Kek, bytes]:
        """Return a new key-encryption key and the bytes by which ``open_kek`` has it again."""
        return self._ring.make()

    def open_kek(self, kek_id: str, wrapped: bytes) -> Kek:
        """Return a key-encryption key that this vault made. Raises ``Rejected`` (``wrong_key``)."""
        return self._ring.open(kek_id, wrapped)

    def __repr__(self) -> str:
        """Show public names only."""
        return f"EncryptedFileVault({self.kid})"


def read_vault(path: Path) -> bytes:
    """Return a vault file's bytes. Raises ``UsageError`` where anybody but its owner could touch it."""
    return read_private(path, cap=MAX_VAULT_BYTES)


def split_vault(
    path: Path, unlock: Unlock, division: Division, *, rng: Callable[[int], bytes] = os.urandom
) -> tuple[Share, ...]:
    """Return shares that open this vault file as it is now. It is opened first, so they do."""
    data = read_vault(path)
    return share_key(open_content(data, unlock).key, division, vault_file=data, rng=rng)


def open_by_shares(path: Path, shares: Sequence[Share]) -> FileKey:
    """Return the key of the vault file, proven by opening it. Raises as ``rebuild_key``, ``Rejected``."""
    data = read_vault(path)
    key = FileKey(rebuild_key(shares, vault_file=data))
    open_content(data, key)
    return key


def relock(
    path: Path,
    old: Unlock | FileKey,
    new: Unlock,
    *,
    note: Callable[[SigningKey, str, str], None] = lambda _key, _before, _after: None,
    rng: Callable[[int], bytes] = os.urandom,
    kdf: Kdf | None = None,
) -> None:
    """Lock the same content anew under ``new``, in place and at once. Old secrets and old shares open it no more.

    ``note`` gets the key that signs, and the digests of the old file and of the new one, before that takes its place;
    where it raises, the vault stays as it was. A copy of the old file still opens by what opened it, and holds the same
    keys. A key file that was made for this goes again where the vault stays as it was.
    """
    try:
        _relock(path, old, new, note=note, rng=rng, kdf=kdf)
    except BaseException:
        if isinstance(new, KeyFile) and new.is_new and _opens(path, old):
            new.path.unlink(missing_ok=True)  # it opens nothing, and would stand in the way of the next try
        raise


def _opens(path: Path, unlock: Unlock | FileKey) -> bool:
    try:
        open_content(read_vault(path), unlock)
    except CloisterError:
        return False
    return True


def _relock(
    path: Path,
    old: Unlock | FileKey,
    new: Unlock,
    *,
    note: Callable[[SigningKey, str, str], None],
    rng: Callable[[int], bytes],
    kdf: Kdf | None,
) -> None:
    data = read_vault(path)
    content = open_content(data, old).content
    fresh = lock_content(content, new, rng=rng, kdf=kdf)
    open_content(fresh, new)  # a vault that nobody can open must not take the old one's place
    note(SigningKey(_Secrets.parse(content).signing), vault_digest(data), vault_digest(fresh))
    replace_private(path, fresh)
