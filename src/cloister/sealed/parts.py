"""The parts of a package, from any source: what they are called, and the small ones, bounded before they are read.

Not done here: the bulk (``open``), and deciding who published it (``publisher``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.errors import Malformed, Unavailable, UsageError
from cloister.sealed.envelope import MAX_ENVELOPE_BYTES, Envelope
from cloister.sealed.leaves import LEAF_BYTES, Leaves
from cloister.sealed.manifest import (
    ENVELOPE_NAME,
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    SIGNATURE_NAME,
    blob_name,
    leaves_name,
)
from cloister.sealed.publisher import MAX_SIGNATURE_BYTES

if TYPE_CHECKING:
    from cloister.sealed.manifest import SealedFile
    from cloister.sealed.open import ModelSource

__all__ = [
    "MAX_LEAVES_BYTES",
    "Package",
    "demand_part",
    "read_envelope_bytes",
    "read_leaves",
    "read_parts",
    "read_small",
]

_PART = re.compile(r"manifest\.json|manifest\.sig|envelope\.json|blobs/[0-9a-f]{32}(?:\.leaves)?")
MAX_LEAVES_BYTES = 64 << 20  # bytes of leaf hashes of one file: 2 TiB in segments of 1 MiB, 8 GiB in those of 4 KiB


def demand_part(name: str) -> None:
    """Refuse names that no part of a package has: they would lead elsewhere. Raises ``UsageError``."""
    if not _PART.fullmatch(name):
        msg = f"sealed model: no part is called {name[:60]!a}"
        raise UsageError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """The small signed parts of a package, as bytes, nothing verified."""

    manifest_bytes: bytes
    signature_bytes: bytes


def read_parts(source: ModelSource) -> Package:
    """Return manifest and signature, nothing verified. Raises ``Malformed`` where too large, or ``Unavailable``."""
    return Package(
        manifest_bytes=read_small(source, MANIFEST_NAME, MAX_MANIFEST_BYTES),
        signature_bytes=read_small(source, SIGNATURE_NAME, MAX_SIGNATURE_BYTES),
    )


def read_small(source: ModelSource, name: str, cap: int) -> bytes:
    """Return part ``name``, which has at most ``cap`` bytes. Raises ``Malformed`` or ``Unavailable``."""
    if (size := source.size(name)) > cap:
        msg = f"{name}: {size} bytes, want at most {cap}"
        raise Malformed(msg)
    return source.read(name, 0, size)


def read_envelope_bytes(source: ModelSource) -> bytes | None:
    """Return the envelope, None where none is to be had: mirrors need none. Raises ``Malformed`` for what is none."""
    try:
        source.size(ENVELOPE_NAME)
    except Unavailable:
        return None
    data = read_small(source, ENVELOPE_NAME, MAX_ENVELOPE_BYTES)
    Envelope.parse(data)
    return data


def read_leaves(source: ModelSource, entry: SealedFile) -> Leaves:
    """Return the leaf hashes of a file, proven by the root in its manifest. Raises ``Rejected`` or ``Malformed``."""
    size = entry.layout.count * LEAF_BYTES
    if size > MAX_LEAVES_BYTES:
        msg = f"{leaves_name(entry.blob)}: {size} bytes, want at most {MAX_LEAVES_BYTES}"
        raise Malformed(msg, hint="seal it anew with larger segments")
    data = source.read(leaves_name(entry.blob), 0, size)
    return Leaves.verify(
        data, count=entry.layout.count, root=entry.leaf_root, subject=blob_name(entry.blob), kind=entry.leaf_hash
    )
