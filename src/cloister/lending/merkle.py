"""Merkle tree hashes, inclusion and consistency proofs over a log (RFC 6962 section 2.1).

The tree keeps the hash of every full subtree, so that roots of the past, paths, proofs and tiles are
looked up, not computed from all leaves. Not done here: what a leaf means, who signed a root, how hashes
are laid out in files (``tlog.tiles``).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from cloister.errors import Rejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "MerkleTree",
    "leaf_hash",
    "node_hash",
    "verify_consistency",
    "verify_inclusion",
]

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The tree hash of no leaf (RFC 6962 section 2.1)."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of one leaf; the prefix keeps leaves and nodes apart."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class MerkleTree:
    """A growing tree that remembers the hash of every full subtree: about two hashes, 64 bytes, for each leaf.

    Appending costs two hashes on average, also to a copy; a root, a path or a proof costs O(log n).
    """

    __slots__ = ("_base", "_own", "_shared", "_size")

    def __init__(self, leaf_hashes: Iterable[bytes] = ()) -> None:
        """Start with the hashes of leaves that are there already."""
        # Level k holds the hashes of full subtrees of 2**k leaves, in order and end to end: an object for each hash
        # would take three times the memory. A copy reads the first ``_base >> k`` of each level where the tree it was
        # made of keeps them, never writes there, and has what it adds to itself.
        self._shared: list[bytearray] = []
        self._base = 0
        self._own: list[bytearray] = [bytearray()]
        self._size = 0
        for leaf in leaf_hashes:
            self.append_hash(leaf)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._size

    def copy(self) -> MerkleTree:
        """Return a tree that grows on its own. Costs next to nothing, but for what was added to a copy.

        Safe beside a thread that adds leaves to this one, where this one is no copy.
        """
        other = MerkleTree()
        # The size first: a leaf that is added meanwhile is then beyond it.
        other._size = self._size
        if self._base:
            other._shared, other._base = self._shared, self._base
            other._own = [bytearray(level) for level in self._own]
        else:
            other._shared, other._base = self._own, other._size
            other._own = [bytearray() for _ in range(other._size.bit_length() or 1)]
        return other

    def append(self, data: bytes) -> bytes:
        """Add a leaf and return its hash."""
        leaf = leaf_hash(data)
        self.append_hash(leaf)
        return leaf

    def append_hash(self, leaf: bytes) -> None:
        """Add a leaf by its hash. Raises ``UsageError`` for what is no hash: it would shift all behind it."""
        self._demand(len(leaf) == HASH_BYTES, f"a leaf hash of {len(leaf)} bytes")
        digest, height = leaf, 0
        self._own[0] += leaf
        while self._size >> height & 1:  # the subtree to the left is full: so is the one above both
            digest = node_hash(self._hash(height, (self._size >> height) - 1), digest)
            height += 1
            if height == len(self._own):
                self._own.append(bytearray())
            self._own[height] += digest
        self._size += 1

    def root(self) -> bytes:
        """Return the tree hash."""
        return self.root_at(self._size)

    def root_at(self, size: int) -> bytes:
        """Return the tree hash that this log had when it held ``size`` leaves."""
        self._demand(0 <= size <= self.size, f"size {size}")
        return self._range(0, size) if size else EMPTY_ROOT

    def leaf(self, index: int) -> bytes:
        """Return the hash of leaf ``index``."""
        self._demand(0 <= index < self.size, f"leaf {index}")
        return self._hash(0, index)

    def subtrees(self, height: int, start: int, count: int) -> tuple[bytes, ...]:
        """Return the hashes of ``count`` full subtrees of ``2**height`` leaves, from the one numbered ``start`` on."""
        fits = height >= 0 and start >= 0 and count >= 0 and start + count <= self.size >> height
        self._demand(fits, f"{count} subtrees of height {height} from {start}")
        return tuple(self._hash(height, number) for number in range(start, start + count))

    def inclusion(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """Return the audit path of leaf ``index`` in the tree of ``size`` leaves (RFC 6962 section 2.1.1)."""
        until = self.size if size is None else size
        self._demand(0 <= index < until <= self.size, f"leaf {index} of {until}")
        start, path = 0, []
        while until - start > 1:
            cut = start + _split(until - start)
            if index < cut:
                path.append(self._range(cut, until))
                until = cut
            else:
                path.append(self._range(start, cut))
                start = cut
        return tuple(reversed(path))

    def consistency(self, old: int, size: int | None = None) -> tuple[bytes, ...]:
        """Return the proof that the first ``old`` leaves are still there (RFC 6962 section 2.1.2)."""
        until = self.size if size is None else size
        self._demand(0 <= old <= until <= self.size, f"size {old} to {until}")
        if old in (0, until):
            return ()
        start, proof = 0, []
        while old != until:
            cut = start + _split(until - start)
            if old <= cut:
                proof.append(self._range(cut, until))
                until = cut
            else:
                proof.append(self._range(start, cut))
                start = cut
        if start:  # else the old tree is one full subtree, whose hash the verifier has
            proof.append(self._range(start, until))
        return tuple(reversed(proof))

    def _range(self, start: int, until: int) -> bytes:
        """Return the tree hash over leaves ``start`` to ``until``, a part that RFC 6962 splits a tree into."""
        peaks = []
        while start < until:
            height = (until - start).bit_length() - 1
            peaks.append(self._hash(height, start >> height))
            start += 1 << height
        digest = peaks.pop()
        while peaks:
            digest = node_hash(peaks.pop(), digest)
        return digest

    def _hash(self, height: int, number: int) -> bytes:
        """Return the hash of the full subtree ``number`` of ``2**height`` leaves."""
        shared = self._base >> height
        level, place = (self._shared, number) if number < shared else (self._own, number - shared)
        return bytes(level[height][place * HASH_BYTES : (place + 1) * HASH_BYTES])

    def _demand(self, fits: bool, what: str) -> None:  # noqa: FBT001 - an internal guard
        if not fits:
            msg = f"merkle tree: {what} of a tree with {self.size} leaves"
            raise UsageError(msg)


def _split(size: int) -> int:
    """Return the largest power of two smaller than ``size``."""
    return 1 << ((size - 1).bit_length() - 1)


def verify_inclusion(leaf: bytes, *, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Prove that the leaf with hash ``leaf`` is at ``index`` in the tree of ``size`` leaves.

    RFC 9162 section 2.1.3.2. Raises ``Rejected`` (``not_included``).
    """
    if not 0 <= index < size:
        raise Rejected.because("not_included", f"leaf {index}", got=f"size {size}")
    node, last, digest = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise Rejected.because("not_included", f"leaf {index}", got="a path that is too long")
        if node & 1 or node == last:
            digest = node_hash(sibling, digest)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            digest = node_hash(digest, sibling)
        node, last = node >> 1, last >> 1
    if last or not hmac.compare_digest(digest, root):
        raise Rejected.because("not_included", f"leaf {index}", got=digest.hex(), want=root.hex())


def verify_consistency(*, old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Prove that the tree of ``size`` leaves extends the one of ``old_size`` leaves.

    RFC 9162 section 2.1.4.2. Raises ``Rejected`` (``not_consistent``).
    """
    refused = Rejected.because("not_consistent", f"log of {size}", got=root.hex(), want=f"extends {old_root.hex()}")
    if not 0 <= old_size <= size or any(len(part) != HASH_BYTES for part in proof):
        raise refused
    if old_size in (0, size):
        fits = not proof and old_root == (EMPTY_ROOT if old_size == 0 else root)
        if not fits:
            raise refused
        return
    if not proof:
        raise refused
    before, after = _fold(old_size, size, old_root, proof, refused)
    if not (hmac.compare_digest(before, old_root) and hmac.compare_digest(after, root)):
        raise refused


def _fold(old_size: int, size: int, old_root: bytes, proof: Sequence[bytes], refused: Rejected) -> tuple[bytes, bytes]:
    """Return the old and the new root that ``proof`` leads to."""
    node, last = old_size - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    # An old tree that is one full subtree is its own first part: the verifier has that hash already.
    before, parts = (proof[0], proof[1:]) if node else (old_root, proof)
    after = before
    for part in parts:
        if last == 0:
            raise refused
        if node & 1 or node == last:
            before, after = node_hash(part, before), node_hash(part, after)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            after = node_hash(after, part)
        node, last = node >> 1, last >> 1
    if last:
        raise refused
    return before, after
