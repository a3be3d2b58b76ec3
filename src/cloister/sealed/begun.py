"""A file that is being sealed: the blob it goes into, its key, and which of its segments are there.

Every sealing starts with one of these for each file; one that goes on finds some of the segments done
(docs/spec/sealed-model.md, "Going on"). Not done here: reading, encrypting and writing them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cloister.crypto.stream import KEY_BYTES, Encryptor
from cloister.sealed.keys import blob_aad, wrap_file_key
from cloister.sealed.leaves import LEAF_BYTES, leaf_root
from cloister.sealed.manifest import ROOT_BYTES, WRAPPED_KEY_BYTES, SealedFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.sealed.leaves import LeafHash
    from cloister.sealed.paths import ModelPath

__all__ = ["BLOB_ID_BYTES", "BegunFile"]

BLOB_ID_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunFile:
    """One file on its way into a package. ``wipe`` forgets the key; it never prints it."""

    draft: SealedFile
    """The entry of the manifest, with a leaf root and a wrapped key of zeros."""

    key: bytearray = field(repr=False)
    leaves: bytearray = field(repr=False)
    passed: bytearray = field(repr=False)
    """One byte a segment: 1 where it lies in the blob and its leaf is known."""

    has_blob: bool = False

    @classmethod
    def fresh(
        cls, path: ModelPath, size: int, segment_bytes: int, random: Callable[[int], bytes], kind: LeafHash
    ) -> BegunFile:
        """Begin a file: a new blob, a new key, a new FLOE message."""
        blob, key = random(BLOB_ID_BYTES).hex(), bytearray(random(KEY_BYTES))
        encryptor = Encryptor(key, aad=blob_aad(blob), segment_bytes=segment_bytes, random=random)
        encryptor.wipe()
        draft = SealedFile(
            path=path,
            size=size,
            blob=blob,
            header=encryptor.header,
            segment_bytes=segment_bytes,
            leaf_root=bytes(ROOT_BYTES),
            wrapped_key=bytes(WRAPPED_KEY_BYTES),
            leaf_hash=kind,
        )
        return cls.of(draft, key)

    @classmethod
    def of(cls, draft: SealedFile, key: bytearray, *, has_blob: bool = False) -> BegunFile:
        """Return a file of which no segment is known to be there."""
        count = draft.layout.count
        leaves, passed = bytearray(count * LEAF_BYTES), bytearray(count)
        return cls(draft=draft, key=key, leaves=leaves, passed=passed, has_blob=has_blob)

    def mark(self, index: int, leaf: bytes) -> None:
        """Note that segment ``index`` is in the blob, with this leaf hash."""
        self.leaves[index * LEAF_BYTES : (index + 1) * LEAF_BYTES] = leaf
        self.passed[index] = 1

    @property
    def missing(self) -> list[int]:
        """The segments that are not there."""
        return [index for index, passed in enumerate(self.passed) if not passed]

    @property
    def found_bytes(self) -> int:
        """Bytes of plaintext in the segments that are there."""
        layout, last = self.draft.layout, len(self.passed) - 1
        short = layout.plain_bytes - layout.plain(last)[1] if self.passed[last] else 0
        return self.passed.count(1) * layout.plain_bytes - short

    def entry(self, dek: bytes | bytearray, random: Callable[[int], bytes]) -> SealedFile:
        """Return the entry of the manifest, once every segment is there."""
        root = leaf_root(bytes(self.leaves[at : at + LEAF_BYTES]) for at in range(0, len(self.leaves), LEAF_BYTES))
        entry = replace(self.draft, leaf_root=root)
        return replace(entry, wrapped_key=wrap_file_key(dek, self.key, entry, random))

    def wipe(self) -> None:
        """Forget the key."""
        self.key[:] = bytes(len(self.key))
