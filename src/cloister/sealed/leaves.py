"""Leaf hashes of a blob: a SHA-256 Merkle tree over its encrypted segments (RFC 9162 section 2.1).

Whoever holds the model key can forge AES-GCM; nobody can forge these without the publisher's
signature. They also let a mirror be checked without any key. Not done here: reading the segments.
"""

from __future__ import annotations

import hashlib
from hmac import compare_digest
from typing import TYPE_CHECKING

from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LEAF_BYTES", "Leaves", "leaf_hash", "leaf_root"]

LEAF_BYTES = 32


def leaf_hash(segment: bytes | bytearray | memoryview) -> bytes:
    """Return the leaf hash of one encrypted segment: SHA-256 over 0x00 and the segment."""
    digest = hashlib.sha256(b"\x00")
    digest.update(segment)
    return digest.digest()


def leaf_root(leaves: Iterable[bytes]) -> bytes:
    """Return the Merkle tree hash of ``leaves``, in memory that grows with the tree's height only.

    Equal to the recursive definition: full subtrees merge as they fill, the rest from the right.
    """
    peaks: list[tuple[int, bytes]] = []  # height and hash of full subtrees, left to right
    for leaf in leaves:
        height, node = 0, leaf
        while peaks and peaks[-1][0] == height:
            node = _parent(peaks.pop()[1], node)
            height += 1
        peaks.append((height, node))
    if not peaks:
        return hashlib.sha256().digest()
    _, root = peaks.pop()
    while peaks:
        root = _parent(peaks.pop()[1], root)
    return root


def _parent(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class Leaves:
    """The verified leaf hashes of one blob; only ``verify`` makes one."""

    __slots__ = ("_subject", "data")

    def __init__(self, data: bytes, subject: str) -> None:
        """Keep verified leaf hashes, one after another. Use ``verify``."""
        self.data = data
        self._subject = subject

    @classmethod
    def verify(cls, data: bytes, *, count: int, root: bytes, subject: str) -> Leaves:
        """Return the leaves once they are proven to be ``count`` and to hash to ``root``.

        Raises ``Rejected`` (``digest_mismatch``).
        """
        if len(data) != count * LEAF_BYTES:
            raise Rejected.because(
                "digest_mismatch", f"{subject}: leaves", got=f"{len(data)} bytes", want=f"{count * LEAF_BYTES}"
            )
        got = leaf_root(data[at : at + LEAF_BYTES] for at in range(0, len(data), LEAF_BYTES))
        if not compare_digest(got, root):
            raise Rejected.because("digest_mismatch", f"{subject}: leaf root", got=got.hex(), want=root.hex())
        return cls(data, subject)

    def verify_segment(self, index: int, segment: bytes | bytearray | memoryview) -> None:
        """Prove that ``segment`` is encrypted segment ``index``. Raises ``Rejected`` (``digest_mismatch``)."""
        want = self.data[index * LEAF_BYTES : (index + 1) * LEAF_BYTES]
        got = leaf_hash(segment)
        if not compare_digest(got, want):
            raise Rejected.because(
                "digest_mismatch", f"{self._subject}: segment {index}", got=got.hex(), want=want.hex()
            )
