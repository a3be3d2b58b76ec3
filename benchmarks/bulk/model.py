"""One model in one folder, and the ways to move it: whole functions that return the bytes they moved."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloister.crypto.sign import SigningKey
from cloister.crypto.stream import Decryptor
from cloister.sealed.directory import DirectorySource, read_package
from cloister.sealed.keys import blob_aad, unwrap_file_key
from cloister.sealed.leaves import LEAF_BYTES, LeafHash, Leaves
from cloister.sealed.manifest import blob_name, leaves_name
from cloister.sealed.open import RandomAccess, open_model, verify_manifest
from cloister.sealed.pages import Lane, Lanes, lane_count
from cloister.sealed.seal import seal_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20


@contextmanager
def one_processor() -> Iterator[None]:
    """Run on one processor, with all threads and children that begin meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Model:
    """Random bytes, sealed once."""

    def __init__(self, folder: Path, memory: Path, size: int, leaf_hash: LeafHash = LeafHash.BLAKE3) -> None:
        """Write ``size`` bytes and seal them; ``memory`` is a folder of an ordinary tmpfs."""
        self.folder, self.memory, self.size, self.leaf_hash = folder, memory, size, leaf_hash
        self.dek, self.signer = os.urandom(32), SigningKey.generate()
        self.plain = folder / "model.bin"
        with self.plain.open("wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))
        self._seal("sealed")
        self.package = DirectorySource(folder / "sealed")
        parts = read_package(folder / "sealed")
        self.manifest = verify_manifest(parts.manifest_bytes, parts.signature_bytes, [self.signer.verify_key])
        self.entry = self.manifest.manifest.files[0]
        self.warm = memoryview(mmap.mmap(-1, size))
        for at in range(0, size, MIB):
            self.warm[at : at + MIB] = os.urandom(MIB)

    def _seal(self, name: str) -> None:
        out = self.folder / name
        seal_model(
            self.plain, out, name="bench", dek=self.dek, signer=self.signer, card={}, created=datetime.now(UTC),
            leaf_hash=self.leaf_hash,
        )  # fmt: skip

    # to a disk: all of it durable at the end

    def copy_to_disk(self) -> int:
        """Copy with cp and flush."""
        out = self.folder / "copy"
        subprocess.run(["cp", str(self.plain), str(out)], check=True)  # noqa: S603, S607
        fd = os.open(out, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        return self.size

    def seal(self) -> int:
        """Seal into a new package, which flushes."""
        self._seal("again")
        return self.size

    def seal_alone(self) -> int:
        """Seal on one processor."""
        with one_processor():
            return self.seal()

    def clean_disk(self) -> None:
        """Remove what was written, with nothing of it left to be written."""
        (self.folder / "copy").unlink(missing_ok=True)
        shutil.rmtree(self.folder / "again", ignore_errors=True)

    # from a disk

    def forget(self) -> None:
        """Have the kernel drop what it keeps of the sealed model."""
        for place in (self.folder / "sealed").rglob("*"):
            if place.is_file():
                fd = os.open(place, os.O_RDONLY)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(fd)

    def read_disk(self) -> int:
        """Read the sealed bulk and drop it, by as many threads and pieces as opening does."""
        blob, layout = blob_name(self.entry.blob), self.entry.layout

        def work(index: int, lane: Lane) -> None:
            offset, size = layout.body(index)
            self.package.read_into(blob, offset, lane.cipher[:size])

        with Lanes(self.entry.segment_bytes, lane_count(layout.count)) as lanes:
            lanes.run(layout.count, work, lambda _: None)
        return self.size

    # to memory

    def copy_to_memory(self) -> int:
        """Copy with cp into an ordinary tmpfs."""
        subprocess.run(["cp", str(self.plain), str(self.memory / "copy")], check=True)  # noqa: S603, S607
        return self.size

    def clean_memory(self) -> None:
        """Remove that copy."""
        (self.memory / "copy").unlink(missing_ok=True)

    def open(self) -> int:
        """Verify and decrypt everything into sealed memory."""
        self.opened = open_model(self.package, self.manifest, self.dek)
        return self.size

    def close(self) -> int:
        """Zero that memory and give it back."""
        self.opened.close()
        return self.size

    def read_at_random(self) -> int:
        """Read one mebibyte at each of up to 64 scattered places."""
        places = range(0, self.size - MIB + 1, max(MIB, self.size // 64))
        with RandomAccess(self.package, self.manifest, self.dek, "model.bin") as access:
            for place in reversed(places):
                access.read(place, MIB)
        return len(places) * MIB

    # in warm memory, on one processor

    def copy_warm(self) -> int:
        """Read the plain file into memory that is there already."""
        with one_processor(), self.plain.open("rb", buffering=0) as file:
            for at in range(0, self.size, MIB):
                os.preadv(file.fileno(), [self.warm[at : at + MIB]], at)
        return self.size

    def open_warm(self, *, leaves: bool = True) -> int:
        """Read, verify and decrypt into memory that is there already, as a lane does."""
        entry, layout = self.entry, self.entry.layout
        blob, subject = blob_name(entry.blob), leaves_name(entry.blob)
        with one_processor(), ExitStack() as stack:
            hashes = self.package.read(subject, 0, layout.count * LEAF_BYTES)
            verified = Leaves.verify(
                hashes, count=layout.count, root=entry.leaf_root, subject=subject, kind=entry.leaf_hash
            )
            key = unwrap_file_key(self.dek, entry)
            decryptor = Decryptor(key, aad=blob_aad(entry.blob), header=entry.header, segment_bytes=entry.segment_bytes)
            lane = Lane(entry.segment_bytes, stack)
            for index in range(layout.count):
                at, size = layout.body(index)
                encrypted = lane.cipher[:size]
                self.package.read_into(blob, at, encrypted)
                if leaves:
                    verified.verify_segment(index, encrypted)
                begin, length = layout.plain(index)
                room = self.warm[begin : begin + length]
                decryptor.segment_into(index, encrypted, room, final=layout.is_final(index))
            decryptor.wipe()
        return self.size
