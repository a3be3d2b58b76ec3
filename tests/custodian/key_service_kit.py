"""A key service in this process: wraps as a real one does, under a key that it was given."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.errors import Rejected

__all__ = ["LocalService"]


@dataclass
class LocalService:
    """Counts what it is asked. Its nonces repeat: it is for tests and for vectors."""

    name: str = "local:vault"
    key: bytes = field(default=bytes(range(32)), repr=False)
    asked: list[str] = field(default_factory=list)

    def wrap(self, key: bytes, *, context: str) -> bytes:
        """Return ``key`` under AES-256-GCM."""
        self.asked.append("wrap")
        return AESGCM(self.key).encrypt(bytes(12), key, context.encode())

    def unwrap(self, wrapped: bytes, *, context: str) -> bytes:
        """Return it, or refuse."""
        self.asked.append("unwrap")
        try:
            return AESGCM(self.key).decrypt(bytes(12), wrapped, context.encode())
        except (InvalidTag, ValueError) as exc:
            raise Rejected.because("wrong_key", self.name) from exc
