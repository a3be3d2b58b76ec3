"""Whom somebody believes to have made a model: a public key, or the root of an authority that certifies makers.

ECDSA over P-256, P-384 and P-521, which is what signers of models use (OMS v1.0 section 4.1). Nothing here is trusted
because a model brought it: makers are pinned by who reads.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloister.attest.chain import MAX_CERTIFICATE_BYTES, Certificate, parse_certificates
from cloister.errors import Malformed
from cloister.wire import Fields, dump_b64u

if TYPE_CHECKING:
    from cloister.wire import Json

__all__ = ["CURVES", "MAX_MAKERS", "Maker", "MakerKind", "parse_makers"]

MAX_MAKERS = 8  # makers that one model or one enclave names
_MAX_KEY_BYTES = 256  # bytes of a SubjectPublicKeyInfo; P-521 has 158
_MAX_PEM_BYTES = 64 * 1024
_PEM_KEY = b"-----BEGIN PUBLIC KEY-----"
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


class MakerKind(StrEnum):
    """What is pinned."""

    KEY = "key"
    ROOT = "root"


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """One pinned maker: a key's SubjectPublicKeyInfo, or the certificate of a root, as exact DER."""

    kind: MakerKind
    der: bytes

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the DER, lower-case hex: the short name of this maker."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def shown(self) -> str:
        """Words for a person: what it is, and its fingerprint or its name."""
        return f"key {self.fingerprint}" if self.kind is MakerKind.KEY else f"root {self.certificate().shown}"

    def key(self) -> ec.EllipticCurvePublicKey:
        """Return the public key of a ``KEY``."""
        return _key(self.der)

    def certificate(self) -> Certificate:
        """Return the certificate of a ``ROOT``."""
        return Certificate.parse(self.der)

    def to_json(self) -> Json:
        """Return the JSON object of docs/spec/sealed-model.md."""
        return {"der": dump_b64u(self.der), "kind": self.kind.value}

    @classmethod
    def from_json(cls, value: Json) -> Maker:
        """Parse, key or certificate too. Raises ``Malformed``."""
        fields = Fields(value, what="maker")
        kind = fields.text("kind", cap=8)
        if kind not in set(MakerKind):
            fields.fail("kind", "want " + " or ".join(MakerKind))
        maker = cls(kind=MakerKind(kind), der=fields.b64u("der", cap=MAX_CERTIFICATE_BYTES))
        fields.end()
        if maker.kind is MakerKind.KEY:
            maker.key()
        else:
            maker.certificate()
        return maker


def parse_makers(data: bytes) -> tuple[Maker, ...]:
    """Return the makers in a PEM file: one public key, or the certificates of one or more roots.

    Raises ``Malformed``.
    """
    if len(data) > _MAX_PEM_BYTES:
        msg = f"maker: {len(data)} bytes of pem, want at most {_MAX_PEM_BYTES}"
        raise Malformed(msg)
    if not data.lstrip().startswith(_PEM_KEY):
        found = tuple(Maker(kind=MakerKind.ROOT, der=item.der) for item in parse_certificates(data))
        if len(found) > MAX_MAKERS:
            msg = f"maker: {len(found)} certificates, want at most {MAX_MAKERS}"
            raise Malformed(msg)
        return found
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as exc:
        msg = "maker: no public key in pem"
        raise Malformed(msg) from exc
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    _key(der)
    return (Maker(kind=MakerKind.KEY, der=der),)


def _key(der: bytes) -> ec.EllipticCurvePublicKey:
    if len(der) > _MAX_KEY_BYTES:
        msg = f"maker: key of {len(der)} bytes, want at most {_MAX_KEY_BYTES}"
        raise Malformed(msg)
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm) as exc:
        msg = "maker: no public key in der"
        raise Malformed(msg) from exc
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVES):
        msg = "maker: want a key on P-256, P-384 or P-521"
        raise Malformed(msg)
    if key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo) != der:
        msg = "maker: key in a second spelling"
        raise Malformed(msg)
    return key
