"""The folder in which files come and go on removable media (docs/spec/voucher.md, section 7).

    out: challenge-request.json  attest.json  voucher-request.json  consumption.json  close.json  usage-<first>.json
    in:  challenge.json  grant.json  voucher.json  revocations.json  ask

Everything that counts in it is a signed statement, bound to this instance's memory: whoever writes here can keep
files away and put others in their place, and that is all. No count is read back. Files are written whole or not.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from typing import TYPE_CHECKING

from cloister.crypto.sign import MAX_STATEMENT_BYTES
from cloister.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "ASK",
    "ATTEST",
    "CHALLENGE",
    "CHALLENGE_REQUEST",
    "CLOSE",
    "CONSUMPTION",
    "GRANT",
    "REVOCATIONS",
    "USAGE_FILES",
    "VOUCHER",
    "VOUCHER_REQUEST",
    "MediaFolder",
    "usage_file",
]

ASK = "ask"
ATTEST = "attest.json"
CHALLENGE = "challenge.json"
CHALLENGE_REQUEST = "challenge-request.json"
CLOSE = "close.json"
CONSUMPTION = "consumption.json"
GRANT = "grant.json"
REVOCATIONS = "revocations.json"
VOUCHER = "voucher.json"
VOUCHER_REQUEST = "voucher-request.json"
USAGE_FILES = "usage-*.json"


def usage_file(first: int) -> str:
    """Return the name of the usage report that begins at this record; names sort as records do."""
    return f"usage-{first:012d}.json"


class MediaFolder:
    """Reads what is new and writes what is ours. Remembers what it has read, so that a file counts once."""

    def __init__(self, folder: Path) -> None:
        """Take the folder as it is: what lies in it now is old, but for revocations.

        Raises ``UsageError`` where it is none.
        """
        if not folder.is_dir():
            msg = f"{folder}: no folder"
            raise UsageError(msg, hint="make the folder that the setting 'media' names")
        self._folder = folder
        self._seen = {name: _digest(self._bytes(name)) for name in (CHALLENGE, GRANT, VOUCHER)}

    def fresh(self, name: str) -> bytes | None:
        """Return a file that is new since it was last looked at, else None. One that is too large is none."""
        data = self._bytes(name)
        digest = _digest(data)
        if data is None or digest == self._seen.get(name):
            return None
        self._seen[name] = digest
        return data

    def take_ask(self) -> bool:
        """Tell whether somebody asked for a new voucher request; the question is gone then."""
        try:
            (self._folder / ASK).unlink()
        except OSError:  # not there, or not ours to remove: then nobody asked
            return False
        return True

    def write(self, name: str, data: bytes) -> None:
        """Put a file in the place of the one before. Raises ``Unavailable`` where the medium does not take it."""
        part = self._folder / f".{name}.part"
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._folder / name)
        except OSError as exc:
            with contextlib.suppress(OSError):
                part.unlink()
            msg = f"{self._folder / name}: {exc.strerror or exc}"
            raise Unavailable(msg) from exc

    def remove(self, name: str) -> None:
        """Take a file of ours away; where that fails it only lies there."""
        with contextlib.suppress(OSError):
            (self._folder / name).unlink()

    def _bytes(self, name: str) -> bytes | None:
        """Return a plain file of at most one statement, else None: a pipe or a device must not stop us."""
        try:
            handle = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_STATEMENT_BYTES:
                return None
            with os.fdopen(os.dup(handle), "rb") as file:
                data = file.read(MAX_STATEMENT_BYTES + 1)
        except OSError:
            return None
        finally:
            os.close(handle)
        return data if len(data) <= MAX_STATEMENT_BYTES else None


def _digest(data: bytes | None) -> bytes:
    return b"" if data is None else hashlib.sha256(data).digest()
