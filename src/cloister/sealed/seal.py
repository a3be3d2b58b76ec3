"""Seal a model: a file or a folder becomes encrypted blobs, leaf hashes and a signed manifest.

Streams with a few mebibytes of memory at any model size. Not done here: wrapping the DEK, which the
custodian's vault does, and files, which ``directory`` opens.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

from cloister.crypto.stream import HEADER_BYTES, Encryptor, Header
from cloister.errors import Unavailable, UsageError
from cloister.sealed.begun import BLOB_ID_BYTES, BegunFile
from cloister.sealed.digest import OrderedDigest
from cloister.sealed.directory import PlainTree
from cloister.sealed.keys import blob_aad, dek_commitment
from cloister.sealed.leaves import LeafHash
from cloister.sealed.leaves import leaf_hash as hash_leaf
from cloister.sealed.manifest import (
    ENVELOPE_NAME,
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
from cloister.sealed.oms import verify_files
from cloister.sealed.package_folder import DirectorySink
from cloister.sealed.pages import Lane, Lanes, Pages, lane_count
from cloister.sealed.publisher import ManifestSignature

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from cloister.crypto.mldsa import SecondSigner
    from cloister.crypto.sign import SigningKey
    from cloister.sealed.directory import PlainFile
    from cloister.sealed.envelope import Envelope
    from cloister.sealed.manifest import MakerClaim
    from cloister.sealed.oms import MadeBy
    from cloister.sealed.package_folder import PackageFolder
    from cloister.sealed.paths import ModelPath
    from cloister.sealed.reuse import OldPackage
    from cloister.sealed.signed import SignedTree
    from cloister.wire import Json

__all__ = ["Begin", "Plain", "PlainSource", "Randomness", "SealedModel", "Sink", "keeper", "seal_files", "seal_model"]


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

Begin: TypeAlias = "Callable[[Sequence[PlainT], Lanes, Randomness], Sequence[BegunFile]]"
"""Returns each file as it is begun, with what an earlier run has left of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedModel:
    """What sealing made: the manifest, the exact bytes that were signed, and their digest."""

    manifest: Manifest
    manifest_bytes: bytes
    digest: str


class Randomness:
    """The generator of one sealing; a value that comes back ends it (a forked or broken generator)."""

    def __init__(self, random: Callable[[int], bytes], dek: bytes | bytearray) -> None:
        self._random = random
        self._seen = {bytes(dek)}

    def know(self, *values: bytes | bytearray) -> None:
        """Take what an earlier run drew for seen."""
        self._seen |= {bytes(value) for value in values}

    def __call__(self, size: int) -> bytes:
        """Return fresh bytes. Raises ``Unavailable`` for bytes that were drawn before."""
        value = self._random(size)
        if size >= BLOB_ID_BYTES:
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
    leaf_hash: LeafHash = LeafHash.SHA256,
    random: Callable[[int], bytes] = os.urandom,
    old: OldPackage | None = None,
    signed: SignedTree | None = None,
) -> SealedModel:
    """Seal the file or folder ``source`` into the new folder ``out``, whole or not at all.

    ``dek`` is 32 random bytes used for this model version only. Links and devices are refused; what is unchanged
    since ``old`` is taken over. ``signed`` is ``source`` as its maker signed it: what differs is refused.
    ``progress(done, total)`` gets bytes of plaintext. Raises ``UsageError``, ``Unavailable``, or as
    ``OldPackage.find`` and ``verify_files``; then ``out`` is not there.
    """
    if out.absolute().is_relative_to(source.absolute()):
        msg = f"{out}: lies inside the model to be sealed"
        raise UsageError(msg)
    tree = PlainTree(source) if signed is None else signed.tree
    with DirectorySink(out) as sink:
        sealed = seal_files(
            tree.files,
            tree,
            sink.parts,
            name=name,
            dek=dek,
            signer=signer,
            card=card,
            created=created,
            progress=progress,
            segment_bytes=segment_bytes,
            leaf_hash=leaf_hash,
            random=random,
            keep=None if old is None else keeper(old, tree, sink.parts, dek),
            maker=None if signed is None else signed.maker,
        )
        sink.commit()
    return sealed


def keeper(old: OldPackage, tree: PlainTree, sink: PackageFolder, dek: bytes | bytearray) -> Keep[PlainFile]:
    """Return what takes a file over from an older package, and puts its blob and leaves into the new one."""

    def keep(plain: PlainFile, draft: SealedFile, random: Callable[[int], bytes]) -> SealedFile | None:
        entry = old.find(plain, tree, sink, segment_bytes=draft.segment_bytes, leaf_hash=draft.leaf_hash)
        if entry is None:
            return None
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
    leaf_hash: LeafHash = LeafHash.SHA256,
    random: Callable[[int], bytes] = os.urandom,
    keep: Keep[PlainT] | None = None,
    begin: Begin[PlainT] | None = None,
    envelope: Callable[[str], Envelope] | None = None,
    maker: tuple[MakerClaim, MadeBy] | None = None,
    second: SecondSigner | None = None,
) -> SealedModel:
    """Seal ``files``, sorted by path, into ``sink``; the manifest is written last. Raises as ``seal_model``.

    ``keep`` is asked first for each file of which nothing is there, and what it returns stands for it. ``begin`` finds
    what is there. ``envelope`` gets the digest and returns what lets the model be opened, to lie in it from the start.
    With ``maker`` the files have to be those that are signed, and the signature is among them. ``second`` signs too.
    """
    draw = Randomness(random, dek)
    manifest = Manifest(
        name=name,
        created=created,
        dek_commitment=dek_commitment(dek),
        card=card,
        files=tuple(_draft(entry, number, segment_bytes, leaf_hash) for number, entry in enumerate(files)),
        maker=None if maker is None else maker[0],
        second_key=None if second is None else second.public,
    )
    manifest.dump()  # 1. every name, size and limit, before hours of work
    most = max((entry.layout.count for entry in manifest.files), default=1)
    with ExitStack() as stack:  # 2. the bulk
        lanes = stack.enter_context(Lanes(segment_bytes, lane_count(most)))
        begun = _fresh(files, segment_bytes, draw, leaf_hash) if begin is None else begin(files, lanes, draw)
        for file in begun:
            stack.callback(file.wipe)
        tally = _Tally(progress, sum(file.found_bytes for file in begun), manifest.size)
        job = _Job(source, sink, lanes, draw, tally, manifest.maker)
        sealed: list[SealedFile] = []
        for plain, file in zip(files, begun, strict=True):
            kept = None if keep is None or any(file.passed) else keep(plain, file.draft, draw)
            job.seal(plain, file, kept)
            sealed.append(kept or file.entry(dek, draw))
    if maker is not None:
        verify_files(maker[1].statement, job.digests)
    manifest = replace(manifest, files=tuple(sealed))
    data = manifest.dump()
    digest = model_digest(data)
    parts = [(SIGNATURE_NAME, ManifestSignature.sign(signer, data, second).dump()), (MANIFEST_NAME, data)]
    if envelope is not None:
        parts.insert(0, (ENVELOPE_NAME, envelope(digest).dump()))
    for part, content in parts:  # 3. what makes it a model
        sink.create(part, len(content))
        sink.write(part, 0, memoryview(content))
    return SealedModel(manifest=manifest, manifest_bytes=data, digest=digest)


def _draft(entry: Plain, number: int, segment_bytes: int, leaf_hash: LeafHash) -> SealedFile:
    """Return an entry as large as the one to come, to see whether the manifest would be one that readers take."""
    header = Header(segment_bytes=segment_bytes, iv=bytes(32), tag=bytes(32)).dump()
    return SealedFile(
        path=entry.path,
        size=entry.size,
        blob=number.to_bytes(BLOB_ID_BYTES, "big").hex(),
        header=header[:HEADER_BYTES],
        segment_bytes=segment_bytes,
        leaf_root=bytes(ROOT_BYTES),
        wrapped_key=bytes(WRAPPED_KEY_BYTES),
        leaf_hash=leaf_hash,
    )


def _fresh(files: Sequence[Plain], segment_bytes: int, draw: Randomness, kind: LeafHash) -> list[BegunFile]:
    return [BegunFile.fresh(entry.path, entry.size, segment_bytes, draw, kind) for entry in files]


class _Tally:
    """What is done of the whole, in bytes of plaintext."""

    def __init__(self, progress: Callable[[int, int], None] | None, done: int, total: int) -> None:
        self._progress, self._done, self._total = progress, done, total

    def show(self, more: int = 0) -> None:
        """Report what is done and so many bytes more."""
        if self._progress is not None:
            self._progress(self._done + more, self._total)

    def add(self, size: int) -> None:
        """Count a file that is done."""
        self._done += size
        self.show()


@dataclass(frozen=True, slots=True)
class _Job(Generic[PlainT]):
    """What stays the same from file to file."""

    source: PlainSource[PlainT]
    sink: Sink
    lanes: Lanes
    random: Randomness
    tally: _Tally
    claim: MakerClaim | None
    digests: dict[str, bytes] = field(default_factory=dict)
    """SHA-256 of every file but the maker's signature, by path, where there is one."""

    def seal(self, plain: PlainT, file: BegunFile, kept: SealedFile | None) -> None:
        """Write what is missing of a file; all of it is there where an older package's is ``kept``."""
        digest = None if self.claim is None or plain.path == self.claim.signature else OrderedDigest()
        if digest is not None and (kept is not None or any(file.passed)):
            self._hash(plain, digest)  # not all of it goes through the lanes
            self.digests[plain.path], digest = digest.digest(), None
        if kept is None:
            self._fill(plain, file, digest)
        else:
            self.tally.add(kept.size)
        if digest is not None:
            self.digests[plain.path] = digest.digest()

    def _hash(self, plain: PlainT, running: OrderedDigest) -> None:
        """Hash a file that is there already, or in part: it was proven to be its source's."""
        with Pages(SEGMENT_BYTES) as pages:
            for index, offset in enumerate(range(0, plain.size, SEGMENT_BYTES)):
                text = pages.view[: min(SEGMENT_BYTES, plain.size - offset)]
                self.source.read_into(plain, offset, text)
                running.add(index, text)

    def _fill(self, plain: PlainT, file: BegunFile, digest: OrderedDigest | None) -> None:
        """Write what is missing of a file's blob, and its leaves. ``digest`` gets the plaintext: all is missing."""
        draft, layout, missing = file.draft, file.draft.layout, file.missing
        blob, todo = blob_name(draft.blob), draft.size - file.found_bytes
        if not file.has_blob:
            self.sink.create(blob, layout.body_bytes)
        encryptor = Encryptor(
            file.key,
            aad=blob_aad(draft.blob),
            header=draft.header,
            segment_bytes=draft.segment_bytes,
            random=self.random,
        )

        def work(turn: int, lane: Lane) -> None:
            index = missing[turn]
            offset, size = layout.plain(index)
            self.source.read_into(plain, offset, lane.text[:size])
            if digest is not None and not digest.add(index, lane.text[:size]):
                return  # another lane failed, and says why
            done = encryptor.segment_into(index, lane.text[:size], lane.cipher, final=layout.is_final(index))
            leaf = hash_leaf(lane.cipher[:done], draft.leaf_hash)
            self.sink.write(blob, layout.body(index)[0], lane.cipher[:done])
            file.mark(index, leaf)

        try:
            self.lanes.run(
                len(missing),
                work,
                lambda done: self.tally.show(min(done * layout.plain_bytes, todo)),
                on_stop=None if digest is None else digest.begin(),
            )
        finally:
            encryptor.wipe()
        self.sink.create(leaves_name(draft.blob), len(file.leaves))
        self.sink.write(leaves_name(draft.blob), 0, memoryview(file.leaves))
        self.tally.add(todo)
