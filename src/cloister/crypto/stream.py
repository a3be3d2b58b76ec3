"""Bulk encryption: FLOE, Fast Lightweight Online Encryption (c2sp.org/FLOE), with AES-256-GCM and HKDF-SHA384.

A FLOE file is a header of 74 bytes and a body of segments, each encrypted on its own, so that a
reader may start anywhere with a bounded amount of memory. The header's tag commits to the key; a
segment's place and whether it is the last are authenticated.

Not done here (FLOE section "Semi-Public Functions"): that all segments are there and that the last
one is the last. Random access leaves that to the caller, who takes number and sizes from a signed
source through ``Layout``; ``sealed`` does.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hmac import compare_digest
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.wire import Reader

if TYPE_CHECKING:
    from collections.abc import Callable

    Buffer = bytes | bytearray | memoryview

__all__ = [
    "HEADER_BYTES",
    "KEY_BYTES",
    "OVERHEAD_BYTES",
    "ROTATION_BITS",
    "Decryptor",
    "Encryptor",
    "Header",
    "Layout",
    "expand",
]

KEY_BYTES: Final = 32  # AEAD_KEY_LEN
ROTATION_BITS: Final = 20  # AEAD_ROTATION_MASK: 2**20 segments under one AES key
MAX_SEGMENTS: Final = 1 << 40  # AEAD_MAX_SEGMENTS
_AEAD_ID = _KDF_ID = 0  # AES-256-GCM; HKDF-Expand-SHA384
_IV_BYTES = 32  # FLOE_IV_LEN
_TAG_BYTES = 32  # header tag
_NONCE_BYTES = 12  # AEAD_IV_LEN
_LENGTH_BYTES = 4
_GCM_TAG_BYTES = 16  # AEAD_TAG_LEN
_MESSAGE_KEY_BYTES = 48  # KDF_LEN
_NOT_FINAL = b"\xff\xff\xff\xff"
_MAX_SEGMENT_BYTES = (1 << 32) - 2  # what the length in front of a last segment can say
_PARAMETER_BYTES = 10

HEADER_BYTES: Final = _PARAMETER_BYTES + _IV_BYTES + _TAG_BYTES
OVERHEAD_BYTES: Final = _LENGTH_BYTES + _NONCE_BYTES + _GCM_TAG_BYTES
"""What a segment is longer than its plaintext."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the segments of a plaintext of ``size`` bytes lie; all of it follows from two numbers.

    The last segment holds 1 byte to a full segment, and 0 bytes only where ``size`` is 0: of the two
    layouts FLOE allows for a size that fills its segments, we write and read the shorter one.
    """

    size: int
    segment_bytes: int

    def __post_init__(self) -> None:
        """Refuse sizes FLOE cannot carry."""
        if not OVERHEAD_BYTES < self.segment_bytes <= _MAX_SEGMENT_BYTES:
            msg = f"floe: segments of {self.segment_bytes} bytes, want {OVERHEAD_BYTES + 1} to {_MAX_SEGMENT_BYTES}"
            raise UsageError(msg)
        if not 0 <= self.size <= self.plain_bytes * MAX_SEGMENTS:
            msg = f"floe: {self.size} bytes do not fit {MAX_SEGMENTS} segments of {self.segment_bytes} bytes"
            raise UsageError(msg)

    @property
    def plain_bytes(self) -> int:
        """Bytes of plaintext in every segment but the last."""
        return self.segment_bytes - OVERHEAD_BYTES

    @property
    def count(self) -> int:
        """Number of segments, at least 1."""
        return max(1, -(-self.size // self.plain_bytes))

    @property
    def body_bytes(self) -> int:
        """Bytes of all segments together, without the header."""
        return self.size + OVERHEAD_BYTES * self.count

    def is_final(self, index: int) -> bool:
        """Tell whether segment ``index`` is the last."""
        return index == self.count - 1

    def plain(self, index: int) -> tuple[int, int]:
        """Return offset and size of the plaintext of segment ``index``."""
        offset = index * self.plain_bytes
        return offset, min(self.plain_bytes, self.size - offset)

    def body(self, index: int) -> tuple[int, int]:
        """Return offset and size of encrypted segment ``index`` in the body."""
        return index * self.segment_bytes, self.plain(index)[1] + OVERHEAD_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A FLOE header, not yet verified: FLOE section "FLOE Ciphertext Layout"."""

    segment_bytes: int
    iv: bytes
    tag: bytes

    def dump(self) -> bytes:
        """Return the 74 bytes."""
        return _parameters(self.segment_bytes) + self.iv + self.tag

    @classmethod
    def parse(cls, data: bytes) -> Header:
        """Parse. Another cipher, another hash or another length of IV is ``Malformed``: there are no others."""
        reader = Reader(data, what="floe header")
        reader.expect(bytes((_AEAD_ID, _KDF_ID)))
        segment_bytes = reader.u32()
        reader.expect(_IV_BYTES.to_bytes(4, "big"))
        header = cls(segment_bytes=segment_bytes, iv=reader.take(_IV_BYTES), tag=reader.take(_TAG_BYTES))
        reader.end()
        if not OVERHEAD_BYTES < segment_bytes <= _MAX_SEGMENT_BYTES:
            reader.fail(f"segments of {segment_bytes} bytes, want {OVERHEAD_BYTES + 1} to {_MAX_SEGMENT_BYTES}")
        return header


def expand(key: Buffer, info: bytes, size: int) -> bytearray:
    """Return ``size`` bytes of HKDF-Expand-SHA384 (RFC 5869 section 2.3), in memory the caller can wipe."""
    out = bytearray(size)
    HKDFExpand(algorithm=SHA384(), length=size, info=info).derive_into(key, out)
    return out


def _parameters(segment_bytes: int) -> bytes:
    """PARAM_ENCODE."""
    return bytes((_AEAD_ID, _KDF_ID)) + segment_bytes.to_bytes(4, "big") + _IV_BYTES.to_bytes(4, "big")


class _Keys:
    """FLOE_KDF and DERIVE_KEY for one header. Safe to use from several threads."""

    __slots__ = ("_aad", "_ciphers", "_context", "_message_key", "_rotation_bits", "segment_bytes")

    def __init__(self, *, aad: bytes, segment_bytes: int, iv: bytes, rotation_bits: int) -> None:
        self._aad = aad
        self._context = _parameters(segment_bytes) + iv
        self._rotation_bits = rotation_bits
        self._ciphers: dict[int, AESGCM] = {}
        self._message_key = bytearray()
        self.segment_bytes = segment_bytes

    def start(self, key: Buffer) -> bytes:
        """Derive the message key, and return the header tag that commits to ``key``, IV and additional data."""
        if len(key) != KEY_BYTES:
            msg = f"floe: key is {len(key)} bytes, want {KEY_BYTES}"
            raise UsageError(msg)
        self._message_key = self._derive(key, b"MESSAGE_KEY:", _MESSAGE_KEY_BYTES)
        return bytes(self._derive(key, b"HEADER_TAG:", _TAG_BYTES))

    def _derive(self, key: Buffer, purpose: bytes, size: int) -> bytearray:
        return expand(key, self._context + purpose + self._aad, size)

    def cipher(self, index: int) -> AESGCM:
        """Return the cipher of the 2**20 segments that ``index`` is one of."""
        if not self._message_key:
            msg = "floe: keys were wiped"
            raise UsageError(msg)
        if not 0 <= index < MAX_SEGMENTS:
            msg = f"floe: segment {index} is outside 0..{MAX_SEGMENTS - 1}"
            raise UsageError(msg)
        first = index >> self._rotation_bits << self._rotation_bits
        found = self._ciphers.get(first)
        if found is None:
            key = self._derive(self._message_key, b"DEK:" + first.to_bytes(8, "big"), KEY_BYTES)
            found = AESGCM(key)
            key[:] = bytes(KEY_BYTES)
            self._ciphers = {first: found}  # two threads at a border derive twice, which is only slower
        return found

    def wipe(self) -> None:
        """Forget the keys."""
        self._message_key[:] = bytes(len(self._message_key))
        self._message_key = bytearray()
        self._ciphers = {}


def _started(
    key: Buffer, *, aad: bytes, header: bytes, segment_bytes: int, rotation_bits: int = ROTATION_BITS
) -> _Keys:
    """Return the keys of a message whose ``header`` is proven to be of ``key``, ``aad`` and ``segment_bytes``."""
    parsed = Header.parse(header)
    if parsed.segment_bytes != segment_bytes:
        msg = f"floe header: segments of {parsed.segment_bytes} bytes, want {segment_bytes}"
        raise Malformed(msg)
    keys = _Keys(aad=aad, segment_bytes=segment_bytes, iv=parsed.iv, rotation_bits=rotation_bits)
    if not compare_digest(keys.start(key), parsed.tag):
        keys.wipe()
        raise Rejected.because("wrong_key", "floe header")
    return keys


def _place(index: int, *, final: bool) -> bytes:
    """Return what a segment authenticates beside its text: its number and whether it is the last."""
    return index.to_bytes(8, "big") + (b"\x01" if final else b"\x00")


class Encryptor:
    """Encrypts the segments of one message, in any order, from any thread.

    The caller encrypts each segment once, and exactly one, the last, with ``final``.
    """

    __slots__ = ("_keys", "_last_nonce", "_random", "header")

    def __init__(
        self,
        key: Buffer,
        *,
        aad: bytes,
        segment_bytes: int,
        random: Callable[[int], bytes] = os.urandom,
        rotation_bits: int = ROTATION_BITS,
        header: bytes | None = None,
    ) -> None:
        """Start a message under a 32-byte ``key``; ``header`` is what the reader needs.

        ``aad`` is authenticated, not stored. ``rotation_bits`` is other than 20 only in known-answer
        tests. With a ``header`` that message is gone on with, once it is proven as by ``Decryptor``: a segment that is
        encrypted again gets a nonce of its own, and the caller sees to it that each index has one text.
        """
        Layout(size=0, segment_bytes=segment_bytes)
        self._random = random
        self._last_nonce = b""
        if header is not None:
            self._keys = _started(key, aad=aad, header=header, segment_bytes=segment_bytes, rotation_bits=rotation_bits)
            self.header = header
            return
        iv = random(_IV_BYTES)
        self._keys = _Keys(aad=aad, segment_bytes=segment_bytes, iv=iv, rotation_bits=rotation_bits)
        self.header = Header(segment_bytes=segment_bytes, iv=iv, tag=self._keys.start(key)).dump()

    def segment(self, index: int, plaintext: Buffer, *, final: bool) -> bytes:
        """Return encrypted segment ``index``."""
        out = bytearray(len(plaintext) + OVERHEAD_BYTES)
        self.segment_into(index, plaintext, memoryview(out), final=final)
        return bytes(out)

    def segment_into(self, index: int, plaintext: Buffer, out: memoryview, *, final: bool) -> int:
        """Write encrypted segment ``index`` to the front of ``out``; return its size. encryptSegment of FLOE."""
        size = len(plaintext) + OVERHEAD_BYTES
        if size > self._keys.segment_bytes or (not final and size != self._keys.segment_bytes):
            msg = f"floe: segment {index} would be {size} bytes of {self._keys.segment_bytes}, final is {final}"
            raise UsageError(msg)
        cipher = self._keys.cipher(index)
        nonce = self._nonce()
        text = _LENGTH_BYTES + _NONCE_BYTES
        out[:_LENGTH_BYTES] = size.to_bytes(_LENGTH_BYTES, "big") if final else _NOT_FINAL
        out[_LENGTH_BYTES:text] = nonce
        cipher.encrypt_into(nonce, plaintext, _place(index, final=final), out[text:size])
        return size

    def _nonce(self) -> bytes:
        nonce = self._random(_NONCE_BYTES)
        if nonce == self._last_nonce:  # a broken generator; two texts under one nonce would give both away
            msg = "floe: the system's randomness repeats itself"
            raise Unavailable(msg)
        self._last_nonce = nonce
        return nonce

    def wipe(self) -> None:
        """Forget the keys; nothing can be encrypted afterwards."""
        self._keys.wipe()


class Decryptor:
    """Decrypts the segments of one message, in any order, from any thread."""

    __slots__ = ("_keys",)

    def __init__(
        self, key: Buffer, *, aad: bytes, header: bytes, segment_bytes: int, rotation_bits: int = ROTATION_BITS
    ) -> None:
        """Prove that ``header`` was made with ``key``, ``aad`` and ``segment_bytes``. startDecryption of FLOE.

        Raises ``Malformed`` for a header of other parameters, ``Rejected`` (``wrong_key``) for a tag
        that differs.
        """
        self._keys = _started(key, aad=aad, header=header, segment_bytes=segment_bytes, rotation_bits=rotation_bits)

    def segment(self, index: int, ciphertext: Buffer, *, final: bool) -> bytes:
        """Return the plaintext of segment ``index``. Raises ``Rejected`` (``decryption_failed``)."""
        out = bytearray(max(0, len(ciphertext) - OVERHEAD_BYTES))
        self.segment_into(index, ciphertext, memoryview(out), final=final)
        return bytes(out)

    def segment_into(self, index: int, ciphertext: Buffer, out: memoryview, *, final: bool) -> int:
        """Write the plaintext of segment ``index`` to the front of ``out``; return its size.

        Whatever is wrong is one error, ``Rejected`` (``decryption_failed``); ``out`` then holds nothing
        that may be used. decryptSegment of FLOE.
        """
        data = memoryview(ciphertext)
        size = len(data)
        least = OVERHEAD_BYTES if final else self._keys.segment_bytes
        want = size.to_bytes(8, "big")[-_LENGTH_BYTES:] if final else _NOT_FINAL
        if not least <= size <= self._keys.segment_bytes or data[:_LENGTH_BYTES] != want:
            raise _failed(index)
        text = _LENGTH_BYTES + _NONCE_BYTES
        try:
            return self._keys.cipher(index).decrypt_into(
                bytes(data[_LENGTH_BYTES:text]),
                data[text:],
                _place(index, final=final),
                out[: size - OVERHEAD_BYTES],
            )
        except InvalidTag as exc:
            raise _failed(index) from exc

    def wipe(self) -> None:
        """Forget the keys; nothing can be decrypted afterwards."""
        self._keys.wipe()


def _failed(index: int) -> Rejected:
    return Rejected.because("decryption_failed", f"floe segment {index}")
