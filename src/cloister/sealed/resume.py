"""Seal so that it can be gone on with: what was sealed before an interruption and is whole is not sealed again.

Whole is proven, segment by segment: it decrypts under the file's key, at its place, and its leaf is computed anew.
Unchanged is proven too: the source is the file it was, by every time and number the file system keeps of it, or else
its bytes are held against what was sealed of them. The first that differs begins that file anew, under a new key
(docs/spec/sealed-model.md, "Going on"; docs/adr/0032).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.crypto.stream import KEY_BYTES, Decryptor
from cloister.errors import Rejected, UsageError
from cloister.sealed.begun import BegunFile
from cloister.sealed.directory import PlainTree, settle
from cloister.sealed.keys import blob_aad
from cloister.sealed.leaves import LeafHash
from cloister.sealed.leaves import leaf_hash as hash_leaf
from cloister.sealed.manifest import SEGMENT_BYTES, blob_name
from cloister.sealed.seal import keeper, seal_files
from cloister.sealed.unfinished import NO_STAMP, Stamped, Unfinished, stamp_of
from cloister.sealed.unfinished_folder import UnfinishedFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from cloister.crypto.mldsa import SecondSigner
    from cloister.crypto.sign import SigningKey
    from cloister.sealed.directory import PlainFile
    from cloister.sealed.envelope import Envelope
    from cloister.sealed.pages import Lane, Lanes
    from cloister.sealed.reuse import OldPackage
    from cloister.sealed.seal import Randomness, SealedModel
    from cloister.sealed.signed import SignedTree
    from cloister.sealed.unfinished import KeyWrap
    from cloister.wire import Json

__all__ = ["Going", "seal_resumably"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Going:
    """How a sealing tells what becomes of it. All numbers are bytes of plaintext."""

    progress: Callable[[int, int], None]
    """Gets what is done and the total: first what is found, piece by piece, then what is sealed."""

    found: Callable[[int, int], None]
    """Gets what an earlier run left whole, and the total; not called where there was no earlier run."""

    kept: Callable[[Path], None]
    """Gets the folder that is left where this run ends in an error."""


def seal_resumably(
    source: Path,
    out: Path,
    *,
    resume: bool,
    vault: KeyWrap,
    envelope: Callable[[bytearray, str], Envelope],
    name: str,
    signer: SigningKey,
    card: Json,
    created: datetime,
    going: Going,
    segment_bytes: int = SEGMENT_BYTES,
    leaf_hash: LeafHash = LeafHash.SHA256,
    random: Callable[[int], bytes] = os.urandom,
    old: OldPackage | None = None,
    signed: SignedTree | None = None,
    second: SecondSigner | None = None,
) -> SealedModel:
    """Seal as ``seal_model``, with a key of its own, which ``vault`` wraps; an error leaves what can be gone on with.

    With ``resume`` an earlier run's is gone on with, where there is one. ``envelope`` gets the model key and the
    digest. Raises ``UsageError`` for what an earlier run left, without ``resume``; else as ``seal_model``.
    """
    if out.absolute().is_relative_to(source.absolute()):
        msg = f"{out}: lies inside the model to be sealed"
        raise UsageError(msg)
    tree = PlainTree(source) if signed is None else signed.tree
    with UnfinishedFolder(out, resume=resume) as folder:
        dek = bytearray(random(KEY_BYTES)) if folder.found is None else folder.found.unwrap_dek(vault)
        work = _Resumption(tree, folder, vault, dek, created, going, segment_bytes, leaf_hash)
        try:
            sealed = seal_files(
                tree.files,
                tree,
                folder.parts,
                name=name,
                dek=dek,
                signer=signer,
                card=card,
                created=created,
                progress=going.progress,
                segment_bytes=segment_bytes,
                leaf_hash=leaf_hash,
                random=random,
                keep=None if old is None else keeper(old, tree, folder.parts, dek),
                begin=work.begin,
                envelope=lambda digest: envelope(dek, digest),
                maker=None if signed is None else signed.maker,
                second=second,
            )
            folder.commit()
        except BaseException:
            if folder.is_kept:
                going.kept(folder.place)
            raise
        finally:
            dek[:] = bytes(len(dek))
    return sealed


class _Changed(Exception):
    """A segment of the source is not what was sealed."""


@dataclass(frozen=True, slots=True)
class _Resumption:
    """One sealing and what an earlier one left."""

    tree: PlainTree
    folder: UnfinishedFolder
    vault: KeyWrap
    dek: bytearray
    created: datetime
    going: Going
    segment_bytes: int
    leaf_hash: LeafHash

    def begin(self, files: Sequence[PlainFile], lanes: Lanes, draw: Randomness) -> list[BegunFile]:
        """Return every file with what is whole of it, once it is kept how to go on."""
        found = dict(self._found(draw))
        begun, stamps, looked = list[BegunFile](), list[bytes](), 0
        for plain in files:
            stamp = stamp_of(plain, self.created)
            earlier, was = found.pop(plain.path, (None, NO_STAMP))
            same = was == stamp != NO_STAMP
            if earlier is not None and self._is_unchanged(plain, earlier, lanes, same=same, before=looked):
                begun.append(earlier)
                stamps.append(stamp if same else NO_STAMP)
            else:
                begun.append(BegunFile.fresh(plain.path, plain.size, self.segment_bytes, draw, self.leaf_hash))
                stamps.append(stamp if settle(plain) else NO_STAMP)
            looked += begun[-1].found_bytes
        for left, _ in found.values():
            left.wipe()
        records = (Stamped.wrap(file, stamp, self.dek, draw) for file, stamp in zip(begun, stamps, strict=True))
        wrapped = self.folder.found.wrapped_dek if self.folder.found else Unfinished.wrap_dek(self.vault, self.dek)
        if self.folder.found is not None:
            self.going.found(looked, sum(plain.size for plain in files))
        self.folder.begin(Unfinished(kid=self.vault.kid, wrapped_dek=wrapped, files=tuple(records)))
        return begun

    def _found(self, draw: Randomness) -> Iterator[tuple[str, tuple[BegunFile, bytes]]]:
        """Yield the files that were begun and their stamps, by path. What was drawn for them must not come again."""
        for item in self.folder.found.files if self.folder.found is not None else ():
            file = item.unwrap(self.dek)
            draw.know(bytes.fromhex(item.entry.blob), file.key)
            yield item.entry.path, (file, item.stamp)

    def _is_unchanged(self, plain: PlainFile, file: BegunFile, lanes: Lanes, *, same: bool, before: int) -> bool:
        """Mark the segments that are whole; tell whether the file is the one they were sealed from."""
        draft, layout = file.draft, file.draft.layout
        wanted = (plain.size, self.segment_bytes, self.leaf_hash)
        fits = wanted == (draft.size, draft.segment_bytes, draft.leaf_hash)
        if not fits or not self.folder.has(draft.blob, layout.body_bytes):
            file.wipe()
            return False
        decryptor = Decryptor(
            file.key, aad=blob_aad(draft.blob), header=draft.header, segment_bytes=draft.segment_bytes
        )
        whole = _Segments(self, plain, file, decryptor, same)
        total = sum(entry.size for entry in self.tree.files)
        try:
            lanes.run(
                layout.count,
                whole.look,
                lambda _: self.going.progress(before + file.found_bytes, total),
            )
        except _Changed:
            file.wipe()
            return False
        finally:
            decryptor.wipe()
        return True


@dataclass(frozen=True, slots=True)
class _Segments:
    """The segments of one file that an earlier run may have written."""

    work: _Resumption
    plain: PlainFile
    file: BegunFile
    decryptor: Decryptor
    same: bool

    def look(self, index: int, lane: Lane) -> None:
        """Mark segment ``index`` if it is whole. Raises ``_Changed`` where the source has other bytes there."""
        draft, layout = self.file.draft, self.file.draft.layout
        (offset, size), (start, length) = layout.plain(index), layout.body(index)
        encrypted = lane.cipher[:length]
        if self.work.folder.source.read_into(blob_name(draft.blob), start, encrypted) != length:
            return
        try:
            self.decryptor.segment_into(index, encrypted, lane.text, final=layout.is_final(index))
        except Rejected:  # never written, or torn: it is sealed again
            return
        leaf = hash_leaf(encrypted, draft.leaf_hash)
        if not self.same:
            self.work.tree.read_into(self.plain, offset, encrypted[:size])
            if bytes(encrypted[:size]) != bytes(lane.text[:size]):  # views would be compared item by item
                raise _Changed
        self.file.mark(index, leaf)
