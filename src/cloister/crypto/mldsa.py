"""ML-DSA-65 (FIPS 204): a second signature that holds where elliptic curves no longer do.

Pure ML-DSA with an empty context over the DSSE pre-authentication encoding, as ``sign`` has it: the label says what is
signed. Signatures are hedged, so no two are alike. Not done here: any use of it alone; it stands beside Ed25519.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from cloister.crypto.sign import pae
from cloister.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from cloister.crypto.sign import Label

__all__ = ["PUBLIC_BYTES", "SEED_BYTES", "SIGNATURE_BYTES", "SecondKey", "SecondSigner"]

SEED_BYTES = 32  # FIPS 204 section 3.6.1, xi
PUBLIC_BYTES = 1952  # FIPS 204 table 2
SIGNATURE_BYTES = 3309


@dataclass(frozen=True, slots=True)
class SecondKey:
    """An ML-DSA-65 public key, 1952 bytes."""

    raw: bytes

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the raw key, lower-case hex."""
        return hashlib.sha256(self.raw).hexdigest()

    def verify(self, label: Label, payload: bytes, signature: bytes) -> None:
        """Prove that the owner of this key signed ``payload`` as ``label``.

        Raises ``Rejected`` (``signature_invalid``); ``Unavailable`` where this build's OpenSSL has no ML-DSA.
        """
        try:
            MLDSA65PublicKey.from_public_bytes(self.raw).verify(signature, pae(label, payload))
        except (InvalidSignature, ValueError) as exc:
            raise Rejected.because("signature_invalid", f"{label.value}, second signature") from exc
        except UnsupportedAlgorithm as exc:
            raise _unavailable() from exc


class SecondSigner:
    """An ML-DSA-65 private key. It never prints itself."""

    __slots__ = ("_key", "public")

    def __init__(self, seed: bytes | bytearray) -> None:
        """Take the 32-byte seed. Raises ``Unavailable`` where this build's OpenSSL has no ML-DSA."""
        try:
            self._key = MLDSA65PrivateKey.from_seed_bytes(bytes(seed))
        except UnsupportedAlgorithm as exc:
            raise _unavailable() from exc
        self.public = SecondKey(self._key.public_key().public_bytes_raw())

    def sign(self, label: Label, payload: bytes) -> bytes:
        """Return the signature, 3309 bytes."""
        return self._key.sign(pae(label, payload))

    def __repr__(self) -> str:
        """Show the public name only."""
        return f"SecondSigner({self.public.fingerprint})"


def _unavailable() -> Unavailable:
    return Unavailable("ml-dsa-65: not in this build of OpenSSL", hint="use a cryptography with OpenSSL 3.5 or newer")
