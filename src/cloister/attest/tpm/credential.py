"""A secret that only one TPM can open, made without a TPM (TPM2_MakeCredential; Part 1 section 24, annexes B.10, C.6).

The secret is encrypted to an endorsement key together with the Name of an attestation key. The TPM
releases it only if it holds both: so whoever knows the secret holds the attestation key in that TPM.

Not done here: whether the endorsement key is a TPM's (``ek``).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.decrepit.ciphers.modes import CFB  # the TPM's own mode; integrity is the HMAC's
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from cloister.attest.tpm.algorithms import DIGEST_BYTES, Alg, digest, hash_of
from cloister.attest.tpm.structures import b2
from cloister.errors import Rejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.attest.tpm.structures import Public

__all__ = ["Credential", "make_credential"]

_LABEL = b"IDENTITY\x00"
_AES_BLOCK_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What TPM2_ActivateCredential takes: the TPM2B_ID_OBJECT and the TPM2B_ENCRYPTED_SECRET, without their lengths."""

    id_object: bytes
    encrypted_secret: bytes


def kdf_a(alg: Alg, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """Return the key that KDFa derives: SP 800-108 in counter mode over HMAC (Part 1 section 11.4.10.2).

    ``label`` ends with its zero byte; ``context`` is contextU and contextV one after another.
    """
    name = hash_of(alg).name
    out = b""
    counter = 1
    while len(out) * 8 < bits:
        message = counter.to_bytes(4, "big") + label + context + bits.to_bytes(4, "big")
        out += hmac.new(key, message, name).digest()
        counter += 1
    return out[: bits // 8]


def kdf_e(alg: Alg, z: bytes, label: bytes, parties: bytes) -> bytes:
    """Return one digest of KDFe: SP 800-56A over an agreed point (Part 1 section 11.4.10.3)."""
    return digest(alg, (1).to_bytes(4, "big") + z + label + parties)


def _rsa_seed(key: rsa.RSAPublicKey, alg: Alg, rng: Callable[[int], bytes]) -> tuple[bytes, bytes]:
    """Return a fresh seed and its OAEP encryption (annex B.10.3)."""
    seed = rng(DIGEST_BYTES[alg])
    chosen = hash_of(alg)
    return seed, key.encrypt(seed, padding.OAEP(padding.MGF1(chosen), chosen, _LABEL))


def _ecc_seed(key: ec.EllipticCurvePublicKey, alg: Alg) -> tuple[bytes, bytes]:
    """Return an agreed seed and the ephemeral point to agree on it (annex C.6.3)."""
    size = key.curve.key_size // 8
    ephemeral = ec.generate_private_key(key.curve)
    numbers = ephemeral.public_key().public_numbers()
    x, y = numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")
    z = ephemeral.exchange(ec.ECDH(), key)
    # Part 1 section 11.4.10.3: coordinates enter at the full size of the field, whatever the wire dropped.
    seed = kdf_e(alg, z, _LABEL, x + key.public_numbers().x.to_bytes(size, "big"))
    return seed, b2(x) + b2(y)


def make_credential(ek: Public, ak_name: bytes, secret: bytes, *, rng: Callable[[int], bytes]) -> Credential:
    """Return ``secret`` for the TPM that holds ``ek`` and an object named ``ak_name``.

    ``rng`` returns so many random bytes. Raises ``Rejected`` (``ek_attributes_invalid``) for a key that
    protects no credentials, ``UsageError`` for a secret longer than the TPM's digest.
    """
    alg = ek.name_alg
    if not 0 < len(secret) <= DIGEST_BYTES[alg]:
        msg = f"credential: secret is {len(secret)} bytes, want 1 to {DIGEST_BYTES[alg]}"
        raise UsageError(msg)
    if ek.symmetric is None:
        raise Rejected.because("ek_attributes_invalid", "endorsement key", got="no cipher", want="a storage key")
    key = ek.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        seed, encrypted = _ecc_seed(key, alg)
    else:
        seed, encrypted = _rsa_seed(key, alg, rng)
    # Part 1 section 24.4: encrypt, then MAC over what was encrypted and the name.
    cipher_key = kdf_a(alg, seed, b"STORAGE\x00", ak_name, ek.symmetric.key_bits)
    encryptor = Cipher(algorithms.AES(cipher_key), CFB(bytes(_AES_BLOCK_BYTES))).encryptor()
    identity = encryptor.update(b2(secret)) + encryptor.finalize()
    mac_key = kdf_a(alg, seed, b"INTEGRITY\x00", b"", DIGEST_BYTES[alg] * 8)
    mac = hmac.new(mac_key, identity + ak_name, hash_of(alg).name).digest()
    return Credential(id_object=b2(mac) + identity, encrypted_secret=encrypted)
