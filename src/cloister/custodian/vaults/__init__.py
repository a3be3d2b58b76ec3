"""Keys at rest: one file per backend behind one Protocol.

A vault holds the key-encryption key and the custodian's own keys. The database holds wrapped keys
only, so that a stolen database or backup opens nothing (T19).

Error contract of every vault: ``Rejected`` (``wrong_key``) for what does not unwrap, one text for all
causes; ``Unavailable`` when the backend cannot be reached; ``UsageError`` when it was set up wrongly.
Not done here: deciding who gets a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cloister.sealed.envelope import Recipient, wrap_info

if TYPE_CHECKING:
    from cloister.crypto.sign import SigningKey
    from cloister.sealed.envelope import Envelope

__all__ = ["Vault", "unwrap_dek", "wrap_dek"]


class Vault(Protocol):
    """Where keys are kept. ``wrap`` and ``unwrap`` are what a key service would do for us."""

    @property
    def kid(self) -> str:
        """The name of this vault as a recipient in envelopes."""
        ...

    @property
    def kek_id(self) -> str:
        """The name of the key-encryption key now in use."""
        ...

    @property
    def signing_key(self) -> SigningKey:
        """The custodian's key: challenges, grants, leases, status, checkpoints."""
        ...

    @property
    def publisher_key(self) -> SigningKey:
        """The key that signs manifests of sealed models."""
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


def wrap_dek(vault: Vault, dek: bytes, *, manifest_digest: str, key_version: int = 1) -> Recipient:
    """Return the envelope's entry that lets ``vault``, and nobody else, open this model."""
    aad = wrap_info(manifest_digest=manifest_digest, key_version=key_version, kid=vault.kid, kek_id=vault.kek_id)
    return Recipient(kid=vault.kid, key_version=key_version, kek_id=vault.kek_id, wrapped=vault.wrap(dek, aad=aad))


def unwrap_dek(vault: Vault, envelope: Envelope) -> tuple[bytes, int]:
    """Return the model key and its version. Raises ``UsageError`` where the envelope is not for this vault."""
    entry = envelope.recipient(vault.kid)
    aad = wrap_info(
        manifest_digest=envelope.manifest_digest, key_version=entry.key_version, kid=entry.kid, kek_id=entry.kek_id
    )
    return vault.unwrap(entry.wrapped, aad=aad), entry.key_version
