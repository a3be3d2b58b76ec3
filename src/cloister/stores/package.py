"""The small signed parts of a package, from any store, bounded before they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.errors import Malformed, Unavailable
from cloister.sealed.directory import Package
from cloister.sealed.envelope import MAX_ENVELOPE_BYTES, Envelope
from cloister.sealed.manifest import ENVELOPE_NAME, MANIFEST_NAME, MAX_MANIFEST_BYTES, SIGNATURE_NAME
from cloister.sealed.publisher import MAX_SIGNATURE_BYTES

if TYPE_CHECKING:
    from cloister.sealed.open import ModelSource

__all__ = ["read_envelope_bytes", "read_parts", "read_small"]


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
