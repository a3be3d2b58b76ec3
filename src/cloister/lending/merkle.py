"""Merkle tree hashes, inclusion and consistency proofs over a log (RFC 6962 section 2.1).

The tree keeps the hashes of full subtrees only while it grows, and every leaf hash for proofs. Not
done here: what a leaf means, who signed a root.
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


def _split(size: int) -> int:
    """Return the largest power of two smaller than ``size``."""
    return 1 << ((size - 1).bit_length() - 1)


def _root(hashes: Sequence[bytes]) -> bytes:
    """Return the tree hash over leaf hashes, in one pass over a stack of full subtrees."""
    tree = MerkleTree(hashes)
    return tree.root()


class MerkleTree:
    """A growing tree: appending costs a few hashes, the root a few more."""

    __slots__ = ("_leaves", "_peaks", "_size")

    def __init__(self, leaf_hashes: Iterable[bytes] = ()) -> None:
        """Start with the hashes of leaves that are there already."""
        self._leaves: list[bytes] = []  # shared with copies; only the first ``_size`` are ours
        self._size = 0
        self._peaks: list[tuple[int, bytes]] = []  # (leaves below, hash) of full subtrees, largest first
        for leaf in leaf_hashes:
            self.append_hash(leaf)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._size

    def copy(self) -> MerkleTree:
        """Return a tree that grows on its own; copying costs next to nothing."""
        other = MerkleTree()
        other._leaves, other._size, other._peaks = self._leaves, self._size, list(self._peaks)
        return other

    def append(self, data: bytes) -> bytes:
        """Add a leaf and return its hash."""
        leaf = leaf_hash(data)
        self.append_hash(leaf)
        return leaf

    def append_hash(self, leaf: bytes) -> None:
        """Add a leaf by its hash."""
        if len(self._leaves) != self._size:  # a copy has grown: part from it
            self._leaves = self._leaves[: self._size]
        self._leaves.append(leaf)
        self._size += 1
        count, digest = 1, leaf
        while self._peaks and self._peaks[-1][0] == count:
            digest = node_hash(self._peaks.pop()[1], digest)
            count *= 2
        self._peaks.append((count, digest))

    def root(self) -> bytes:
        """Return the tree hash."""
        if not self._peaks:
            return EMPTY_ROOT
        digest = self._peaks[-1][1]
        for _, left in reversed(self._peaks[:-1]):
            digest = node_hash(left, digest)
        return digest

    def root_at(self, size: int) -> bytes:
        """Return the tree hash that this log had when it held ``size`` leaves."""
        self._demand(0 <= size <= self.size, f"size {size}")
        return _root(self._leaves[:size])

    def inclusion(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """Return the audit path of leaf ``index`` in the tree of ``size`` leaves (RFC 6962 section 2.1.1)."""
        until = self.size if size is None else size
        self._demand(0 <= index < until <= self.size, f"leaf {index} of {until}")
        return tuple(_path(index, self._leaves[:until]))

    def consistency(self, old: int, size: int | None = None) -> tuple[bytes, ...]:
        """Return the proof that the first ``old`` leaves are still there (RFC 6962 section 2.1.2)."""
        until = self.size if size is None else size
        self._demand(0 <= old <= until <= self.size, f"size {old} to {until}")
        if old in (0, until):
            return ()
        return tuple(_subproof(old, self._leaves[:until], whole=True))

    def _demand(self, fits: bool, what: str) -> None:  # noqa: FBT001 - an internal guard
        if not fits:
            msg = f"merkle tree: {what} of a tree with {self.size} leaves"
            raise UsageError(msg)


def _path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    cut = _split(len(leaves))
    if index < cut:
        return [*_path(index, leaves[:cut]), _root(leaves[cut:])]
    return [*_path(index - cut, leaves[cut:]), _root(leaves[:cut])]


def _subproof(old: int, leaves: Sequence[bytes], *, whole: bool) -> list[bytes]:
    if old == len(leaves):
        return [] if whole else [_root(leaves)]
    cut = _split(len(leaves))
    if old <= cut:
        return [*_subproof(old, leaves[:cut], whole=whole), _root(leaves[cut:])]
    return [*_subproof(old - cut, leaves[cut:], whole=False), _root(leaves[:cut])]


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
