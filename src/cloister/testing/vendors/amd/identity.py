"""A synthetic identity block with its owner's keys (AMD 56860 section 8.18)."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from cloister.attest.amd.idblock import ID_AUTH_BYTES, IdBlock, dump_key
from cloister.testing.vendors.amd.report import sign

__all__ = ["SyntheticIdentity", "synthetic_identity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticIdentity:
    """A block, the authentication beside it, and who signed."""

    block: IdBlock
    auth: bytes
    id_key: ec.EllipticCurvePrivateKey
    author_key: ec.EllipticCurvePrivateKey


def synthetic_identity(launch_digest: bytes = bytes(48), *, author: bool = True) -> SyntheticIdentity:
    """Return an identity of a guest with this digest; without ``author`` nobody vouches for the identity key."""
    block = IdBlock(
        launch_digest=launch_digest, family_id=b"\x01" * 16, image_id=b"\x02" * 16, guest_svn=2, policy=0x30000
    )
    id_key, author_key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    public = dump_key(id_key.public_key())
    head = (1).to_bytes(4, "little") + int(author).to_bytes(4, "little") + bytes(56)
    auth = head + sign(block.dump(), id_key) + public + bytes(60)
    if author:
        auth += sign(public, author_key) + dump_key(author_key.public_key())
    return SyntheticIdentity(block=block, auth=auth.ljust(ID_AUTH_BYTES, b"\x00"), id_key=id_key, author_key=author_key)
