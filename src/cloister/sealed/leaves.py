"""Leaf hashes of a blob: a Merkle tree over its encrypted segments (RFC 9162 section 2.1).

Whoever holds the model key can forge AES-GCM; nobody can forge these without the publisher's
signature. They also let a mirror be checked without any key. Nodes are SHA-256. A leaf is BLAKE3, which takes a quarter
of the time on processors with wide vectors, or SHA-256, where a site's rules want that (ADR 0051); the manifest says
which. Not done here: reading the segments.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from hmac import compare_digest
from typing import TYPE_CHECKING, assert_never

from blake3 import blake3

from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LEAF_BYTES", "LeafHash", "Leaves", "leaf_hash", "leaf_root"]

LEAF_BYTES = 32
_CONTEXT = "cloister sealed model v1 leaf"


class LeafHash(StrEnum):
    """How a leaf is made."""

    SHA256 = "sha256"
    BLAKE3 = "blake3"


def leaf_hash(segment: bytes | bytearray | memoryview, kind: LeafHash) -> bytes:
    """Return the leaf hash of one encrypted segment.

    SHA-256 over 0x00 and the segment; or BLAKE3 of the segment, in the mode that derives keys, whose context no other
    use of BLAKE3 has. Neither is a node, nor the other.
    """
    match kind:
        case LeafHash.SHA256:
            digest = hashlib.sha256(b"\x00")
            digest.update(segment)
            return digest.digest()
        case LeafHash.BLAKE3:
            return blake3(segment, derive_key_context=_CONTEXT).digest()
        case _:
            assert_never(kind)


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

    __slots__ = ("_kind", "_subject", "data")

    def __init__(self, data: bytes, subject: str, kind: LeafHash) -> None:
        """Keep verified leaf hashes, one after another. Use ``verify``."""
        self.data = data
        self._kind = kind
        self._subject = subject

    @classmethod
    def verify(cls, data: bytes, *, count: int, root: bytes, subject: str, kind: LeafHash) -> Leaves:
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
        return cls(data, subject, kind)

    def verify_segment(self, index: int, segment: bytes | bytearray | memoryview) -> None:
        """Prove that ``segment`` is encrypted segment ``index``. Raises ``Rejected`` (``digest_mismatch``)."""
        want = self.data[index * LEAF_BYTES : (index + 1) * LEAF_BYTES]
        got = leaf_hash(segment, self._kind)
        if not compare_digest(got, want):
            raise Rejected.because(
                "digest_mismatch", f"{self._subject}: segment {index}", got=got.hex(), want=want.hex()
            )
