"""Keys at rest: one file per backend behind one Protocol.

A vault holds the key-encryption key and the custodian's own keys. The database holds wrapped keys
only, so that a stolen database or backup opens nothing (T19).

Error contract of every vault: ``Rejected`` (``wrong_key``) for what does not unwrap, one text for all
causes; ``Unavailable`` when the backend cannot be reached; ``UsageError`` when it was set up wrongly.
Not done here: deciding who gets a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from cloister.sealed.envelope import Envelope, Recipient, wrap_info

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.crypto.mldsa import SecondSigner
    from cloister.crypto.sign import SigningKey
    from cloister.custodian.vaults.kek import Kek

__all__ = ["FindKek", "Vault", "envelope_of", "unwrap_dek", "wrap_dek"]

FindKek: TypeAlias = "Callable[[str], Kek | None]"
"""Opens a key-encryption key that a rotation made, by its name; None for one that is not there, or no more."""


def _no_kek(_kek_id: str) -> None:
    """Know no key but the vault's own."""


class Vault(Protocol):
    """Where keys are kept. ``wrap`` and ``unwrap`` are what a key service would do for us."""

    @property
    def kid(self) -> str:
        """The name of this vault as a recipient in envelopes."""
        ...

    @property
    def kek_id(self) -> str:
        """The name of the key-encryption key in the vault file."""
        ...

    @property
    def signing_key(self) -> SigningKey:
        """The custodian's key: challenges, grants, leases, status, checkpoints."""
        ...

    @property
    def publisher_key(self) -> SigningKey:
        """The key that signs manifests of sealed models."""
        ...

    def second_publisher(self) -> SecondSigner:
        """Return the ML-DSA-65 key that signs manifests too. Raises ``Unavailable`` where OpenSSL has none."""
        ...

    @property
    def tls_authority_key(self) -> bytes:
        """PKCS #8 DER of the key of the custodian's own TLS authority."""
        ...

    @property
    def device_authority_key(self) -> bytes:
        """PKCS #8 DER of the key that issues TPM identities."""
        ...

    def wrap(self, plain: bytes, *, aad: bytes) -> bytes:
        """Return ``plain`` encrypted under the key-encryption key and bound to ``aad``."""
        ...

    def unwrap(self, wrapped: bytes, *, aad: bytes) -> bytes:
        """Return what was wrapped with the same ``aad``. Raises ``Rejected`` (``wrong_key``)."""
        ...

    def make_kek(self) -> tuple[Kek, bytes]:
        """Return a new key-encryption key and the bytes by which it rests outside of the vault."""
        ...

    def open_kek(self, kek_id: str, wrapped: bytes) -> Kek:
        """Return a key-encryption key that this vault made. Raises ``Rejected`` (``wrong_key``)."""
        ...


def wrap_dek(
    vault: Vault, dek: bytes, *, manifest_digest: str, key_version: int = 1, kek: Kek | None = None
) -> Recipient:
    """Return the envelope's entry that lets ``vault``, and nobody else, open this model.

    ``kek`` is the key-encryption key now in use, the vault file's own where there is no other.
    """
    kek_id, wrap = (vault.kek_id, vault.wrap) if kek is None else (kek.id, kek.wrap)
    aad = wrap_info(manifest_digest=manifest_digest, key_version=key_version, kid=vault.kid, kek_id=kek_id)
    return Recipient(kid=vault.kid, key_version=key_version, kek_id=kek_id, wrapped=wrap(dek, aad=aad))


def envelope_of(vault: Vault, dek: bytes | bytearray, manifest_digest: str) -> Envelope:
    """Return the envelope of a new model, for ``vault`` alone."""
    recipient = wrap_dek(vault, bytes(dek), manifest_digest=manifest_digest)
    return Envelope(manifest_digest=manifest_digest, recipients=(recipient,))


def unwrap_dek(vault: Vault, envelope: Envelope, keks: FindKek = _no_kek) -> tuple[bytes, int]:
    """Return the model key and its version. ``keks`` opens those that rotations made.

    Raises ``UsageError`` where the envelope is not for this vault, ``Rejected`` (``wrong_key``).
    """
    entry = envelope.recipient(vault.kid)
    aad = wrap_info(
        manifest_digest=envelope.manifest_digest, key_version=entry.key_version, kid=entry.kid, kek_id=entry.kek_id
    )
    kek = keks(entry.kek_id)
    opened = vault.unwrap(entry.wrapped, aad=aad) if kek is None else kek.unwrap(entry.wrapped, aad=aad)
    return opened, entry.key_version
