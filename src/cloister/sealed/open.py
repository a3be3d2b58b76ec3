"""Open a sealed model: into memory as a whole, or at any offset without opening all of it.

The order is the proof: signature, key, sizes, then for each segment its leaf hash over exactly the
bytes that are decrypted next, then its place. Plaintext is handed out after everything it needs has
passed. Nothing is ever written to a disk.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from cloister.crypto.stream import Decryptor
from cloister.errors import Reason, Rejected, Unavailable, UsageError
from cloister.sealed.digest import OrderedDigest
from cloister.sealed.keys import blob_aad, unwrap_file_key, verify_dek
from cloister.sealed.leaves import LEAF_BYTES, Leaves
from cloister.sealed.manifest import blob_name, leaves_name
from cloister.sealed.memfd import MemoryFile
from cloister.sealed.oms import MadeBy, verify_files, verify_maker
from cloister.sealed.pages import Lane, Lanes, lane_count
from cloister.sealed.publisher import VerifiedManifest, verify_digest, verify_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloister.sealed.manifest import Manifest, SealedFile
    from cloister.sealed.oms import Maker

__all__ = [
    "DirectSource",
    "ModelSource",
    "OpenedModel",
    "RandomAccess",
    "VerifiedManifest",
    "open_model",
    "verify_digest",
    "verify_manifest",
]


class ModelSource(Protocol):
    """Where the parts of a package are read from: a folder, a bucket, a server.

    Nothing it returns is trusted. It raises ``Unavailable`` for a part that is not there or cannot be
    read. It is called from several threads at a time.
    """

    def size(self, name: str) -> int:
        """Return the size of part ``name`` in bytes."""
        ...

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return ``size`` bytes of part ``name``; fewer only where it ends before."""
        ...


@runtime_checkable
class DirectSource(ModelSource, Protocol):
    """A source that can fill memory of ours, which saves a copy of the bulk."""

    def read_into(self, name: str, offset: int, out: memoryview) -> int:
        """Fill ``out`` from part ``name`` and return how many bytes there were."""
        ...


class _Blob:
    """One file of a package, its leaves verified and its key unwrapped."""

    def __init__(self, source: ModelSource, entry: SealedFile, dek: bytes | bytearray) -> None:
        self.entry = entry
        self.layout = entry.layout
        self._source = source
        self._direct = source if isinstance(source, DirectSource) else None
        self._name = blob_name(entry.blob)
        leaves = leaves_name(entry.blob)
        count = self.layout.count
        self._leaves = Leaves.verify(
            source.read(leaves, 0, count * LEAF_BYTES),
            count=count,
            root=entry.leaf_root,
            subject=self._name,
            kind=entry.leaf_hash,
        )
        key = unwrap_file_key(dek, entry)
        try:
            self._decryptor = Decryptor(
                key, aad=blob_aad(entry.blob), header=entry.header, segment_bytes=entry.segment_bytes
            )
        finally:
            key[:] = bytes(len(key))

    def segment(self, index: int, lane: Lane, out: memoryview | None = None) -> memoryview:
        """Return the plaintext of segment ``index``, inside ``out`` or else ``lane.text``, once it has passed.

        The leaf hash is computed over our own copy, which is what is decrypted next: a part that
        changes between check and use changes nothing (docs/spec/sealed-model.md, "Reading").
        """
        offset, size = self.layout.body(index)
        encrypted = lane.cipher[:size]
        self._fill(offset, encrypted)
        self._leaves.verify_segment(index, encrypted)
        out = lane.text if out is None else out
        done = self._decryptor.segment_into(index, encrypted, out, final=self.layout.is_final(index))
        return out[:done]

    def _fill(self, offset: int, out: memoryview) -> None:
        if self._direct is not None:
            got = self._direct.read_into(self._name, offset, out)
        else:
            data = self._source.read(self._name, offset, len(out))
            got = len(data)
            if got == len(out):
                out[:] = data
        if got != len(out):
            raise _wrong_size(self._name, offset + got, offset + len(out))

    def wipe(self) -> None:
        """Forget the keys."""
        self._decryptor.wipe()


def _wrong_size(name: str, got: int, want: int) -> Rejected:
    code = "truncated" if got < want else "oversized"
    return Rejected.because(code, name, got=f"{got} bytes", want=f"{want} bytes")


def verify_sizes(source: ModelSource, files: tuple[SealedFile, ...]) -> None:
    """Prove that every part has the size the signed manifest implies, before any memory is taken for it.

    Raises ``Rejected`` with every part that is ``truncated`` or ``oversized``.
    """
    reasons: list[Reason] = []
    for entry in files:
        layout = entry.layout
        parts = ((blob_name(entry.blob), layout.body_bytes), (leaves_name(entry.blob), layout.count * LEAF_BYTES))
        for name, want in parts:
            if (got := source.size(name)) != want:
                reasons += _wrong_size(name, got, want).reasons
    if reasons:
        raise Rejected("; ".join(map(str, reasons[:8])), reasons=tuple(reasons))


class OpenedModel:
    """A model in memory: sealed memory files that nothing can change, wiped on ``close``."""

    def __init__(
        self,
        verified: VerifiedManifest,
        memories: Mapping[str, MemoryFile],
        stack: ExitStack,
        made: MadeBy | None,
    ) -> None:
        """Own ``memories``. Only ``open_model`` makes one.

        ``made`` says who is proven to have made exactly these files, None where no maker's signature is carried.
        """
        self.manifest = verified.manifest
        self.digest = verified.digest
        self.files: tuple[str, ...] = tuple(memories)
        self.made = made
        self._memories = memories
        self._stack = stack

    def _memory(self, path: str) -> MemoryFile:
        self.manifest.file(path)
        return self._memories[path]

    def view(self, path: str) -> memoryview:
        """Return the plaintext of ``path`` without copying, read-only. Drop it before ``close``: it turns to zeros."""
        return self._memory(path).view()

    def move(self, path: str, to: int, start: int, size: int) -> None:
        """Move bytes within one file, for an engine that wants them aligned: ``view`` and ``fd_path`` show it.

        Raises ``UsageError`` outside the file.
        """
        self._memory(path).move(to, start, size)

    def fd_path(self, path: str) -> str:
        """Return a path in memory for engines that insist on one: good while this process and model are open."""
        return f"/proc/self/fd/{self._memory(path).fd}"

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Return ``size`` bytes of ``path`` from ``offset``. Raises ``UsageError`` outside the file."""
        view = self.view(path)
        _demand_range(offset, size, len(view))
        return bytes(view[offset : offset + size])

    def verify_maker(self, makers: Sequence[Maker]) -> MadeBy:
        """Return who made these files once it is proven that one of ``makers`` did; the files were held to it before.

        Raises ``Rejected``: ``model_unsigned``, or as ``oms.verify_maker``.
        """
        claim = self.manifest.maker
        if claim is None or self.made is None:
            raise Rejected.because("model_unsigned", f"model {self.manifest.name}")
        return verify_maker(bytes(self.view(claim.signature)), makers, self.manifest.created)

    def close(self) -> None:
        """Zero and free everything; harmless the second time."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _demand_range(offset: int, size: int, end: int) -> None:
    if offset < 0 or size < 0 or offset + size > end:
        msg = f"sealed model: bytes {offset} to {offset + size} of a file of {end}"
        raise UsageError(msg)


def open_model(
    source: ModelSource,
    manifest: VerifiedManifest,
    dek: bytes | bytearray,
    *,
    progress: Callable[[int, int], None] | None = None,
    again: Callable[[Unavailable], bool] | None = None,
) -> OpenedModel:
    """Return the whole model in memory, after every byte of it has passed.

    ``progress(done, total)`` gets bytes of plaintext, in the caller's thread. ``again`` is asked after each
    ``Unavailable`` in the bulk, and goes on, with a yes, with the segments that have not passed. Raises ``Rejected``
    (``wrong_key``, ``truncated``, ``oversized``, ``digest_mismatch``, ``decryption_failed``, and as
    ``oms.verify_maker`` and ``oms.verify_files`` for a model that its maker signed), ``Malformed`` for such a
    signature, or ``Unavailable``; then everything taken so far is zeroed and given back.
    """
    files = manifest.manifest.files
    verify_dek(manifest.manifest, dek)  # 1. the right key, or one clear error
    verify_sizes(source, files)  # 2. size first
    total, before = manifest.manifest.size, 0
    memories: dict[str, MemoryFile] = {}
    claim = manifest.manifest.maker
    digests: dict[str, OrderedDigest] = (
        {} if claim is None else {entry.path: OrderedDigest() for entry in files if entry.path != claim.signature}
    )
    with ExitStack() as stack:
        most = max(entry.layout.count for entry in files)
        with Lanes(max(entry.segment_bytes for entry in files), lane_count(most)) as lanes:
            for entry in files:  # 3. every segment of every file
                memory = memories[entry.path] = stack.enter_context(MemoryFile(entry.size))
                filling = _Filling(
                    entry, memory, lanes, _reporter(progress, before, entry, total), digests.get(entry.path)
                )
                filling.fill(partial(_Blob, source, entry, dek), again)
                before += entry.size
        for memory in memories.values():  # 4. nothing changes any more
            memory.seal()
        made = _made(manifest.manifest, memories, digests)  # 5. as its maker signed it
        return OpenedModel(manifest, memories, stack.pop_all(), made)


def _made(
    manifest: Manifest, memories: Mapping[str, MemoryFile], digests: Mapping[str, OrderedDigest]
) -> MadeBy | None:
    """Hold the files to the signature that the model carries, if it carries one.

    Certificates count at the time of sealing, which the publisher signed: an enclave's clock is its host's.
    """
    if manifest.maker is None:
        return None
    data = bytes(memories[manifest.maker.signature].view())
    made = verify_maker(data, manifest.maker.trusted, manifest.created)
    verify_files(made.statement, {path: digest.digest() for path, digest in digests.items()})
    return made


class _Filling:
    """One file on its way into memory, and which of its segments have passed."""

    def __init__(
        self,
        entry: SealedFile,
        memory: MemoryFile,
        lanes: Lanes,
        report: Callable[[int], None],
        digest: OrderedDigest | None,
    ) -> None:
        self._digest = digest
        self._layout = entry.layout
        self._memory, self._lanes, self._report = memory, lanes, report
        self._passed = bytearray(entry.layout.count)

    def fill(self, start: Callable[[], _Blob], again: Callable[[Unavailable], bool] | None) -> None:
        """Fill all of it. A segment that has passed is neither read nor decrypted again."""
        while True:
            try:
                self._fill(start())
            except Unavailable as exc:
                if again is None or not again(exc):
                    raise
            else:
                return

    def _fill(self, blob: _Blob) -> None:
        missing = [index for index, passed in enumerate(self._passed) if not passed]
        before, digest = self._layout.count - len(missing), self._digest

        def work(turn: int, lane: Lane) -> None:
            index = missing[turn]
            offset, size = self._layout.plain(index)
            room = self._memory.room(offset, size)
            if room is None:
                text = blob.segment(index, lane)
                self._memory.write(offset, text)
                hashed = digest is None or digest.add(index, text)
            else:
                with room, blob.segment(index, lane, room) as text:  # nobody else sees it before every segment passed
                    hashed = digest is None or digest.add(index, text)
            if not hashed:  # another lane failed, and says why
                return
            self._passed[index] = 1

        try:
            self._lanes.run(
                len(missing),
                work,
                lambda done: self._report(before + done),
                on_stop=None if digest is None else digest.begin(),
            )
        finally:
            blob.wipe()


def _reporter(
    progress: Callable[[int, int], None] | None, before: int, entry: SealedFile, total: int
) -> Callable[[int], None]:
    def report(segments: int) -> None:
        if progress is not None:
            progress(before + min(segments * entry.layout.plain_bytes, entry.size), total)

    return report


class RandomAccess:
    """Reads one file of a sealed model at any offset, decrypting only the segments it needs."""

    def __init__(self, source: ModelSource, manifest: VerifiedManifest, dek: bytes | bytearray, path: str) -> None:
        """Verify key, sizes and leaves of ``path``. Raises as ``open_model``."""
        entry = manifest.manifest.file(path)
        verify_dek(manifest.manifest, dek)
        verify_sizes(source, (entry,))
        self._blob = _Blob(source, entry, dek)
        self._lock = Lock()
        self._stack = ExitStack()
        self._lane = Lane(entry.segment_bytes, self._stack)
        self._held: tuple[int, memoryview] | None = None
        self._closed = False

    @property
    def size(self) -> int:
        """Bytes of plaintext."""
        return self._blob.entry.size

    def read(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset``; every segment they come from has passed. Any thread may call."""
        _demand_range(offset, size, self.size)
        out = bytearray()
        with self._lock:
            if self._closed:
                msg = "random access: already closed"
                raise UsageError(msg)
            while len(out) < size:
                index, skip = divmod(offset + len(out), self._blob.layout.plain_bytes)
                out += self._segment(index)[skip : skip + size - len(out)]
        return bytes(out)

    def _segment(self, index: int) -> memoryview:
        if self._held is None or self._held[0] != index:
            self._held = None
            self._held = (index, self._blob.segment(index, self._lane))
        return self._held[1]

    def close(self) -> None:
        """Wipe keys and buffers; harmless the second time."""
        with self._lock:
            self._closed = True
            self._blob.wipe()
            if self._held is not None:
                self._held[1].release()
                self._held = None
            self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
