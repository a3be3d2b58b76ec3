"""Hybrid public key encryption, base mode (RFC 9180), with the exporter that OHTTP needs.

``cryptography``'s ``hpke.Suite`` is single-shot and has no exporter, so the key schedule of RFC 9180
section 5.1 and the contexts of section 5.2 and 5.3 are here, over its HKDF and AEADs; the KEMs are in
``kem``. Suites: X25519 or MLKEM768-X25519 (draft-ietf-hpke-pq), HKDF-SHA256, AES-GCM or
ChaCha20-Poly1305.

Not done here: PSK and Auth modes, export-only AEAD, other KDFs; who owns a public key.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import TypeAlias, assert_never

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from cloister.crypto.kem import Kem, KemPrivateKey, encapsulate, verify_public_key
from cloister.errors import Rejected, UsageError

__all__ = [
    "DEFAULT_SUITE",
    "HASH_BYTES",
    "NONCE_BYTES",
    "TAG_BYTES",
    "Aead",
    "AeadKey",
    "Context",
    "Kdf",
    "Kem",
    "KemPrivateKey",
    "ReceiverContext",
    "SenderContext",
    "Suite",
    "expand",
    "extract",
    "open_with",
    "seal_to",
    "setup_receiver",
    "setup_sender",
    "verify_public_key",
]

HASH_BYTES = 32  # Nh of HKDF-SHA256
NONCE_BYTES = 12  # Nn, the same for the three AEADs
TAG_BYTES = 16  # Nt, the same for the three AEADs
MAX_EXPORT_BYTES = 255 * HASH_BYTES  # RFC 9180 section 5.3
MAX_SEALED_BYTES = 2**31 - 1  # what the library takes in one call
_MAX_MESSAGES = 2 ** (8 * NONCE_BYTES) - 1  # RFC 9180 section 5.2
_VERSION = b"HPKE-v1"
_MODE_BASE = b"\x00"


class Kdf(IntEnum):
    """KDF identifiers of the IANA HPKE registry."""

    HKDF_SHA256 = 0x0001


class Aead(IntEnum):
    """AEAD identifiers of the IANA HPKE registry."""

    AES_128_GCM = 0x0001
    AES_256_GCM = 0x0002
    CHACHA20_POLY1305 = 0x0003

    @property
    def key_bytes(self) -> int:
        """Size of a key (Nk)."""
        return 16 if self is Aead.AES_128_GCM else 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One combination of algorithms."""

    kem: Kem
    kdf: Kdf
    aead: Aead

    @property
    def id(self) -> bytes:
        """The suite_id of RFC 9180 section 5.1."""
        return b"HPKE" + b"".join(part.to_bytes(2, "big") for part in (self.kem, self.kdf, self.aead))


DEFAULT_SUITE = Suite(kem=Kem.MLKEM768_X25519, kdf=Kdf.HKDF_SHA256, aead=Aead.AES_256_GCM)


def extract(salt: bytes, key_material: bytes) -> bytes:
    """HKDF-Extract with SHA-256 (RFC 5869 section 2.2)."""
    return HKDF.extract(SHA256(), salt, key_material)


def expand(prk: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand with SHA-256 (RFC 5869 section 2.3)."""
    return HKDFExpand(SHA256(), length, info).derive(prk)


Octets: TypeAlias = "bytes | memoryview"


class AeadKey:
    """One key of an AEAD, prepared once for all that it seals and opens. Never printed."""

    __slots__ = ("_cipher",)

    def __init__(self, aead: Aead, key: bytes) -> None:
        """Prepare ``key``."""
        match aead:
            case Aead.AES_128_GCM | Aead.AES_256_GCM:
                self._cipher: AESGCM | ChaCha20Poly1305 = AESGCM(key)
            case Aead.CHACHA20_POLY1305:
                self._cipher = ChaCha20Poly1305(key)
            case _:
                assert_never(aead)

    def seal(self, nonce: bytes, plaintext: Octets, aad: bytes) -> bytes:
        """Return ciphertext and tag. Raises ``UsageError`` for more than the library takes."""
        if len(plaintext) > MAX_SEALED_BYTES - TAG_BYTES or len(aad) > MAX_SEALED_BYTES:
            msg = f"hpke: plaintext of {len(plaintext)} bytes, want at most {MAX_SEALED_BYTES - TAG_BYTES}"
            raise UsageError(msg)
        return self._cipher.encrypt(nonce, plaintext, aad)

    def open(self, nonce: bytes, ciphertext: Octets, aad: bytes) -> bytes:
        """Return the plaintext. Raises ``Rejected`` (``decryption_failed``), always the same one."""
        if not TAG_BYTES <= len(ciphertext) <= MAX_SEALED_BYTES or len(aad) > MAX_SEALED_BYTES:
            raise Rejected.because("decryption_failed", "hpke")
        try:
            return self._cipher.decrypt(nonce, ciphertext, aad)
        except InvalidTag as exc:
            raise Rejected.because("decryption_failed", "hpke") from exc


@lru_cache(maxsize=64)
def _context(suite: Suite, info: bytes) -> bytes:
    """Return key_schedule_context of RFC 9180 section 5.1: public, and the same for every message to one key."""
    version = _VERSION + suite.id
    psk_id_hash = extract(b"", version + b"psk_id_hash")
    return _MODE_BASE + psk_id_hash + extract(b"", version + b"info_hash" + info)


class _Schedule:
    """What the key schedule gives: AEAD key, base nonce, exporter secret and the message counter."""

    __slots__ = ("_base_nonce", "_exporter_secret", "_key", "_seq", "_version")

    def __init__(self, suite: Suite, shared_secret: bytes, info: bytes) -> None:
        """KeySchedule of RFC 9180 section 5.1 for mode_base: no PSK, no PSK id."""
        self._version = _VERSION + suite.id
        context = _context(suite, info)
        secret = extract(shared_secret, self._version + b"secret")
        self._key = AeadKey(suite.aead, self._labeled_expand(secret, b"key", context, suite.aead.key_bytes))
        self._base_nonce = self._labeled_expand(secret, b"base_nonce", context, NONCE_BYTES)
        self._exporter_secret = self._labeled_expand(secret, b"exp", context, HASH_BYTES)
        self._seq = 0

    def _labeled_expand(self, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
        return expand(prk, length.to_bytes(2, "big") + self._version + label + info, length)

    def nonce(self) -> bytes:
        """ComputeNonce of RFC 9180 section 5.2, for the message that is next."""
        if self._seq >= _MAX_MESSAGES:
            msg = "hpke: message limit reached"
            raise UsageError(msg)
        return (int.from_bytes(self._base_nonce, "big") ^ self._seq).to_bytes(NONCE_BYTES, "big")

    def seal(self, plaintext: Octets, aad: bytes) -> bytes:
        ciphertext = self._key.seal(self.nonce(), plaintext, aad)
        self._seq += 1
        return ciphertext

    def open(self, ciphertext: Octets, aad: bytes) -> bytes:
        plaintext = self._key.open(self.nonce(), ciphertext, aad)
        self._seq += 1  # only after success, so that a forged message costs the stream nothing
        return plaintext

    def export(self, context: bytes, length: int) -> bytes:
        """Context.Export of RFC 9180 section 5.3."""
        if not 0 < length <= MAX_EXPORT_BYTES:
            msg = f"hpke: export of {length} bytes, want 1 to {MAX_EXPORT_BYTES}"
            raise UsageError(msg)
        return self._labeled_expand(self._exporter_secret, b"sec", context, length)


class SenderContext:
    """The sender's end: seals messages in order. Not for use by two threads at once."""

    __slots__ = ("_schedule",)

    def __init__(self, schedule: _Schedule) -> None:
        """Take a schedule; made by ``setup_sender``."""
        self._schedule = schedule

    def seal(self, plaintext: Octets, aad: bytes = b"") -> bytes:
        """Return the next ciphertext."""
        return self._schedule.seal(plaintext, aad)

    def export(self, context: bytes, length: int) -> bytes:
        """Return a secret that only both ends of this context know."""
        return self._schedule.export(context, length)


class ReceiverContext:
    """The receiver's end: opens messages in order. Not for use by two threads at once."""

    __slots__ = ("_schedule",)

    def __init__(self, schedule: _Schedule) -> None:
        """Take a schedule; made by ``setup_receiver``."""
        self._schedule = schedule

    def open(self, ciphertext: Octets, aad: bytes = b"") -> bytes:
        """Return the next plaintext.

        Proves that whoever made the context sealed it, in this order. Raises ``Rejected``
        (``decryption_failed``); the counter then stays where it was.
        """
        return self._schedule.open(ciphertext, aad)

    def export(self, context: bytes, length: int) -> bytes:
        """Return a secret that only both ends of this context know."""
        return self._schedule.export(context, length)


Context: TypeAlias = SenderContext | ReceiverContext


def setup_sender(suite: Suite, public_key: bytes, info: bytes) -> tuple[bytes, SenderContext]:
    """SetupBaseS of RFC 9180 section 5.1.1: return ``(enc, context)``.

    Raises ``Malformed`` for a public key of wrong size or low order.
    """
    enc, shared_secret = encapsulate(suite.kem, public_key)
    return enc, SenderContext(_Schedule(suite, shared_secret, info))


def setup_receiver(suite: Suite, private_key: KemPrivateKey, enc: bytes, info: bytes) -> ReceiverContext:
    """SetupBaseR of RFC 9180 section 5.1.1.

    Raises ``Malformed`` for an ``enc`` of wrong size or low order, ``UsageError`` for a key of
    another KEM than the suite's.
    """
    if private_key.kem is not suite.kem:
        msg = f"hpke: key is {private_key.kem.name}, suite wants {suite.kem.name}"
        raise UsageError(msg)
    return ReceiverContext(_Schedule(suite, private_key.decapsulate(enc), info))


def seal_to(suite: Suite, public_key: bytes, *, info: bytes, plaintext: bytes, aad: bytes = b"") -> tuple[bytes, bytes]:
    """Return ``(enc, ciphertext)`` of one message (RFC 9180 section 6.1). Raises as ``setup_sender``."""
    enc, context = setup_sender(suite, public_key, info)
    return enc, context.seal(plaintext, aad)


def open_with(
    suite: Suite, private_key: KemPrivateKey, *, info: bytes, enc: bytes, ciphertext: bytes, aad: bytes = b""
) -> bytes:
    """Return the plaintext of one message (RFC 9180 section 6.1).

    Raises as ``setup_receiver``, and ``Rejected`` (``decryption_failed``) for all that does not open.
    """
    return setup_receiver(suite, private_key, enc, info).open(ciphertext, aad)
