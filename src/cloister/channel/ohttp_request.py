"""The encapsulated request of chunked Oblivious HTTP, both ends, and the keys of a gateway.

RFC 9458 section 4.3 with the header, labels and chunks of draft-ietf-ohai-chunked-ohttp-08 sections 4
and 6.1.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Self

from cloister.channel.chunks import DEFAULT_MAX_MESSAGE_BYTES, ChunkOpener, ChunkSealer
from cloister.channel.keyconfig import KeyConfig, dump_key_configs
from cloister.channel.ohttp_response import ResponseOpener, ResponseSealer, ResponseSecret
from cloister.channel.padding import pad
from cloister.crypto.hpke import Aead, Kdf, Kem, KemPrivateKey, ReceiverContext, Suite, setup_receiver, setup_sender
from cloister.errors import Malformed, Rejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from cloister.channel.chunks import Cipher
    from cloister.crypto.hpke import SenderContext

__all__ = ["GatewayKeys", "RequestOpener", "RequestSealer"]

_LABEL = b"message/bhttp chunked request"
_HEADER_BYTES = 7  # key id, kem id, kdf id, aead id (RFC 9458 section 4.1)
_ALGORITHMS = tuple((Kdf.HKDF_SHA256, aead) for aead in (Aead.AES_256_GCM, Aead.CHACHA20_POLY1305, Aead.AES_128_GCM))


def _info(header: bytes) -> bytes:
    return _LABEL + b"\x00" + header


class RequestSealer:
    """The client's end: ``start``, then ``seal`` chunk by chunk, the last one final."""

    __slots__ = ("_context", "_enc", "_stream", "_suite")

    def __init__(
        self,
        config: KeyConfig,
        suite: Suite,
        *,
        _setup: Callable[[Suite, bytes, bytes], tuple[bytes, SenderContext]] = setup_sender,
    ) -> None:
        """Encapsulate to ``config``. ``_setup`` is the seam of the draft's example, for tests only.

        Raises ``Malformed`` for a public key that is none, ``UsageError`` for a suite that the
        configuration does not offer.
        """
        if suite not in config.suites:
            msg = "ohttp request: suite is not in the key config"
            raise UsageError(msg)
        numbers = (suite.kem, suite.kdf, suite.aead)
        header = config.key_id.to_bytes(1, "big") + b"".join(number.to_bytes(2, "big") for number in numbers)
        self._suite = suite
        self._enc, self._context = _setup(suite, config.public_key, _info(header))
        self._stream = ChunkSealer(header + self._enc, self._context.seal, what="ohttp request")

    def start(self) -> bytes:
        """Return the header and the encapsulated key."""
        return self._stream.start()

    def seal(self, chunk: bytes, *, final: bool) -> bytes:
        """Return one chunk as it travels. Raises ``UsageError`` after the final one."""
        return self._stream.seal(chunk, final=final)

    def seal_message(self, message: bytes) -> bytes:
        """Return the whole request of a binary HTTP ``message``, padded to its bucket."""
        return self._stream.seal_message(pad(message))

    def response_opener(self, *, max_bytes: int = DEFAULT_MAX_MESSAGE_BYTES) -> ResponseOpener:
        """Return the opener of the response to this request and to no other."""
        return ResponseOpener(ResponseSecret(self._suite.aead, self._context, self._enc), max_bytes=max_bytes)


class RequestOpener:
    """The gateway's end: ``feed`` what arrived, ``end`` when the outer body is over."""

    __slots__ = ("_context", "_enc", "_keys", "_stream", "_suite", "_whole")

    def __init__(self, keys: GatewayKeys, *, max_bytes: int = DEFAULT_MAX_MESSAGE_BYTES) -> None:
        """Wait for a request to one of ``keys``."""
        self._keys = keys
        self._stream = ChunkOpener(what="ohttp request", max_bytes=max_bytes)
        self._suite: Suite | None = None
        self._context: ReceiverContext | None = None
        self._enc = b""
        self._whole = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the chunks that are complete now: authentic and in order, but not proven to be all.

        Raises ``Rejected``: ``ohttp_key`` for a key we have not, ``too_large``, ``decryption_failed`` for
        everything else; then the same for ever.
        """
        return self._stream.feed(data, self._begin)

    def end(self) -> bytes:
        """Return the final chunk, which proves that the request is whole; not that it is new.

        Raises ``Rejected``: ``truncated`` where the final chunk is missing, else as ``feed``.
        """
        chunk = self._stream.end()
        self._whole = True
        return chunk

    @property
    def enc(self) -> bytes:
        """The encapsulated key: what a replay repeats. Only after ``end``."""
        if not self._whole:
            msg = "ohttp request: not proven whole yet"
            raise UsageError(msg)
        return self._enc

    def response_sealer(self, *, _random: Callable[[int], bytes] = secrets.token_bytes) -> ResponseSealer:
        """Return the sealer of the response to this request. Only after ``end``."""
        if not self._whole or self._suite is None or self._context is None:
            msg = "ohttp request: not proven whole yet"
            raise UsageError(msg)
        return ResponseSealer(ResponseSecret(self._suite.aead, self._context, self._enc), _random=_random)

    def _begin(self, head: bytes) -> tuple[int, Cipher] | None:
        if len(head) < _HEADER_BYTES:
            return None
        header = head[:_HEADER_BYTES]
        private_key, suite = self._keys.find(header)
        size = _HEADER_BYTES + suite.kem.enc_bytes
        if len(head) < size:
            return None
        self._enc = head[_HEADER_BYTES:size]
        try:
            self._context = setup_receiver(suite, private_key, self._enc, _info(header))
        except Malformed as exc:  # a low-order point is damage like any other: one error
            raise Rejected.because("decryption_failed", "hpke") from exc
        self._suite = suite
        return size, self._context.open


class GatewayKeys:
    """The private keys of one gateway. ``configs`` are published; older keys may still open requests."""

    __slots__ = ("_accepted", "configs")

    def __init__(self, keys: Iterable[tuple[KeyConfig, KemPrivateKey]], *, older: GatewayKeys | None = None) -> None:
        """Take the keys to publish; what ``older`` published is accepted for a while yet, what it accepted not.

        ``GatewayKeys(keys.published())`` ends that while. Raises ``UsageError`` for a key id twice.
        """
        pairs = tuple(keys)
        self.configs: tuple[KeyConfig, ...] = tuple(config for config, _ in pairs)
        before = () if older is None else older.published()
        self._accepted = {config.key_id: (config, key) for config, key in before + pairs}
        if len(self._accepted) != len(before) + len(pairs):
            msg = "gateway keys: a key id twice"
            raise UsageError(msg)

    @classmethod
    def generate(
        cls, kems: Collection[Kem] = (Kem.MLKEM768_X25519, Kem.X25519), *, older: GatewayKeys | None = None
    ) -> Self:
        """Return fresh keys with random key ids.

        An id of yesterday or of another replica is rarely one of ours, so that a client learns
        ``ohttp_key`` and verifies again instead of failing.
        """
        taken = set() if older is None else set(older._accepted)  # noqa: SLF001 - its own kind
        ids = secrets.SystemRandom().sample(sorted(set(range(256)) - taken), len(kems))
        pairs = []
        for key_id, kem in zip(ids, kems, strict=True):
            key = KemPrivateKey.generate(kem)
            config = KeyConfig(key_id=key_id, kem=kem, public_key=key.public_bytes(), algorithms=_ALGORITHMS)
            pairs.append((config, key))
        return cls(pairs, older=older)

    def published(self) -> tuple[tuple[KeyConfig, KemPrivateKey], ...]:
        """Return the published configurations with their private keys."""
        return tuple(self._accepted[config.key_id] for config in self.configs)

    def dump(self) -> bytes:
        """Return the published configurations as ``application/ohttp-keys``."""
        return dump_key_configs(self.configs)

    def find(self, header: bytes) -> tuple[KemPrivateKey, Suite]:
        """Return the key and suite that a request header names (RFC 9458 section 4.3, steps 1a and 1b)."""
        kem_id, kdf_id, aead_id = (int.from_bytes(header[at : at + 2], "big") for at in (1, 3, 5))
        pair = self._accepted.get(header[0])
        if pair is None or pair[0].kem != kem_id:
            raise Rejected.because("ohttp_key", "ohttp request", got=f"key {header[0]}")
        for suite in pair[0].suites:
            if (suite.kdf, suite.aead) == (kdf_id, aead_id):
                return pair[1], suite
        raise Rejected.because("decryption_failed", "hpke")

    def open_request(
        self, data: bytes, *, max_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    ) -> tuple[bytes, ResponseSealer, bytes]:
        """Return ``(binary HTTP request, sealer of its response, enc)`` of a whole encapsulated request.

        Proves that the request is whole and unaltered, not that it is new. Raises as ``RequestOpener``.
        """
        opener = RequestOpener(self, max_bytes=max_bytes)
        message = b"".join([*opener.feed(data), opener.end()])
        return message, opener.response_sealer(), opener.enc
