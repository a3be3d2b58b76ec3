"""A new version of a model takes over what is unchanged of an older one: blob, leaves and file key.

Unchanged is proven, byte by byte: the old file is decrypted and held against the new one, where it lies in the new
package already, so that nobody exchanges it in between. Names and times prove nothing.
The bulk stays as it is; only its file key is wrapped anew, under the new version's key (docs/adr/0029).

Not done here: how a file becomes part of the new package, which the sink knows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from cloister.sealed.keys import unwrap_file_key, verify_dek, wrap_file_key
from cloister.sealed.leaves import LeafHash
from cloister.sealed.manifest import blob_name, leaves_name
from cloister.sealed.open import RandomAccess
from cloister.sealed.pages import Pages

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator
    from pathlib import Path

    from cloister.sealed.manifest import SealedFile
    from cloister.sealed.open import ModelSource, VerifiedManifest
    from cloister.sealed.seal import Plain, PlainSource, PlainT

__all__ = ["OldPackage", "Shelf"]

_STEP_BYTES = 1 << 20


class Shelf(Protocol):
    """The new package as parts are put into it."""

    @property
    def taken(self) -> ModelSource:
        """What reads the parts that were put into it."""
        ...

    def adopt(self, name: str, place: Path) -> None:
        """Take the file at ``place`` for part ``name``."""
        ...

    def drop(self, name: str) -> None:
        """Take a part out again."""
        ...


@dataclass(slots=True, kw_only=True)
class OldPackage:
    """An older version: its folder, its signed manifest, its key. Each of its blobs is taken over once at most."""

    root: Path
    source: ModelSource
    verified: VerifiedManifest
    dek: bytes | bytearray = field(repr=False)
    taken: dict[str, int] = field(default_factory=dict)
    """Sizes of the files that were taken over, by blob."""

    def __post_init__(self) -> None:
        """Prove the key before anything is compared. Raises ``Rejected`` (``wrong_key``)."""
        verify_dek(self.verified.manifest, self.dek)

    def find(
        self, plain: PlainT, source: PlainSource[PlainT], shelf: Shelf, *, segment_bytes: int, leaf_hash: LeafHash
    ) -> SealedFile | None:
        """Return the old file with exactly the content of ``plain``, its parts on ``shelf``; None where there is none.

        The one of the same path is looked at first, then others of the same size: shards are renamed when their
        number changes. A look at its beginning where it is saves moving most of those that differ. Leaves of SHA-256
        do whatever is asked for: no rule of a site forbids them.
        Raises as ``RandomAccess`` where the old package is damaged, as ``source`` and as ``shelf``.
        """
        for entry in self._candidates(plain, segment_bytes, {leaf_hash, LeafHash.SHA256}):
            if not self._is_same(entry, plain, source, at=self.source, size=min(_STEP_BYTES, entry.size)):
                continue
            parts = (blob_name(entry.blob), leaves_name(entry.blob))
            for part in parts:
                shelf.adopt(part, self.root / part)
            if self._is_same(entry, plain, source, at=shelf.taken, size=entry.size):
                self.taken[entry.blob] = entry.size
                return entry
            for part in parts:
                shelf.drop(part)
        return None

    def _candidates(self, plain: Plain, segment_bytes: int, hashes: Container[LeafHash]) -> Iterator[SealedFile]:
        fitting = [
            entry
            for entry in self.verified.manifest.files
            if (entry.size, entry.segment_bytes) == (plain.size, segment_bytes)
            and entry.leaf_hash in hashes
            and entry.blob not in self.taken
        ]
        yield from sorted(fitting, key=lambda entry: entry.path != plain.path)

    def _is_same(
        self, entry: SealedFile, plain: PlainT, source: PlainSource[PlainT], *, at: ModelSource, size: int
    ) -> bool:
        with RandomAccess(at, self.verified, self.dek, entry.path) as old, Pages(_STEP_BYTES) as pages:
            for offset in range(0, size, _STEP_BYTES):
                new = pages.view[: min(_STEP_BYTES, size - offset)]
                source.read_into(plain, offset, new)
                if old.read(offset, len(new)) != bytes(new):  # views would be compared item by item
                    return False
        return True

    def rewrap(
        self, entry: SealedFile, plain: Plain, dek: bytes | bytearray, random: Callable[[int], bytes]
    ) -> SealedFile:
        """Return the entry of a file that was taken over: under its new path, its key wrapped by the new ``dek``."""
        key = unwrap_file_key(self.dek, entry)
        try:
            moved = replace(entry, path=plain.path)
            return replace(moved, wrapped_key=wrap_file_key(dek, key, moved, random))
        finally:
            key[:] = bytes(len(key))
