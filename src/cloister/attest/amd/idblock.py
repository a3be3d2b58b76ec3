"""Identity blocks: who a guest's owner says it is (AMD 56860 section 8.18, SNP_LAUNCH_FINISH; keys: chapter 10).

The firmware launches a guest only if its digest, policy and version are those of a signed block, and reports the
digests of the keys that signed: whoever pins ``id_key_digest`` or ``author_key_digest`` accepts all that they sign.

Not done here: making keys, signing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cryptography.hazmat.primitives.asymmetric import ec

from cloister.attest.amd.signature import ECDSA_P384_SHA384, holds
from cloister.attest.findings import Findings
from cloister.wire import Reader

if TYPE_CHECKING:
    from cloister.attest.rats import Check

__all__ = ["ID_AUTH_BYTES", "ID_BLOCK_BYTES", "IdAuth", "IdBlock", "dump_key", "key_digest", "verify_id_block"]

ID_BLOCK_BYTES = 96
ID_AUTH_BYTES = 4096
KEY_BYTES = 0x404
_P384 = 2
_SCALAR_BYTES = 72
_SIGNATURE_BYTES = 512
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class IdBlock:
    """What the owner signs: this digest, under this policy, is this image in this version."""

    launch_digest: bytes
    family_id: bytes
    image_id: bytes
    guest_svn: int
    policy: int

    def dump(self) -> bytes:
        """Return the ``ID_BLOCK_BYTES`` bytes that are signed."""
        numbers = _VERSION.to_bytes(4, "little") + self.guest_svn.to_bytes(4, "little")
        return self.launch_digest + self.family_id + self.image_id + numbers + self.policy.to_bytes(8, "little")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a block of version 1. Raises ``Malformed``."""
        reader = Reader(data, what="snp id block")
        digest, family_id, image_id = reader.take(48), reader.take(16), reader.take(16)
        version = reader.uint(4, little=True)
        if version != _VERSION:
            reader.fail(f"version {version}, want {_VERSION}")
        block = cls(
            launch_digest=digest,
            family_id=family_id,
            image_id=image_id,
            guest_svn=reader.uint(4, little=True),
            policy=reader.uint(8, little=True),
        )
        reader.end()
        return block


@dataclass(frozen=True, slots=True, kw_only=True)
class IdAuth:
    """Who signed: the identity key the block, and perhaps the author's key the identity key."""

    block_signature: tuple[int, int]
    id_key: ec.EllipticCurvePublicKey
    id_key_signature: tuple[int, int]
    author_key: ec.EllipticCurvePublicKey | None

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse ``ID_AUTH_BYTES`` bytes; an author's key of zeros is none. Raises ``Malformed``."""
        reader = Reader(data, what="snp id authentication")
        for name in ("identity", "author"):
            algorithm = reader.uint(4, little=True)
            if algorithm != ECDSA_P384_SHA384 and not (name == "author" and algorithm == 0):
                reader.fail(f"algorithm {algorithm} of the {name} key, want {ECDSA_P384_SHA384}")
        reader.expect(bytes(56))
        signature = _signature(reader)
        id_key = _key(reader, reader.take(KEY_BYTES))
        reader.expect(bytes(60))
        key_signature = _signature(reader)
        author = reader.take(KEY_BYTES)
        reader.expect(bytes(892))
        reader.end()
        return cls(
            block_signature=signature,
            id_key=id_key,
            id_key_signature=key_signature,
            author_key=_key(reader, author) if any(author) else None,
        )


def _signature(reader: Reader) -> tuple[int, int]:
    pair = (reader.uint(_SCALAR_BYTES, little=True), reader.uint(_SCALAR_BYTES, little=True))
    reader.expect(bytes(_SIGNATURE_BYTES - 2 * _SCALAR_BYTES))
    return pair


def _key(reader: Reader, data: bytes) -> ec.EllipticCurvePublicKey:
    fields = Reader(data, what="snp public key")
    curve = fields.uint(4, little=True)
    x, y = fields.uint(_SCALAR_BYTES, little=True), fields.uint(_SCALAR_BYTES, little=True)
    try:
        key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP384R1()).public_key()
    except ValueError:
        reader.fail("key is no point on P-384")
    if curve != _P384 or dump_key(key) != data:
        reader.fail(f"key on curve {curve}, want {_P384}")
    return key


def dump_key(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return a P-384 key in AMD's form, ``KEY_BYTES`` bytes."""
    numbers = key.public_numbers()
    points = numbers.x.to_bytes(_SCALAR_BYTES, "little") + numbers.y.to_bytes(_SCALAR_BYTES, "little")
    return (_P384.to_bytes(4, "little") + points).ljust(KEY_BYTES, b"\x00")


def key_digest(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return what a report carries as ID_KEY_DIGEST or AUTHOR_KEY_DIGEST: SHA-384 over the key in AMD's form."""
    return hashlib.sha384(dump_key(key)).digest()


def verify_id_block(block: IdBlock, auth: IdAuth) -> tuple[Check, ...]:
    """Prove that the identity key signed the block, and the author's key, where there is one, the identity key.

    Raises ``Rejected`` (``signature_invalid``). Does not say that either key is anybody's.
    """
    findings = Findings("snp id block")
    findings.expect(
        holds(auth.id_key, auth.block_signature, block.dump()), "signature_invalid", "id block", want="the id key's"
    )
    if auth.author_key is not None:
        signed = holds(auth.author_key, auth.id_key_signature, dump_key(auth.id_key))
        findings.expect(signed, "signature_invalid", "id key", want="the author key's")
    return findings.settle()
