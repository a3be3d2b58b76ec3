"""Seal a model: a file or a folder becomes encrypted blobs, leaf hashes and a signed manifest.

Streams with a few mebibytes of memory at any model size. Not done here: wrapping the DEK, which the
custodian's vault does, and files, which ``directory`` opens.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

from cloister.crypto.stream import HEADER_BYTES, KEY_BYTES, Encryptor, Header
from cloister.errors import Unavailable, UsageError
from cloister.sealed.directory import DirectorySink, PlainTree
from cloister.sealed.keys import blob_aad, dek_commitment, wrap_file_key
from cloister.sealed.leaves import LEAF_BYTES, leaf_hash, leaf_root
from cloister.sealed.manifest import (
    MANIFEST_NAME,
    ROOT_BYTES,
    SEGMENT_BYTES,
    SIGNATURE_NAME,
    WRAPPED_KEY_BYTES,
    Manifest,
    SealedFile,
    blob_name,
    leaves_name,
    model_digest,
)
from cloister.sealed.pages import Lane, Lanes, lane_count
from cloister.sealed.publisher import ManifestSignature

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from cloister.crypto.sign import SigningKey
    from cloister.sealed.directory import PlainFile
    from cloister.sealed.paths import ModelPath
    from cloister.sealed.reuse import OldPackage
    from cloister.wire import Json

__all__ = ["Plain", "PlainSource", "SealedModel", "Sink", "seal_files", "seal_model"]

_BLOB_ID_BYTES = 16


class Plain(Protocol):
    """A file to be sealed."""

    @property
    def path(self) -> ModelPath:
        """Its path in the model."""
        ...

    @property
    def size(self) -> int:
        """Its size in bytes, which must not change."""
        ...


PlainT = TypeVar("PlainT", bound=Plain)
PlainIn = TypeVar("PlainIn", bound=Plain, contravariant=True)  # noqa: PLC0105 - the reading side only


class PlainSource(Protocol[PlainIn]):
    """Reads files to be sealed; called from several threads at a time."""

    def read_into(self, entry: PlainIn, offset: int, out: memoryview) -> None:
        """Fill ``out`` or raise."""
        ...


class Sink(Protocol):
    """Takes the parts of a package; called from several threads at a time."""

    def create(self, name: str, size: int) -> None:
        """Make part ``name`` with ``size`` bytes."""
        ...

    def write(self, name: str, offset: int, data: memoryview) -> None:
        """Write into part ``name``."""
        ...


Keep: TypeAlias = "Callable[[PlainT, SealedFile, Callable[[int], bytes]], SealedFile | None]"
"""Returns the entry of a file that lies in the package already, given its draft and a generator; None: seal it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedModel:
    """What sealing made: the manifest, the exact bytes that were signed, and their digest."""

    manifest: Manifest
    manifest_bytes: bytes
    digest: str


class _Randomness:
    """The generator of one sealing; a value that comes back ends it (a forked or broken generator)."""

    def __init__(self, random: Callable[[int], bytes], dek: bytes | bytearray) -> None:
        self._random = random
        self._seen = {bytes(dek)}

    def __call__(self, size: int) -> bytes:
        value = self._random(size)
        if size >= _BLOB_ID_BYTES:
            if value in self._seen or len(value) != size:
                msg = "sealing: the system's randomness repeats itself"
                raise Unavailable(msg)
            self._seen.add(value)
        return value


def seal_model(
    source: Path,
    out: Path,
    *,
    name: str,
    dek: bytes | bytearray,
    signer: SigningKey,
    card: Json,
    created: datetime,
    progress: Callable[[int, int], None] | None = None,
    segment_bytes: int = SEGMENT_BYTES,
    random: Callable[[int], bytes] = os.urandom,
    old: OldPackage | None = None,
) -> SealedModel:
    """Seal the file or folder ``source`` into the new folder ``out``, whole or not at all.

    ``dek`` is 32 random bytes used for this model version only. Links and devices are refused; what is unchanged
    since ``old`` is taken over. ``progress(done, total)`` gets bytes of plaintext. Raises ``UsageError``,
    ``Unavailable``, or as ``OldPackage.find``; then ``out`` is not there.
    """
    if out.absolute().is_relative_to(source.absolute()):
        msg = f"{out}: lies inside the model to be sealed"
        raise UsageError(msg)
    tree = PlainTree(source)
    with DirectorySink(out) as sink:
        sealed = seal_files(
            tree.files,
            tree,
            sink,
            name=name,
            dek=dek,
            signer=signer,
            card=card,
            created=created,
            progress=progress,
            segment_bytes=segment_bytes,
            random=random,
            keep=None if old is None else _keeper(old, tree, sink, dek),
        )
        sink.commit()
    return sealed


def _keeper(old: OldPackage, tree: PlainTree, sink: DirectorySink, dek: bytes | bytearray) -> Keep[PlainFile]:
    """Return what takes a file over from an older package, and puts its blob and leaves into the new one."""

    def keep(plain: PlainFile, draft: SealedFile, random: Callable[[int], bytes]) -> SealedFile | None:
        entry = old.find(plain, tree, segment_bytes=draft.segment_bytes)
        if entry is None:
            return None
        for part in (blob_name(entry.blob), leaves_name(entry.blob)):
            sink.adopt(part, old.root / part)
        return old.rewrap(entry, plain, dek, random)

    return keep


def seal_files(
    files: Sequence[PlainT],
    source: PlainSource[PlainT],
    sink: Sink,
    *,
    name: str,
    dek: bytes | bytearray,
    signer: SigningKey,
    card: Json,
    created: datetime,
    progress: Callable[[int, int], None] | None = None,
    segment_bytes: int = SEGMENT_BYTES,
    random: Callable[[int], bytes] = os.urandom,
    keep: Keep[PlainT] | None = None,
) -> SealedModel:
    """Seal ``files``, sorted by path, into ``sink``; the manifest is written last. Raises as ``seal_model``.

    ``keep`` is asked first for each file, and what it returns stands for it.
    """
    draw = _Randomness(random, dek)
    manifest = Manifest(
        name=name,
        created=created,
        dek_commitment=dek_commitment(dek),
        card=card,
        files=tuple(_draft(entry, draw(_BLOB_ID_BYTES).hex(), segment_bytes) for entry in files),
    )
    manifest.dump()  # 1. every name, size and limit, before hours of work
    sealed: list[SealedFile] = []
    most = max((entry.layout.count for entry in manifest.files), default=1)
    with Lanes(segment_bytes, lane_count(most)) as lanes:  # 2. the bulk
        job = _Job(source=source, sink=sink, lanes=lanes, dek=dek, random=draw, progress=progress, total=manifest.size)
        for entry, draft in zip(files, manifest.files, strict=True):
            kept = None if keep is None else keep(entry, draft, draw)
            before = sum(done.size for done in sealed)
            sealed.append(kept or job.seal(entry, draft, before=before))
            if kept is not None and progress is not None:
                progress(before + kept.size, manifest.size)
    manifest = replace(manifest, files=tuple(sealed))
    data = manifest.dump()
    signature = ManifestSignature.sign(signer, data).dump()
    for part, content in ((SIGNATURE_NAME, signature), (MANIFEST_NAME, data)):  # 3. what makes it a model
        sink.create(part, len(content))
        sink.write(part, 0, memoryview(content))
    return SealedModel(manifest=manifest, manifest_bytes=data, digest=model_digest(data))


def _draft(entry: Plain, blob: str, segment_bytes: int) -> SealedFile:
    header = Header(segment_bytes=segment_bytes, iv=bytes(32), tag=bytes(32)).dump()
    return SealedFile(
        path=entry.path,
        size=entry.size,
        blob=blob,
        header=header[:HEADER_BYTES],
        segment_bytes=segment_bytes,
        leaf_root=bytes(ROOT_BYTES),
        wrapped_key=bytes(WRAPPED_KEY_BYTES),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job(Generic[PlainT]):
    """What stays the same from file to file."""

    source: PlainSource[PlainT]
    sink: Sink
    lanes: Lanes
    dek: bytes | bytearray
    random: _Randomness
    progress: Callable[[int, int], None] | None
    total: int

    def seal(self, plain: PlainT, draft: SealedFile, before: int) -> SealedFile:
        """Write blob and leaves of one file under a fresh key; return its entry."""
        layout = draft.layout
        blob, leaves = blob_name(draft.blob), bytearray(layout.count * LEAF_BYTES)
        self.sink.create(blob, layout.body_bytes)
        key = bytearray(self.random(KEY_BYTES))
        encryptor = Encryptor(key, aad=blob_aad(draft.blob), segment_bytes=draft.segment_bytes, random=self.random)

        def work(index: int, lane: Lane) -> None:
            offset, size = layout.plain(index)
            self.source.read_into(plain, offset, lane.text[:size])
            encrypted = lane.cipher[
                : encryptor.segment_into(index, lane.text[:size], lane.cipher, final=layout.is_final(index))
            ]
            leaves[index * LEAF_BYTES : (index + 1) * LEAF_BYTES] = leaf_hash(encrypted)
            self.sink.write(blob, layout.body(index)[0], encrypted)

        def report(segments: int) -> None:
            if self.progress is not None:
                self.progress(before + min(segments * layout.plain_bytes, draft.size), self.total)

        try:
            self.lanes.run(layout.count, work, report)
            self.sink.create(leaves_name(draft.blob), len(leaves))
            self.sink.write(leaves_name(draft.blob), 0, memoryview(leaves))
            root = leaf_root(bytes(leaves[at : at + LEAF_BYTES]) for at in range(0, len(leaves), LEAF_BYTES))
            entry = replace(draft, header=encryptor.header, leaf_root=root)
            return replace(entry, wrapped_key=wrap_file_key(self.dek, key, entry, self.random))
        finally:
            encryptor.wipe()
            key[:] = bytes(len(key))
