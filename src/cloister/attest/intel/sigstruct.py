"""The signature file of an SGX enclave (SIGSTRUCT, Intel SDM volume 3D section 38.13), as Gramine and the SDK write it.

It says what the enclave will measure before it ever runs: reference values of a signed build. The signature proves who
signed these values; whose key that is, only MRSIGNER tells.

Not done here: computing MRENCLAVE from the pages of an enclave.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

from cloister.errors import Rejected
from cloister.wire import Reader

if TYPE_CHECKING:
    from cloister.attest.rats import ClaimValue

__all__ = ["SIGSTRUCT_BYTES", "Sigstruct", "verify_sigstruct"]

SIGSTRUCT_BYTES = 1808
_HEADER = bytes.fromhex("06000000e10000000000010000000000")
_HEADER2 = bytes.fromhex("01010000600000006000000001000000")
_RSA_BYTES = 384  # 3072 bits
_EXPONENT = 3
_SIGNED = (slice(0, 128), slice(900, 1028))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sigstruct:
    """One file, unverified. ``signed`` is what the key signs; numbers are little-endian on disk."""

    signed: bytes
    vendor: int
    date: str
    modulus: bytes
    signature: int
    q1: int
    q2: int
    miscselect: bytes
    miscmask: bytes
    isvfamilyid: bytes
    attributes: bytes
    attributemask: bytes
    mrenclave: bytes
    isvextprodid: bytes
    isvprodid: int
    isvsvn: int

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse exactly 1808 bytes. Raises ``Malformed``."""
        reader = Reader(data, what="sigstruct")
        if len(data) != SIGSTRUCT_BYTES:
            reader.fail(f"{len(data)} bytes, want {SIGSTRUCT_BYTES}")
        reader.expect(_HEADER)
        vendor, date = reader.uint(4, little=True), f"{reader.uint(4, little=True):08x}"
        reader.expect(_HEADER2)
        reader.take(4 + 84)  # software defined, reserved
        modulus = reader.take(_RSA_BYTES)
        reader.expect(_EXPONENT.to_bytes(4, "little"))
        signature = reader.uint(_RSA_BYTES, little=True)
        miscselect, miscmask = reader.take(4), reader.take(4)
        reader.take(4)  # CET attributes and their mask
        isvfamilyid, attributes, attributemask = reader.take(16), reader.take(16), reader.take(16)
        mrenclave = reader.take(32)
        reader.take(16)
        isvextprodid = reader.take(16)
        isvprodid, isvsvn = reader.uint(2, little=True), reader.uint(2, little=True)
        reader.take(12)
        q1, q2 = reader.uint(_RSA_BYTES, little=True), reader.uint(_RSA_BYTES, little=True)
        reader.end()
        return cls(
            signed=b"".join(data[part] for part in _SIGNED),
            vendor=vendor,
            date=date,
            modulus=modulus,
            signature=signature,
            q1=q1,
            q2=q2,
            miscselect=miscselect,
            miscmask=miscmask,
            isvfamilyid=isvfamilyid,
            attributes=attributes,
            attributemask=attributemask,
            mrenclave=mrenclave,
            isvextprodid=isvextprodid,
            isvprodid=isvprodid,
            isvsvn=isvsvn,
        )

    @property
    def mrsigner(self) -> bytes:
        """SHA-256 of the modulus as it stands in the file."""
        return hashlib.sha256(self.modulus).digest()

    def reference_values(self) -> dict[str, ClaimValue]:
        """Return what evidence of this enclave claims."""
        return {
            "isvextprodid": self.isvextprodid.hex(),
            "isvfamilyid": self.isvfamilyid.hex(),
            "isvprodid": self.isvprodid,
            "isvsvn": self.isvsvn,
            "mrenclave": self.mrenclave.hex(),
            "mrsigner": self.mrsigner.hex(),
        }


def verify_sigstruct(data: bytes) -> Sigstruct:
    """Prove that the key of MRSIGNER signed these values (RSA-3072, PKCS #1 v1.5, SHA-256), as a processor would.

    Raises ``Malformed``; ``Rejected`` (``signature_invalid``).
    """
    found = Sigstruct.parse(data)
    modulus = int.from_bytes(found.modulus, "little")
    try:
        key = RSAPublicNumbers(_EXPONENT, modulus).public_key()
        encoded = found.signature.to_bytes(_RSA_BYTES, "big")
        key.verify(encoded, found.signed, padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError) as exc:
        raise Rejected.because("signature_invalid", "sigstruct", got=found.mrsigner.hex()) from exc
    # Quotients that spare the processor a division: wrong ones keep the enclave from starting.
    q1, rest = divmod(found.signature**2, modulus)
    if found.q1 != q1 or found.q2 != rest * found.signature // modulus:
        raise Rejected.because("signature_invalid", "sigstruct quotients", got=found.mrsigner.hex())
    return found
