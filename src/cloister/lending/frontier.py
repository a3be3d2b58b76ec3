"""The right edge of a growing Merkle tree: what it takes to add leaves and know the root, and nothing of the past.

RFC 6962 section 2.1: one hash for each full subtree, largest first, as many as the size has bits that are one. Who kept
the frontier of a log of n entries needs only the entries behind to prove a checkpoint over all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.errors import Malformed
from cloister.lending.merkle import EMPTY_ROOT, node_hash

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Frontier"]


@dataclass(frozen=True, slots=True)
class Frontier:
    """Size and peaks of a tree; ``peaks`` are the roots of its full subtrees from left to right."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, size: int, peaks: Sequence[bytes]) -> Frontier:
        """Return a frontier as somebody wrote it down. Raises ``Malformed`` for another number of hashes."""
        if len(peaks) != size.bit_count():
            msg = f"frontier: {len(peaks)} hashes, want {size.bit_count()} for {size} entries"
            raise Malformed(msg)
        return cls(size, tuple(peaks))

    def add(self, leaf: bytes) -> Frontier:
        """Return the frontier once a leaf, by its hash, was added."""
        peaks, height, digest = list(self.peaks), self.size, leaf
        while height & 1:
            digest, height = node_hash(peaks.pop(), digest), height >> 1
        return Frontier(self.size + 1, (*peaks, digest))

    def root(self) -> bytes:
        """Return the tree hash."""
        if not self.peaks:
            return EMPTY_ROOT
        *left, digest = self.peaks
        for peak in reversed(left):
            digest = node_hash(peak, digest)
        return digest
