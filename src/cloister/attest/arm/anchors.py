"""Trust anchors of Arm's tokens: the attestation key of a device, given by who made or enrolled it.

Arm runs no authority for these keys; there is no chain. An anchor is a key and the ids it is for (RFC 9783 sections
4.2.1, 4.2.2 and 7.2, draft-ffm-rats-cca-token-03 section 7.2). Keys come as PEM or DER, as JWK (RFC 7517), as COSE_Key,
as a point on a curve, or as the bytes of a shared secret: of what is a public key nobody makes a secret, for everybody
knows it, nor of a text, which may be one in letters. Several anchors come as the JSON array that CCA tooling uses.

Not done here: who may add an anchor (the custodian).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from cloister.attest.cose import CURVES, parse_cose_key, point_key
from cloister.errors import Malformed, UsageError
from cloister.wire import Fields, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloister.attest.cose import CoseKey
    from cloister.wire import Json

__all__ = [
    "IMPLEMENTATION_ID_BYTES",
    "INSTANCE_ID_BYTES",
    "Anchor",
    "find_anchor",
    "is_instance_id",
    "parse_anchors",
    "parse_key",
]

INSTANCE_ID_BYTES = 33  # RFC 9783 section 4.2.1: an EAT UEID of type RAND
IMPLEMENTATION_ID_BYTES = 32  # section 4.2.2
MAX_ANCHORS_BYTES = 1 << 20  # bytes of one file of anchors
MAX_ANCHORS = 4096
_RAND = 1  # first byte of a UEID of type RAND (RFC 9711 section 4.2.1.1)
_MAX_KEY_BYTES = 8192
_SECRET_SIZES = range(16, 129)  # bytes of a shared secret
_PEM = b"-----BEGIN PUBLIC KEY-----"
_WHOLE_POINT = b"\x04"  # uncompressed (SEC 1 section 2.3.3)
_POINTS = (b"\x02", b"\x03", _WHOLE_POINT)
_JWK_CURVES = {"P-256": 1, "P-384": 2, "P-521": 3}
_HEX = re.compile(r"[0-9A-Fa-f]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A device's key and the ids it is for: of one instance, of an implementation, or of one in the other."""

    key: CoseKey
    instance_id: bytes | None = None
    implementation_id: bytes | None = None

    def __post_init__(self) -> None:
        """Refuse an anchor for everybody, ids out of form and secrets one can guess."""
        if self.instance_id is None and self.implementation_id is None:
            msg = "trust anchor: for no instance and no implementation"
            raise UsageError(msg)
        if self.instance_id is not None and not is_instance_id(self.instance_id):
            msg = f"trust anchor: instance id is not {INSTANCE_ID_BYTES} bytes that begin with 01"
            raise UsageError(msg)
        if self.implementation_id is not None and len(self.implementation_id) != IMPLEMENTATION_ID_BYTES:
            msg = f"trust anchor: implementation id is not {IMPLEMENTATION_ID_BYTES} bytes"
            raise UsageError(msg)
        if isinstance(self.key, bytes) and len(self.key) not in _SECRET_SIZES:
            msg = f"trust anchor: a secret of {len(self.key)} bytes, want {_SECRET_SIZES.start} to 128"
            raise UsageError(msg)

    def is_for(self, instance_id: bytes, implementation_id: bytes) -> bool:
        """Tell whether this is the key of that device: every id it names is the device's."""
        return self.instance_id in {None, instance_id} and self.implementation_id in {None, implementation_id}


def is_instance_id(value: bytes) -> bool:
    """Tell whether ``value`` has the form of an instance id."""
    return len(value) == INSTANCE_ID_BYTES and value[0] == _RAND


def find_anchor(anchors: Iterable[Anchor], instance_id: bytes, implementation_id: bytes) -> Anchor | None:
    """Return the anchor for a device; one that names its instance goes before one for all of its kind."""
    found = [anchor for anchor in anchors if anchor.is_for(instance_id, implementation_id)]
    return min(found, key=lambda anchor: anchor.instance_id is None, default=None)


def parse_key(data: bytes) -> CoseKey:
    """Parse a key: PEM, DER, JWK, COSE_Key, a point, or else the bytes of a shared secret. Raises ``Malformed``."""
    if len(data) > _MAX_KEY_BYTES:
        msg = f"attestation key: {len(data)} bytes, want at most {_MAX_KEY_BYTES}"
        raise Malformed(msg)
    if _PEM in data:
        return _parse_pem(data[data.find(_PEM) :])
    if data.lstrip().startswith(b"{"):
        return _take_jwk(parse_json(data, what="attestation key"))
    known = _known(data)
    if known is not None:
        return known
    if len(data) not in _SECRET_SIZES or _is_text(data):
        msg = "attestation key: neither pem, der, jwk, cose, a point, nor a secret of 16 to 128 bytes that are no text"
        raise Malformed(msg)
    return data


def _is_text(data: bytes) -> bool:
    return data.isascii() and "".join(data.decode("ascii").split()).isprintable()


def _known(data: bytes) -> ec.EllipticCurvePublicKey | None:
    """Return the public key that the bytes are, else None: SubjectPublicKeyInfo, COSE_Key, a point (its 04 may lack).

    Raises ``Malformed`` for a public key of another kind.
    """
    point = data if len(data) % 2 else _WHOLE_POINT + data
    for curve in CURVES.values() if point.startswith(_POINTS) else ():
        try:
            return ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
        except ValueError:
            continue
    try:
        return parse_cose_key(data, what="attestation key")
    except Malformed:
        pass
    try:
        key = load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return _on_a_curve(key)


def parse_anchors(data: bytes) -> tuple[Anchor, ...]:
    """Parse a JSON array of ``pkey`` (JWK), ``instance-id`` and ``implementation-id`` (hex). Raises ``Malformed``."""
    found = parse_json(data, what="trust anchors", cap=MAX_ANCHORS_BYTES)
    if not isinstance(found, list) or not 0 < len(found) <= MAX_ANCHORS:
        msg = f"trust anchors: want an array of 1 to {MAX_ANCHORS}"
        raise Malformed(msg)
    return tuple(_take_anchor(item) for item in found)


def _take_anchor(value: Json) -> Anchor:
    fields = Fields(value, what="trust anchor")
    try:
        anchor = Anchor(
            key=_take_jwk(fields.take("pkey")),
            instance_id=fields.optional("instance-id", lambda name: _hex(fields, name)),
            implementation_id=fields.optional("implementation-id", lambda name: _hex(fields, name)),
        )
    except UsageError as exc:  # an anchor refuses itself; here its author is the other party
        raise Malformed(exc.message) from exc
    fields.end()
    return anchor


def _hex(fields: Fields, name: str) -> bytes:
    text = fields.match(name, _HEX)
    if len(text) % 2:
        fields.fail(name, "want whole bytes")
    return bytes.fromhex(text)


def _take_jwk(value: Json) -> CoseKey:
    """Take a JWK of an elliptic curve (RFC 7518 section 6.2.1) or a secret (section 6.4)."""
    fields = Fields(value, what="jwk")
    kty = fields.text("kty")
    for name in ("alg", "kid", "use"):
        fields.optional(name, fields.text)
    if kty == "oct":
        secret = fields.b64u("k", cap=128)
        fields.end()
        return secret
    if kty != "EC":
        fields.fail("kty", "want EC or oct")
    crv = fields.text("crv")
    if crv not in _JWK_CURVES:
        fields.fail("crv", f"want {', '.join(_JWK_CURVES)}")
    curve = CURVES[_JWK_CURVES[crv]]
    size = (curve.key_size + 7) // 8
    x, y = fields.b64u("x", size=size), fields.b64u("y", size=size)
    fields.end()  # a private key has no business here: it fails as an unknown member
    return point_key(x, y, curve, what="jwk")


def _parse_pem(data: bytes) -> ec.EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as exc:
        msg = "attestation key: not pem, or of a kind we do not read"
        raise Malformed(msg) from exc
    return _on_a_curve(key)


def _on_a_curve(key: object) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        msg = "attestation key: not on an elliptic curve"
        raise Malformed(msg)
    return key
