"""A stream of sealed chunks: the packaging of chunked Oblivious HTTP, and sealing and opening in order.

draft-ietf-ohai-chunked-ohttp-08 sections 4 to 6: each chunk but the last has its length in front;
the last has a zero there, goes on to the end of the stream and is sealed with other associated data.
The packaging proves nothing, the seals do. A length is compared with the limits before its bytes are
waited for.

Not done here: where keys and nonces come from (``ohttp_request``, ``ohttp_response``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, TypeAlias

from cloister.crypto.hpke import TAG_BYTES
from cloister.errors import CloisterError, Rejected, UsageError
from cloister.wire import dump_varint

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CHUNK_BYTES", "DEFAULT_MAX_MESSAGE_BYTES", "MAX_CHUNKS", "MAX_CHUNK_BYTES", "ChunkOpener", "ChunkSealer"]

CHUNK_BYTES = 16384  # bytes of plaintext that senders put in a chunk (section 3)
MAX_CHUNK_BYTES = (1 << 20) + TAG_BYTES  # bytes of a sealed chunk that we take
MAX_CHUNKS = 1 << 16  # chunks of one stream: each costs a decryption, however empty it is
DEFAULT_MAX_MESSAGE_BYTES = 80 << 20  # bytes of all sealed chunks unless the caller says otherwise

_FINAL_AAD = b"final"  # section 6.1

Cipher: TypeAlias = "Callable[[bytes | memoryview, bytes], bytes]"
"""Seals or opens the next chunk: ``(bytes, aad) -> bytes``."""

Begin: TypeAlias = "Callable[[bytes], tuple[int, Cipher] | None]"
"""Gets what has arrived so far; returns how many bytes the head had and what opens the chunks, None for not all yet."""


class ChunkSealer:
    """Writes one stream: ``start``, then ``seal`` chunk by chunk, the last one final."""

    __slots__ = ("_head", "_seal", "_state", "_what")

    def __init__(self, head: bytes, seal: Cipher, *, what: str) -> None:
        """Start before ``head``."""
        self._head = head
        self._seal = seal
        self._what = what
        self._state = "start"

    def start(self) -> bytes:
        """Return what comes before the chunks."""
        self._step("start", "seal")
        return self._head

    def seal(self, chunk: bytes | memoryview, *, final: bool) -> bytes:
        """Return one chunk as it travels. Raises ``UsageError`` after the final one."""
        self._step("seal", "done" if final else "seal")
        if len(chunk) > MAX_CHUNK_BYTES - TAG_BYTES:
            msg = f"{self._what}: chunk of {len(chunk)} bytes, want at most {MAX_CHUNK_BYTES - TAG_BYTES}"
            raise UsageError(msg)
        sealed = self._seal(chunk, _FINAL_AAD if final else b"")
        return (b"\x00" if final else dump_varint(len(sealed))) + sealed

    def seal_message(self, message: bytes) -> bytes:
        """Return the whole stream of ``message``, in chunks of ``CHUNK_BYTES``."""
        last = max(0, len(message) - 1) // CHUNK_BYTES
        view = memoryview(message)
        chunks = (view[at * CHUNK_BYTES : (at + 1) * CHUNK_BYTES] for at in range(last + 1))
        return b"".join((self.start(), *(self.seal(chunk, final=at == last) for at, chunk in enumerate(chunks))))

    def _step(self, want: str, after: str) -> None:
        if self._state != want:
            msg = f"{self._what}: got {want}, want {self._state}"
            raise UsageError(msg)
        self._state = after


class ChunkOpener:
    """Reads one stream: ``feed`` what arrived, ``end`` when it is over. A failure is for ever."""

    __slots__ = ("_failure", "_head", "_open", "_splitter", "_what")

    def __init__(self, *, what: str, max_bytes: int) -> None:
        """Wait for the head; ``max_bytes`` bounds all that follows it."""
        self._what = what
        self._splitter = _Splitter(what=what, max_bytes=max_bytes)
        self._head = bytearray()
        self._open: Cipher | None = None
        self._failure: CloisterError | None = None

    def feed(self, data: bytes, begin: Begin) -> list[bytes]:
        """Return the chunks that are complete now: authentic and in order, but not proven to be all.

        ``begin`` is given here and never kept: whoever owns this stream and the keys would be part of a ring, and keys
        would stay until the collector came by. Raises ``Rejected``, then the same for ever.
        """
        if self._failure is not None:
            raise self._failure.again()
        try:
            return self._feed(data, begin)
        except CloisterError as exc:
            self._failure = exc.again()
            raise

    def end(self) -> bytes:
        """Return the final chunk, which proves that the stream is whole.

        Raises ``Rejected``: ``truncated`` where the final chunk is missing, else as ``feed``.
        """
        if self._failure is not None:
            raise self._failure.again()
        try:
            if self._open is None:
                raise Rejected.because("truncated", self._what)
            chunk = self._open(self._splitter.end(), _FINAL_AAD)
        except CloisterError as exc:
            self._failure = exc.again()
            raise
        self._failure = UsageError(f"{self._what}: used after its end")
        return chunk

    def _feed(self, data: bytes, begin: Begin) -> list[bytes]:
        rest = memoryview(data)
        if self._open is None:
            whole = data if not self._head else bytes(self._head) + data
            begun = begin(whole)
            if begun is None:
                self._head += data
                return []
            size, self._open = begun
            rest = memoryview(whole)[size:]
            self._head.clear()
        open_chunk = self._open
        return [open_chunk(sealed, b"") for sealed in self._splitter.feed(rest)]


class _Splitter:
    """Splits a stream into sealed chunks; ``end`` gives the final one.

    What is there whole is given as it lies in what was fed; only a chunk that comes in pieces is put together.
    """

    __slots__ = ("_buffer", "_chunks_left", "_final", "_left", "_what")

    def __init__(self, *, what: str, max_bytes: int) -> None:
        self._what = what
        self._left = max_bytes
        self._chunks_left = MAX_CHUNKS
        self._buffer = bytearray()  # a chunk that is not whole yet with its length, then the final one without
        self._final = False

    def feed(self, data: memoryview) -> list[bytes | memoryview]:
        """Return the non-final chunks that are complete now. Raises ``Rejected`` (``too_large``)."""
        self._left -= len(data)
        if self._left < 0:
            self._too_large()
        chunks: list[bytes | memoryview] = []
        while data and not self._final:
            if self._buffer:
                data = self._put_together(data, chunks)
                continue
            header = self._length(data)
            if header is None or len(data) < sum(header):
                self._buffer += data
                return chunks
            start, size = header
            self._take(data[start : start + size], chunks)
            data = data[start + size :]
        self._buffer += data
        if self._final and len(self._buffer) > MAX_CHUNK_BYTES:
            self._too_large()
        return chunks

    def end(self) -> bytes:
        """Return the final chunk. Raises ``Rejected`` (``truncated``) for none, or too little to be one."""
        if not self._final or len(self._buffer) < TAG_BYTES:
            raise Rejected.because("truncated", self._what)
        return bytes(self._buffer)

    def _put_together(self, data: memoryview, chunks: list[bytes | memoryview]) -> memoryview:
        """Add to the chunk in the buffer what it lacks, and return what is left."""
        header = self._length(self._buffer)
        lacks = 1 if header is None else sum(header) - len(self._buffer)
        self._buffer += data[:lacks]
        header = self._length(self._buffer)
        if header is not None and len(self._buffer) == sum(header):
            chunk = bytes(self._buffer[header[0] :])
            self._buffer.clear()
            self._take(chunk, chunks)
        return data[lacks:]

    def _take(self, chunk: bytes | memoryview, chunks: list[bytes | memoryview]) -> None:
        if len(chunk):
            self._chunks_left -= 1
            chunks.append(chunk)
        else:
            self._final = True

    def _length(self, data: bytearray | memoryview) -> tuple[int, int] | None:
        """Return how long the length is and what it says, None while it is incomplete. Raises ``Rejected``."""
        start = 1 << (data[0] >> 6)  # RFC 9000 section 16
        if len(data) < start:
            return None
        size = int.from_bytes(data[:start], "big") & ((1 << (8 * start - 2)) - 1)
        if size > MAX_CHUNK_BYTES or (size and not self._chunks_left):
            self._too_large()
        return start, size

    def _too_large(self) -> NoReturn:
        self._buffer.clear()
        raise Rejected.because("too_large", self._what)
