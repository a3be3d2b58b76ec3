"""Put a package into a store: every part proven on its way, none overwritten, the manifest last.

What was there before a broken push is kept, and the push is run again. A reader that finds a manifest finds all of
the model. Not done here: sealing, and proving the publisher's signature, for which the reader has the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cloister.sealed.manifest import ENVELOPE_NAME, Manifest, model_digest
from cloister.sealed.open import verify_sizes
from cloister.sealed.parts import read_envelope_bytes, read_parts
from cloister.sealed.publisher import ManifestSignature
from cloister.stores.part import Part, parts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloister.sealed.open import ModelSource

__all__ = ["Pushed", "Target", "push"]


class Target(Protocol):
    """A store that takes packages.

    Raises ``UsageError`` where something else is in the way, ``Unavailable`` where it cannot be reached or written.
    """

    def demand_free(self, manifest: bytes) -> None:
        """Prove that no other model is there."""
        ...

    def holds(self, part: Part, *, replace: bool = False) -> bool:
        """Tell whether ``part`` is there already."""
        ...

    def put(self, part: Part, *, replace: bool = False) -> None:
        """Write ``part``, whole or not at all; it may be read several times."""
        ...

    def finish(self, parts: tuple[Part, ...]) -> None:
        """Make a package of the parts that are there, for stores where the last part does not."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push did: parts and bytes that were written, and parts that were there."""

    name: str
    digest: str
    written: int
    written_bytes: int
    kept: int


def push(
    source: ModelSource,
    target: Target,
    *,
    replace_envelope: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Pushed:
    """Put the package in ``source`` into ``target``. ``progress(done, total)`` gets bytes.

    Raises ``Malformed`` or ``Rejected`` where the package itself is not whole, else as ``Target``.
    """
    package = read_parts(source)
    manifest = Manifest.parse(package.manifest_bytes)
    ManifestSignature.parse(package.signature_bytes)
    verify_sizes(source, manifest.files)
    target.demand_free(package.manifest_bytes)
    parts = parts_of(source, manifest, package, read_envelope_bytes(source))
    written, kept, done = [], 0, 0
    total = sum(part.size for part in parts)
    for part in parts:
        replace = replace_envelope and part.name == ENVELOPE_NAME
        if target.holds(part, replace=replace):
            kept += 1
        else:
            target.put(_reported(part, done, total, progress), replace=replace)
            written.append(part.size)
        done += part.size
        if progress is not None:
            progress(done, total)
    target.finish(parts)
    return Pushed(
        name=manifest.name, digest=model_digest(package.manifest_bytes),
        written=len(written), written_bytes=sum(written), kept=kept,
    )  # fmt: skip


def _reported(part: Part, before: int, total: int, progress: Callable[[int, int], None] | None) -> Part:
    """Return ``part``, whose reading is reported."""

    def read() -> Iterator[bytes]:
        done = before
        for piece in part.read():
            yield piece
            done += len(piece)
            if progress is not None:
                progress(done, total)

    return Part(name=part.name, size=part.size, read=read)
