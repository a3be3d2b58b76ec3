"""What opens a vault file: a passphrase, a key file, a key service, or the file's own key come back from shares.

Not done here: asking a person (the command line does).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, TypeAlias

from cloister.custodian.vaults.key_service import KeyService
from cloister.errors import UsageError
from cloister.journal import Secret
from cloister.private_file import read_private, write_private

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["KEY_BYTES", "FileKey", "KeyFile", "Passphrase", "Unlock"]

KEY_BYTES: Final = 32  # bytes of every symmetric key of a vault
MIN_PASSPHRASE_BYTES = 8  # bytes; Argon2id makes guessing slow, not impossible
MAX_SECRET_BYTES = 4096  # bytes of a passphrase or key file


@dataclass(frozen=True, slots=True, init=False)
class Passphrase:
    """Unlocks by a passphrase somebody typed. It never prints itself."""

    held: Secret[bytes]

    def __init__(self, value: bytes) -> None:
        """Hold the passphrase."""
        object.__setattr__(self, "held", Secret(value))

    def secret(self) -> bytes:
        """Return the passphrase."""
        value = self.held.reveal()
        if not MIN_PASSPHRASE_BYTES <= len(value) <= MAX_SECRET_BYTES:
            msg = f"passphrase: want {MIN_PASSPHRASE_BYTES} to {MAX_SECRET_BYTES} bytes"
            raise UsageError(msg)
        return value


@dataclass(frozen=True, slots=True)
class KeyFile:
    """Unlocks by a file of at least 32 random bytes that only its owner can read. ``is_new``: made a moment ago."""

    path: Path
    is_new: bool = False

    def secret(self) -> bytes:
        """Return the file's bytes. Raises ``UsageError`` when anybody else could read it."""
        data = read_private(self.path, cap=MAX_SECRET_BYTES)
        if len(data) < KEY_BYTES:
            msg = f"key file {self.path}: {len(data)} bytes, want at least {KEY_BYTES}"
            raise UsageError(msg)
        return data

    @classmethod
    def create(cls, path: Path, *, rng: Callable[[int], bytes] = os.urandom) -> Self:
        """Write a fresh key file, mode 0600. Refuses to replace one."""
        write_private(path, rng(KEY_BYTES))
        return cls(path, is_new=True)


@dataclass(frozen=True, slots=True, init=False)
class FileKey:
    """The key that encrypts one vault file, rebuilt from shares. It never prints itself."""

    held: Secret[bytes]

    def __init__(self, value: bytes) -> None:
        """Hold the key."""
        object.__setattr__(self, "held", Secret(value))


Unlock: TypeAlias = Passphrase | KeyFile | KeyService
"""What locks a vault and opens it again."""
