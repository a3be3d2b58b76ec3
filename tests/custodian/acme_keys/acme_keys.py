"""A key service of somebody else's: keys are files in a folder. Of Cloister it knows the errors alone."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.errors import Rejected, Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

NONCE_BYTES = 12
FOLDER = "ACME_KEYS"

if marker := os.environ.get("ACME_MARKER"):
    Path(marker).touch()  # for the tests: who imports this is seen


@dataclass(frozen=True)
class AcmeKey:
    """One key. ``name`` is what the operator typed after ``--vault``."""

    name: str
    path: Path = field(repr=False)

    def wrap(self, key: bytes, *, context: str) -> bytes:
        """Return ``key`` encrypted, bound to ``context``."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher().encrypt(nonce, key, context.encode())

    def unwrap(self, wrapped: bytes, *, context: str) -> bytes:
        """Return what was wrapped in the same ``context``."""
        try:
            return self._cipher().decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], context.encode())
        except (InvalidTag, ValueError) as exc:
            raise Rejected.because("wrong_key", self.name) from exc

    def _cipher(self) -> AESGCM:
        try:
            return AESGCM(self.path.read_bytes())
        except FileNotFoundError as exc:
            raise Rejected.because("no_such_key", self.name) from exc
        except OSError as exc:
            raise Unavailable(f"{self.name}: {exc.strerror}") from exc


def connect(name: str, environment: Mapping[str, str]) -> AcmeKey:
    """Return the key that ``name`` says, ``acme:KEY``. Nothing is asked yet."""
    folder, key = environment.get(FOLDER, ""), name.removeprefix("acme:")
    if not folder or not key.isalnum():
        raise UsageError(f"acme: want acme:KEY, and the folder of keys in {FOLDER}")
    return AcmeKey(name, Path(folder) / key)
