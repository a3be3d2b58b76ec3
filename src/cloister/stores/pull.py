"""Fetch a package from a store into a folder: every segment proven before it counts, going on where it was broken off.

Only ciphertext is written. Who published it is not proven here: that is for whoever opens it. A digest, from the loan,
names the model that is wanted. Memory: one segment a connection, and the leaf hashes of one file.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event, Lock
from typing import TYPE_CHECKING

from cloister.errors import Rejected
from cloister.sealed.manifest import (
    ENVELOPE_NAME,
    MANIFEST_NAME,
    SIGNATURE_NAME,
    Manifest,
    blob_name,
    leaves_name,
    model_digest,
)
from cloister.sealed.open import verify_sizes
from cloister.sealed.pages import Pages
from cloister.sealed.parts import read_envelope_bytes, read_leaves, read_parts
from cloister.sealed.publisher import ManifestSignature
from cloister.stores.ahead import depth_for
from cloister.stores.partial_folder import PartialFolder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cloister.sealed.manifest import SealedFile
    from cloister.sealed.open import DirectSource

__all__ = ["Pulled", "pull"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What a pull did: bytes of bulk that were fetched, and that were there from before."""

    name: str
    digest: str
    fetched_bytes: int
    kept_bytes: int
    envelope: bool


def pull(
    source: DirectSource, out: Path, *, digest: str | None = None, progress: Callable[[int, int], None] | None = None
) -> Pulled:
    """Fetch the package in ``source`` to ``out``. ``progress(done, total)`` gets bytes, in the caller's thread.

    Raises ``Rejected`` (``wrong_model``, ``truncated``, ``oversized``, ``digest_mismatch``), ``Malformed``,
    ``UsageError`` where ``out`` exists, ``Unavailable``; what was fetched is kept for the next time, and is no model.
    """
    package = read_parts(source)
    found = model_digest(package.manifest_bytes)
    if digest is not None and found != digest:
        raise Rejected.because("wrong_model", "model at this place", got=found, want=digest[:64])
    manifest = Manifest.parse(package.manifest_bytes)
    ManifestSignature.parse(package.signature_bytes)
    verify_sizes(source, manifest.files)
    envelope = read_envelope_bytes(source)
    small = {SIGNATURE_NAME: package.signature_bytes, MANIFEST_NAME: package.manifest_bytes}
    if envelope is not None:
        small[ENVELOPE_NAME] = envelope
    count = _Count(sum(entry.layout.body_bytes for entry in manifest.files), progress)
    with PartialFolder(out, found) as partial:
        for entry in manifest.files:
            _File(source, partial, entry, count).fetch()
        partial.commit(small)
    return Pulled(
        name=manifest.name, digest=found, fetched_bytes=count.fetched, kept_bytes=count.kept,
        envelope=envelope is not None,
    )  # fmt: skip


class _Count:
    """Bytes done, reported in the caller's thread only."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self.fetched = self.kept = 0
        self._total = total
        self._progress = progress
        self._turn = Lock()

    def add(self, *, fetched: int = 0, kept: int = 0) -> None:
        with self._turn:
            self.fetched += fetched
            self.kept += kept

    def report(self) -> None:
        if self._progress is not None:
            self._progress(self.fetched + self.kept, self._total)


class _File:
    """One file on its way, by several threads."""

    def __init__(self, source: DirectSource, partial: PartialFolder, entry: SealedFile, count: _Count) -> None:
        self._source = source
        self._partial = partial
        self._entry = entry
        self._layout = entry.layout
        self._name = blob_name(entry.blob)
        self._count = count
        self._turns = iter(range(self._layout.count))  # next() on it is one step under the interpreter lock
        self._stop = Event()
        self._leaves = read_leaves(source, entry)
        partial.begin(entry.blob, self._layout.body_bytes, self._layout.count)
        partial.put(leaves_name(entry.blob), self._leaves.data)

    def fetch(self) -> None:
        """Fetch every segment that is not there yet; the first error stops all threads."""
        workers = min(depth_for(self._entry.segment_bytes), self._layout.count)
        with ExitStack() as stack:
            lanes = [stack.enter_context(Pages(self._entry.segment_bytes)).view for _ in range(workers)]
            if workers == 1:
                self._walk(lanes[0], self._count.report)
                return
            pool = stack.enter_context(ThreadPoolExecutor(workers - 1, thread_name_prefix="pull"))
            others = [pool.submit(self._walk, lane, None) for lane in lanes[1:]]
            try:
                self._walk(lanes[0], self._count.report)
            finally:
                errors = [error for error in (one.exception() for one in others) if error is not None]
            if errors:
                raise errors[0]
        self._count.report()

    def _walk(self, lane: memoryview, report: Callable[[], None] | None) -> None:
        try:
            for index in self._turns:
                if self._stop.is_set():
                    return
                self._segment(index, lane)
                if report is not None:
                    report()
        except BaseException:  # also an interrupt from the keyboard: the others must not go on alone
            self._stop.set()
            raise

    def _segment(self, index: int, lane: memoryview) -> None:
        offset, size = self._layout.body(index)
        data = lane[:size]
        if self._partial.has(self._entry.blob, index):
            self._partial.read_into(self._entry.blob, offset, data)
            if self._passes(index, data):
                self._count.add(kept=size)
                return
        got = self._source.read_into(self._name, offset, data)
        if got != size:
            raise Rejected.because("truncated", self._name, got=f"{offset + got} bytes", want=f"{offset + size}")
        self._leaves.verify_segment(index, data)
        self._partial.write(self._entry.blob, index, offset, data)
        self._count.add(fetched=size)

    def _passes(self, index: int, data: memoryview) -> bool:
        try:
            self._leaves.verify_segment(index, data)
        except Rejected:
            return False
        return True
