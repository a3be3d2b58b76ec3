"""The encapsulated response of chunked Oblivious HTTP, both ends (draft sections 5 and 6.2).

Its keys come from the HPKE context of the request and a fresh nonce, so that a response opens for the
client that asked and for nobody else. Made by ``ohttp_request``.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from cloister.channel.chunks import ChunkOpener, ChunkSealer
from cloister.channel.padding import pad
from cloister.crypto.hpke import NONCE_BYTES, Aead, AeadKey, Context, expand, extract

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.channel.chunks import Cipher

__all__ = ["ResponseOpener", "ResponseSealer", "ResponseSecret"]

_LABEL = b"message/bhttp chunked response"


class ResponseSecret:
    """What a request leaves for its response. Never printed."""

    __slots__ = ("_aead", "_enc", "_secret")

    def __init__(self, aead: Aead, context: Context, enc: bytes, *, _label: bytes = _LABEL) -> None:
        """Export the secret of the response to the request that had ``enc``. ``_label`` is for tests only."""
        self._aead = aead
        self._enc = enc
        self._secret = context.export(_label, self.nonce_bytes)

    @property
    def nonce_bytes(self) -> int:
        """The entropy_len of draft section 6.2: max(Nn, Nk)."""
        return max(NONCE_BYTES, self._aead.key_bytes)

    def sealing(self, response_nonce: bytes) -> Cipher:
        """Return what seals the chunks in order."""
        key, nonces = self._derive(response_nonce)
        return lambda chunk, aad: key.seal(nonces.next(), chunk, aad)

    def opening(self, response_nonce: bytes) -> Cipher:
        """Return what opens the chunks in order."""
        key, nonces = self._derive(response_nonce)
        return lambda sealed, aad: key.open(nonces.next(), sealed, aad)

    def _derive(self, response_nonce: bytes) -> tuple[AeadKey, _Nonces]:
        """Return AEAD key and nonces (RFC 9458 section 4.4, steps 3 to 5)."""
        prk = extract(self._enc + response_nonce, self._secret)
        key = AeadKey(self._aead, expand(prk, b"key", self._aead.key_bytes))
        return key, _Nonces(expand(prk, b"nonce", NONCE_BYTES))


class _Nonces:
    """The nonces of one response's chunks: base XOR counter (draft section 6.2)."""

    __slots__ = ("_base", "_counter")

    def __init__(self, base: bytes) -> None:
        self._base = int.from_bytes(base, "big")
        self._counter = 0

    def next(self) -> bytes:
        # The counter goes on after a chunk that does not open, which is well: that is final anyway.
        # It cannot reach 2**96 within any limit on bytes.
        nonce = self._base ^ self._counter
        self._counter += 1
        return nonce.to_bytes(NONCE_BYTES, "big")


class ResponseSealer:
    """The gateway's end: ``start``, then ``seal`` chunk by chunk, the last one final."""

    __slots__ = ("_stream",)

    def __init__(self, secret: ResponseSecret, *, _random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        """Draw the response nonce; made by ``RequestOpener.response_sealer``.

        ``_random`` is the seam of the draft's example, for tests only.
        """
        response_nonce = _random(secret.nonce_bytes)
        self._stream = ChunkSealer(response_nonce, secret.sealing(response_nonce), what="ohttp response")

    def start(self) -> bytes:
        """Return the response nonce."""
        return self._stream.start()

    def seal(self, chunk: bytes, *, final: bool) -> bytes:
        """Return one chunk as it travels. Raises ``UsageError`` after the final one."""
        return self._stream.seal(chunk, final=final)

    def seal_message(self, message: bytes) -> bytes:
        """Return the whole response to a binary HTTP ``message``, padded to its bucket."""
        return self._stream.seal_message(pad(message))


class ResponseOpener:
    """The client's end: ``feed`` what arrived, ``end`` when the outer body is over."""

    __slots__ = ("_secret", "_stream")

    def __init__(self, secret: ResponseSecret, *, max_bytes: int) -> None:
        """Wait for the response; made by ``RequestSealer.response_opener``."""
        self._secret = secret
        self._stream = ChunkOpener(what="ohttp response", max_bytes=max_bytes)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the chunks that are complete now: authentic and in order, but not proven to be all.

        Raises ``Rejected``: ``decryption_failed`` or ``too_large``, then the same for ever.
        """
        return self._stream.feed(data, self._begin)

    def end(self) -> bytes:
        """Return the final chunk, which proves that the response is whole.

        Raises ``Rejected``: ``truncated`` where the final chunk is missing, else as ``feed``.
        """
        return self._stream.end()

    def _begin(self, head: bytes) -> tuple[int, Cipher] | None:
        size = self._secret.nonce_bytes
        return (size, self._secret.opening(head[:size])) if len(head) >= size else None
