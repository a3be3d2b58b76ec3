"""The parts of a package on their way: names, sizes, and bytes that were proven before they leave.

Bulk is read segment by segment, and each is held against its leaf: a package that rotted on the owner's disk is not
published. Memory: one segment, and the leaf hashes of one file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cloister.sealed.leaves import LEAF_BYTES
from cloister.sealed.manifest import ENVELOPE_NAME, MANIFEST_NAME, SIGNATURE_NAME, blob_name, leaves_name
from cloister.sealed.parts import read_leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloister.sealed.manifest import Manifest, SealedFile
    from cloister.sealed.open import ModelSource
    from cloister.sealed.parts import Package

__all__ = ["Part", "parts_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part; ``read`` begins to read it anew each time, in pieces of at most one segment."""

    name: str
    size: int
    read: Callable[[], Iterator[bytes]]


def parts_of(source: ModelSource, manifest: Manifest, package: Package, envelope: bytes | None) -> tuple[Part, ...]:
    """Return every part in the order in which they must appear: bulk first, the manifest last."""
    parts = []
    for entry in manifest.files:
        leaves = partial(_leaves, source, entry)
        parts += [
            Part(name=leaves_name(entry.blob), size=entry.layout.count * LEAF_BYTES, read=partial(_one, leaves)),
            Part(name=blob_name(entry.blob), size=entry.layout.body_bytes, read=partial(_segments, source, entry)),
        ]
    small = {SIGNATURE_NAME: package.signature_bytes, MANIFEST_NAME: package.manifest_bytes}
    if envelope is not None:
        small = {ENVELOPE_NAME: envelope, **small}
    return (*parts, *(Part(name=name, size=len(data), read=partial(iter, (data,))) for name, data in small.items()))


def _leaves(source: ModelSource, entry: SealedFile) -> bytes:
    return read_leaves(source, entry).data


def _one(read: Callable[[], bytes]) -> Iterator[bytes]:
    yield read()


def _segments(source: ModelSource, entry: SealedFile) -> Iterator[bytes]:
    """Yield the encrypted segments, each once it passed. Raises ``Rejected`` (``digest_mismatch``)."""
    name, layout = blob_name(entry.blob), entry.layout
    leaves = read_leaves(source, entry)
    for index in range(layout.count):
        offset, size = layout.body(index)
        segment = source.read(name, offset, size)
        leaves.verify_segment(index, segment)
        yield segment
