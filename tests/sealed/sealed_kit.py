"""A small sealed model in memory, and a source that an attacker may edit."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.crypto.sign import SigningKey
from cloister.errors import Unavailable
from cloister.sealed.leaves import LeafHash
from cloister.sealed.manifest import MANIFEST_NAME, SIGNATURE_NAME, Manifest, blob_name, leaves_name
from cloister.sealed.open import OpenedModel, VerifiedManifest, open_model, verify_manifest
from cloister.sealed.paths import parse_path
from cloister.sealed.publisher import ManifestSignature
from cloister.sealed.seal import seal_files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.sealed.manifest import MakerClaim
    from cloister.sealed.oms import MadeBy
    from cloister.sealed.paths import ModelPath
    from cloister.wire import Json

SEGMENT = 4096
PLAIN = SEGMENT - 32
PUBLISHER = SigningKey(bytes(range(32)))
DEK = bytes(range(100, 132))
CREATED = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class MemoryPlain:
    """A file to be sealed that lies in memory."""

    path: ModelPath
    data: bytes

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return len(self.data)


class MemorySource:
    """Parts in a dictionary: the plainest ``ModelSource``, which cannot fill our memory itself."""

    def __init__(self, parts: Mapping[str, bytes]) -> None:
        self.parts = dict(parts)
        self.reads: list[tuple[str, int]] = []

    def size(self, name: str) -> int:
        """Return the size of a part."""
        return len(self._part(name))

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return bytes of a part, and remember that they were asked for."""
        self.reads.append((name, offset))
        return self._part(name)[offset : offset + size]

    def _part(self, name: str) -> bytes:
        if name not in self.parts:
            msg = f"{name}: not there"
            raise Unavailable(msg)
        return self.parts[name]


class MemorySink:
    """Collects the parts of a package."""

    def __init__(self) -> None:
        self.parts: dict[str, bytearray] = {}

    def create(self, name: str, size: int) -> None:
        """Make a part, once."""
        assert name not in self.parts
        self.parts[name] = bytearray(size)

    def write(self, name: str, offset: int, data: memoryview) -> None:
        """Write inside a part."""
        assert offset + len(data) <= len(self.parts[name])
        self.parts[name][offset : offset + len(data)] = data

    def read_into(self, entry: MemoryPlain, offset: int, out: memoryview) -> None:
        """Fill from a file to be sealed."""
        out[:] = entry.data[offset : offset + len(out)]


@dataclass
class Sealed:
    """A package in memory with everything needed to open and to attack it."""

    plain: dict[str, bytes]
    source: MemorySource
    manifest: Manifest
    dek: bytes = DEK
    publisher: SigningKey = PUBLISHER

    def verified(self) -> VerifiedManifest:
        """Return the manifest, its signature verified."""
        return verify_manifest(
            self.source.parts[MANIFEST_NAME], self.source.parts[SIGNATURE_NAME], [self.publisher.verify_key]
        )

    def open(self, dek: bytes | None = None) -> OpenedModel:
        """Open everything."""
        return open_model(self.source, self.verified(), dek or self.dek)

    def blob(self, path: str) -> str:
        """Return the name of the blob of a file."""
        return blob_name(self.manifest.file(path).blob)

    def leaves(self, path: str) -> str:
        """Return the name of the leaf hashes of a file."""
        return leaves_name(self.manifest.file(path).blob)

    def edit(self, name: str, data: bytes) -> Sealed:
        """Return the same package with one part replaced."""
        return replace(self, source=MemorySource({**self.source.parts, name: data}))

    def resign(self, manifest: Manifest) -> Sealed:
        """Return the package with another manifest, signed by the publisher, who may be a thief."""
        data = manifest.dump()
        parts = {MANIFEST_NAME: data, SIGNATURE_NAME: ManifestSignature.sign(self.publisher, data).dump()}
        return replace(self, source=MemorySource({**self.source.parts, **parts}), manifest=manifest)


def seal(
    plain: Mapping[str, bytes],
    *,
    dek: bytes = DEK,
    name: str = "digits",
    card: Json = None,
    segment: int = SEGMENT,
    leaf_hash: LeafHash = LeafHash.BLAKE3,
    maker: tuple[MakerClaim, MadeBy] | None = None,
) -> Sealed:
    """Seal ``plain`` into memory."""
    files = [MemoryPlain(parse_path(path), plain[path]) for path in sorted(plain)]
    sink = MemorySink()
    sealed = seal_files(
        files,
        sink,
        sink,
        name=name,
        dek=dek,
        signer=PUBLISHER,
        card={} if card is None else card,
        created=CREATED,
        segment_bytes=segment,
        leaf_hash=leaf_hash,
        maker=maker,
    )
    source = MemorySource({name: bytes(data) for name, data in sink.parts.items()})
    return Sealed(plain=dict(plain), source=source, manifest=sealed.manifest, dek=dek)


def noise(size: int, seed: int = 1) -> bytes:
    """Return repeatable bytes."""
    return random.Random(seed).randbytes(size)


def memory_files() -> int:
    """Count the memory files this process holds."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += "memfd:cloister" in str(entry.readlink())
        except OSError:
            continue  # the listing's own descriptor
    return count
