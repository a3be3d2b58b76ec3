"""A vault whose failures are counted: what it does and raises is the vault's own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cloister.errors import CloisterError, Rejected, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloister.crypto.mldsa import SecondSigner
    from cloister.crypto.sign import SigningKey
    from cloister.custodian.vaults import Vault
    from cloister.custodian.vaults.kek import Kek

__all__ = ["WatchedVault"]


class WatchedVault:
    """Passes every call on; ``failed`` is told the kind of each fault: ``rejected``, ``unavailable``, ``usage``."""

    def __init__(self, vault: Vault, failed: Callable[[str], None]) -> None:
        """Watch ``vault``."""
        self._vault, self._failed = vault, failed

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        try:
            yield
        except CloisterError as exc:
            self._failed(
                "unavailable" if isinstance(exc, Unavailable) else "rejected" if isinstance(exc, Rejected) else "usage"
            )
            raise

    @property
    def kid(self) -> str:
        """The vault's name in envelopes."""
        return self._vault.kid

    @property
    def kek_id(self) -> str:
        """The name of its own key-encryption key."""
        return self._vault.kek_id

    @property
    def signing_key(self) -> SigningKey:
        """The custodian's key."""
        return self._vault.signing_key

    @property
    def publisher_key(self) -> SigningKey:
        """The key that signs manifests."""
        return self._vault.publisher_key

    def second_publisher(self) -> SecondSigner:
        """Return the second key that signs manifests."""
        with self._watching():
            return self._vault.second_publisher()

    @property
    def tls_authority_key(self) -> bytes:
        """The TLS authority's key."""
        return self._vault.tls_authority_key

    @property
    def device_authority_key(self) -> bytes:
        """The key that issues TPM identities."""
        return self._vault.device_authority_key

    def wrap(self, plain: bytes, *, aad: bytes) -> bytes:
        """Wrap."""
        with self._watching():
            return self._vault.wrap(plain, aad=aad)

    def unwrap(self, wrapped: bytes, *, aad: bytes) -> bytes:
        """Unwrap."""
        with self._watching():
            return self._vault.unwrap(wrapped, aad=aad)

    def make_kek(self) -> tuple[Kek, bytes]:
        """Make a key-encryption key."""
        with self._watching():
            return self._vault.make_kek()

    def open_kek(self, kek_id: str, wrapped: bytes) -> Kek:
        """Open one that it made."""
        with self._watching():
            return self._vault.open_kek(kek_id, wrapped)
