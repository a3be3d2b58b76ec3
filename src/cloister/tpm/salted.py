"""Sessions that keep a secret from who listens on the way to the TPM, and notice who writes there.

Part 1 sections 17.6.11 (salt), 17.6.8 (session key), 17.6.5 (HMAC) and 19 (parameter encryption). The salt is agreed
with a key of the TPM whose public area the caller has proven: with another's, the listener would share it.

Not done here: bound sessions, and authorisation values: everything that Cloister keeps in a TPM has an empty one.
"""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING

from cryptography.hazmat.decrepit.ciphers.modes import CFB  # the TPM's own mode; integrity is the HMAC's
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from cloister.attest.tpm.algorithms import Alg, digest
from cloister.attest.tpm.credential import kdf_a, kdf_e
from cloister.attest.tpm.structures import b2
from cloister.errors import Rejected, UsageError
from cloister.tpm.codec import Session, dump_command, take_protected
from cloister.wire import Reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.attest.tpm.structures import Public
    from cloister.tpm.codec import Code

__all__ = ["SALTED_CIPHER", "Salt", "SaltedSession"]

_HASH = Alg.SHA256
_NONCE_BYTES = 32
_KEY_BITS, _IV_BITS = 128, 128
_DECRYPT, _ENCRYPT = 0x20, 0x40  # TPMA_SESSION: the command's first parameter is encrypted, the answer's
SALTED_CIPHER = b"".join(part.to_bytes(2, "big") for part in (Alg.AES, _KEY_BITS, Alg.CFB))
"""TPMT_SYM_DEF of every session here."""


class Salt:
    """A secret shared with the holder of a TPM's P-256 storage key, and what lets the TPM have it too (annex C.6.1)."""

    __slots__ = ("encrypted", "nonce", "value")

    def __init__(self, parent: Public) -> None:
        """Agree on one. Raises ``Malformed`` for a point off its curve, ``UsageError`` for another kind of key."""
        key = parent.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or parent.name_alg is not _HASH:
            msg = "tpm: sessions are salted to an elliptic curve key with SHA-256"
            raise UsageError(msg)
        size = (key.curve.key_size + 7) // 8
        ephemeral = ec.generate_private_key(key.curve)
        numbers = ephemeral.public_key().public_numbers()
        x, y = numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")
        parties = x + key.public_numbers().x.to_bytes(size, "big")
        self.value = kdf_e(_HASH, ephemeral.exchange(ec.ECDH(), key), b"SECRET\x00", parties)
        self.encrypted = b2(x) + b2(y)
        self.nonce = os.urandom(_NONCE_BYTES)

    def __repr__(self) -> str:
        return "Salt(...)"


class SaltedSession:
    """A session of either kind under a key that only this process and the TPM have. One command at a time."""

    __slots__ = ("_caller", "_key", "_tpm", "handle")

    def __init__(self, handle: int, salt: Salt, nonce_tpm: bytes) -> None:
        """Derive the session's key."""
        self.handle = handle
        self._key = kdf_a(_HASH, salt.value, b"ATH\x00", nonce_tpm + salt.nonce, 256)
        self._caller, self._tpm = salt.nonce, nonce_tpm

    def __repr__(self) -> str:
        return f"SaltedSession({self.handle:#x})"

    def command(
        self, code: Code, *, handles: Sequence[int], names: Sequence[bytes], secret: bytes | None = None, rest: bytes
    ) -> bytes:
        """Return a command that this session authorises; ``secret``, its first parameter, goes encrypted.

        ``names`` are those of ``handles``: the TPM refuses a command whose handles somebody exchanged. Without
        ``secret`` it is the first parameter of the answer that comes encrypted.
        """
        self._caller = os.urandom(_NONCE_BYTES)
        body, attributes = rest, _ENCRYPT
        if secret is not None:
            hidden = self._cipher(self._caller, self._tpm).encryptor().update(secret)
            body, attributes = b2(hidden) + rest, _DECRYPT
        session = Session(self.handle, nonce=self._caller, more=attributes)
        told = digest(_HASH, code.to_bytes(4, "big") + b"".join(names) + body)
        session = session.signed(self._mac(told, self._caller, self._tpm, session.attributes))
        return dump_command(code, handles=handles, sessions=(session,), body=body)

    def answer(self, data: bytes, code: Code) -> Reader:
        """Return the parameters of an answer, the first decrypted where it comes encrypted.

        Raises as ``parse_response``, and ``Rejected`` (``tpm_refused``) for an answer that is not this TPM's.
        """
        body, session = take_protected(data, code)
        self._tpm = session.nonce
        told = digest(_HASH, bytes(4) + code.to_bytes(4, "big") + body)
        if not hmac.compare_digest(session.hmac, self._mac(told, self._tpm, self._caller, session.attributes)):
            raise Rejected.because(
                "tpm_refused", f"tpm command {code.name.lower()}", got="an answer of somebody between", want="the tpm's"
            )
        what = f"tpm response to {code.name}"
        if session.attributes & _ENCRYPT:
            reader = Reader(body, what=what)
            hidden = reader.prefixed(2, cap=len(body))
            body = b2(self._cipher(self._tpm, self._caller).decryptor().update(hidden)) + reader.rest()
        return Reader(body, what=what)

    def _mac(self, told: bytes, newer: bytes, older: bytes, attributes: int) -> bytes:
        return hmac.digest(self._key, told + newer + older + bytes((attributes,)), "sha256")

    def _cipher(self, newer: bytes, older: bytes) -> Cipher[CFB]:
        made = kdf_a(_HASH, self._key, b"CFB\x00", newer + older, _KEY_BITS + _IV_BITS)
        return Cipher(algorithms.AES(made[: _KEY_BITS // 8]), CFB(made[_KEY_BITS // 8 :]))
