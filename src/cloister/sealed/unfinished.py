"""What a sealing that was interrupted leaves beside its package, so that it can be gone on with.

Canonical JSON of docs/spec/sealed-model.md, "Going on". It holds keys, and none in clear: the vault wraps the model
key, the model key wraps every file key, bound to all that is said of the file. Not done here: where it lies
(``unfinished_folder``), and which segments are whole (``resume``).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from cloister.errors import UsageError
from cloister.sealed.begun import BegunFile
from cloister.sealed.keys import unwrap_begun_key, wrap_begun_key
from cloister.sealed.manifest import MAX_FILES, ROOT_BYTES, WRAPPED_KEY_BYTES, SealedFile
from cloister.sealed.paths import parse_paths
from cloister.wire import Fields, Json, dump_b64u, dump_json, lp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from cloister.sealed.directory import PlainFile

__all__ = [
    "MAX_UNFINISHED_BYTES",
    "NO_STAMP",
    "UNFINISHED_NAME",
    "KeyWrap",
    "Stamped",
    "Unfinished",
    "stamp_of",
]

VERSION = 1
UNFINISHED_NAME = "unfinished.json"
MAX_UNFINISHED_BYTES = 1 << 20
MAX_WRAPPED_DEK_BYTES = 4096
_STAMP_BYTES = 32
NO_STAMP = bytes(_STAMP_BYTES)
"""Of a file whose times prove nothing: it is held byte by byte against what was sealed of it."""
_SETTLED = timedelta(seconds=2)  # the coarsest clock of a file system in use
_LABEL = b"cloister/sealed-model/v1/unfinished-dek"
_STAMP_LABEL = b"cloister/sealed-model/v1/unfinished-stamp"
_KID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+=-]{0,254}")


class KeyWrap(Protocol):
    """Who keeps the model key of an unfinished sealing: the vault. Raises as ``custodian.vaults.Vault``."""

    @property
    def kid(self) -> str:
        """Its name."""
        ...

    def wrap(self, plain: bytes, *, aad: bytes) -> bytes:
        """Return ``plain`` encrypted and bound to ``aad``."""
        ...

    def unwrap(self, wrapped: bytes, *, aad: bytes) -> bytes:
        """Return what was wrapped with the same ``aad``. Raises ``Rejected`` (``wrong_key``)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamped:
    """A file that was begun, and the stamp its source had: an entry without leaf root, its key wrapped."""

    entry: SealedFile
    stamp: bytes

    @classmethod
    def wrap(cls, file: BegunFile, stamp: bytes, dek: bytes | bytearray, random: Callable[[int], bytes]) -> Stamped:
        """Return the record of ``file``."""
        wrapped = wrap_begun_key(dek, file.key, file.draft, stamp, random)
        return cls(entry=replace(file.draft, wrapped_key=wrapped), stamp=stamp)

    def unwrap(self, dek: bytes | bytearray) -> BegunFile:
        """Return the file as it was begun, nothing of it looked at. Raises ``Rejected`` (``wrong_key``)."""
        key = unwrap_begun_key(dek, self.entry, self.stamp)
        return BegunFile.of(replace(self.entry, wrapped_key=bytes(WRAPPED_KEY_BYTES)), key, has_blob=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """All that is needed to go on, for whoever has the vault."""

    kid: str
    wrapped_dek: bytes
    files: tuple[Stamped, ...]

    @staticmethod
    def wrap_dek(vault: KeyWrap, dek: bytes | bytearray) -> bytes:
        """Return the model key as only ``vault`` opens it, and as no envelope holds it."""
        return vault.wrap(bytes(dek), aad=lp(_LABEL, vault.kid.encode()))

    def unwrap_dek(self, vault: KeyWrap) -> bytearray:
        """Return the model key. Raises ``UsageError`` for another vault, ``Rejected`` (``wrong_key``)."""
        if vault.kid != self.kid:
            msg = f"unfinished sealing: begun with {self.kid}, and this is {vault.kid}"
            raise UsageError(msg, hint="pass --home of the custodian that began it, or remove the unfinished folder")
        return bytearray(vault.unwrap(self.wrapped_dek, aad=lp(_LABEL, vault.kid.encode())))

    def dump(self) -> bytes:
        """Return the canonical bytes."""
        return dump_json(
            {
                "files": [{**_members(item.entry), "stamp": item.stamp.hex()} for item in self.files],
                "kid": self.kid,
                "v": VERSION,
                "wrapped_dek": dump_b64u(self.wrapped_dek),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Unfinished:
        """Return it, nothing unwrapped. Raises ``Malformed``."""
        fields = Fields.parse(data, what="unfinished sealing", cap=MAX_UNFINISHED_BYTES, canonical=True)
        fields.version(VERSION)
        unfinished = cls(
            kid=fields.match("kid", _KID),
            wrapped_dek=fields.b64u("wrapped_dek", cap=MAX_WRAPPED_DEK_BYTES),
            files=tuple(_stamped(item) for item in fields.items("files", cap=MAX_FILES)),
        )
        fields.end()
        entries: Sequence[SealedFile] = [item.entry for item in unfinished.files]
        parse_paths([entry.path for entry in entries], what="unfinished sealing: path")
        if len({entry.blob for entry in entries}) != len(entries):
            fields.fail("files", "two files share a blob")
        return unfinished


def _members(entry: SealedFile) -> dict[str, Json]:
    """Return what a manifest says of a file, but for the leaf root, which is not known."""
    value = entry.to_json()
    return {name: item for name, item in value.items() if name != "leaf_root"} if isinstance(value, dict) else {}


def _stamped(value: Json) -> Stamped:
    fields = Fields(value, what="unfinished sealing: file")
    stamp = fields.hex("stamp", size=_STAMP_BYTES)
    members = value if isinstance(value, dict) else {}
    entry = {name: item for name, item in members.items() if name != "stamp"}
    if "leaf_root" in entry:
        fields.fail("leaf_root", "is not known yet")
    return Stamped(entry=SealedFile.from_json({**entry, "leaf_root": bytes(ROOT_BYTES).hex()}), stamp=stamp)


def stamp_of(plain: PlainFile, now: datetime) -> bytes:
    """Return what tells a file apart from itself changed; ``NO_STAMP`` where it was changed just now.

    A file system's clock is coarse: what changes within one of its ticks shows nothing.
    """
    times = (plain.stamp[-1], plain.changed_ns)
    if max(times) > (now - _SETTLED).timestamp() * 1e9:
        return NO_STAMP
    numbers = b"".join(number.to_bytes(16, "big", signed=True) for number in (*plain.stamp, plain.changed_ns))
    return hashlib.sha256(lp(_STAMP_LABEL, numbers)).digest()
