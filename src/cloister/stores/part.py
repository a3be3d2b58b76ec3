"""The parts of a package on their way: names, sizes, and bytes that were proven before they leave.

Bulk is read segment by segment, and each is held against its leaf: a package that rotted on the owner's disk is not
published. Memory: one segment, and the leaf hashes of one file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cloister.errors import Malformed, UsageError
from cloister.sealed.leaves import LEAF_BYTES, Leaves
from cloister.sealed.manifest import ENVELOPE_NAME, MANIFEST_NAME, SIGNATURE_NAME, blob_name, leaves_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloister.sealed.directory import Package
    from cloister.sealed.manifest import Manifest, SealedFile
    from cloister.sealed.open import ModelSource

__all__ = ["MAX_LEAVES_BYTES", "Part", "demand_part", "parts_of", "read_leaves"]

_PART = re.compile(r"manifest\.json|manifest\.sig|envelope\.json|blobs/[0-9a-f]{32}(?:\.leaves)?")
MAX_LEAVES_BYTES = 64 << 20  # bytes of leaf hashes of one file: 2 TiB in segments of 1 MiB, 8 GiB in those of 4 KiB


def demand_part(name: str) -> None:
    """Refuse names that no part of a package has: they would lead elsewhere. Raises ``UsageError``."""
    if not _PART.fullmatch(name):
        msg = f"sealed model: no part is called {name[:60]!a}"
        raise UsageError(msg)


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
        leaves = partial(read_leaves, source, entry)
        parts += [
            Part(name=leaves_name(entry.blob), size=entry.layout.count * LEAF_BYTES, read=partial(_one, leaves)),
            Part(name=blob_name(entry.blob), size=entry.layout.body_bytes, read=partial(_segments, source, entry)),
        ]
    small = {SIGNATURE_NAME: package.signature_bytes, MANIFEST_NAME: package.manifest_bytes}
    if envelope is not None:
        small = {ENVELOPE_NAME: envelope, **small}
    return (*parts, *(Part(name=name, size=len(data), read=partial(iter, (data,))) for name, data in small.items()))


def read_leaves(source: ModelSource, entry: SealedFile) -> bytes:
    """Return the leaf hashes of a file, proven by the root in its manifest. Raises ``Rejected`` or ``Malformed``."""
    size = entry.layout.count * LEAF_BYTES
    if size > MAX_LEAVES_BYTES:
        msg = f"{leaves_name(entry.blob)}: {size} bytes, want at most {MAX_LEAVES_BYTES}"
        raise Malformed(msg, hint="seal it anew with larger segments")
    data = source.read(leaves_name(entry.blob), 0, size)
    Leaves.verify(data, count=entry.layout.count, root=entry.leaf_root, subject=blob_name(entry.blob))
    return data


def _one(read: Callable[[], bytes]) -> Iterator[bytes]:
    yield read()


def _segments(source: ModelSource, entry: SealedFile) -> Iterator[bytes]:
    """Yield the encrypted segments, each once it passed. Raises ``Rejected`` (``digest_mismatch``)."""
    name, layout = blob_name(entry.blob), entry.layout
    data = read_leaves(source, entry)
    leaves = Leaves.verify(data, count=layout.count, root=entry.leaf_root, subject=name)
    for index in range(layout.count):
        offset, size = layout.body(index)
        segment = source.read(name, offset, size)
        leaves.verify_segment(index, segment)
        yield segment
