"""COSE messages with one signature or one tag (RFC 9052 sections 4.2 and 6.2), a strict subset.

COSE_Sign1 by ECDSA (RFC 9053 section 2.1) where the curve is the algorithm's own, and COSE_Mac0 by whole HMACs
(section 3.1). The payload is inside, external data is empty. Headers: the algorithm is protected; a key id or a content
type may stand beside it; ``crit`` and whatever is unknown is refused.

Not done here: who a key belongs to, and what the payload says.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from cloister.attest.cbor import CborMap, dump_cbor, parse_cbor, take_tag
from cloister.errors import Malformed, Rejected

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = [
    "COSE_MAC0",
    "COSE_SIGN1",
    "CURVES",
    "ES256",
    "ES384",
    "ES512",
    "HMAC_256",
    "HMAC_384",
    "HMAC_512",
    "CoseKey",
    "CoseMessage",
    "dump_cose_key",
    "parse_cose_key",
    "point_key",
    "verify_message",
]

COSE_MAC0, COSE_SIGN1 = 17, 18  # CBOR tags (RFC 9052 table 1)
ES256, ES384, ES512 = -7, -35, -36  # RFC 9053 table 1
HMAC_256, HMAC_384, HMAC_512 = 5, 6, 7  # RFC 9053 table 3

_ALG, _CONTENT_TYPE, _KID, _TYP = 1, 3, 4, 16  # RFC 9052 table 3, RFC 9596
_MAX_PROTECTED_BYTES = 256
_MAX_KID_BYTES = 64
_MAX_PROOF_BYTES = 512  # bytes of a signature or a tag; those we accept have at most 132
_MAX_HEADER_CHARS = 128
_FRAME_BYTES = 1024  # bytes of a message besides its payload: heads, headers, signature

_KTY, _KEY_KID, _KEY_ALG, _CRV, _X, _Y = 1, 2, 3, -1, -2, -3  # RFC 9052 section 7.1, RFC 9053 section 7.1.1
_EC2 = 2
_MAX_KEY_BYTES = 512

CoseKey: TypeAlias = "ec.EllipticCurvePublicKey | bytes"
"""A public key for COSE_Sign1, the bytes of a shared secret for COSE_Mac0."""

CURVES: Final[Mapping[int, ec.EllipticCurve]] = {1: ec.SECP256R1(), 2: ec.SECP384R1(), 3: ec.SECP521R1()}
"""Curves by their number in COSE (RFC 9053 table 18)."""

_ECDSA: Mapping[int, tuple[str, hashes.HashAlgorithm]] = {
    ES256: ("secp256r1", hashes.SHA256()),
    ES384: ("secp384r1", hashes.SHA384()),
    ES512: ("secp521r1", hashes.SHA512()),
}
_HMAC: Mapping[int, str] = {HMAC_256: "sha256", HMAC_384: "sha384", HMAC_512: "sha512"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CoseMessage:
    """One message, unverified. ``kind`` is COSE_SIGN1 or COSE_MAC0, ``proof`` its signature or tag."""

    kind: int
    protected: bytes
    algorithm: int
    payload: bytes
    proof: bytes

    @classmethod
    def parse(cls, data: bytes, *, what: str, kinds: Collection[int], cap: int, untagged: int | None = None) -> Self:
        """Parse a message to its end. Raises ``Malformed``.

        ``kinds`` are the tags that may stand in front, ``cap`` the most bytes of the payload; ``untagged`` is the
        kind of a message without a tag, None where the tag is demanded.
        """
        tag, rest = take_tag(data, what=what)
        kind = untagged if tag is None else tag
        if kind is None or (tag is not None and tag not in kinds):
            msg = f"{what}: tag {tag}, want {' or '.join(map(str, sorted(kinds)))}"
            raise Malformed(msg)
        outer = parse_cbor(rest, what=what, cap=cap + _FRAME_BYTES)
        if not isinstance(outer, list) or len(outer) != 4:  # noqa: PLR2004 - RFC 9052 section 4.2
            msg = f"{what}: want an array of four items"
            raise Malformed(msg)
        parts = CborMap(dict(enumerate(outer)), what=what)
        protected = parts.data(0, range(1, _MAX_PROTECTED_BYTES + 1))
        _take_unprotected(CborMap(parts.take(1), what=f"{what}: unprotected header"))
        return cls(
            kind=kind,
            protected=protected,
            algorithm=_take_protected(protected, what=f"{what}: protected header"),
            payload=parts.data(2, range(1, cap + 1)),
            proof=parts.data(3, range(_MAX_PROOF_BYTES + 1)),
        )

    @property
    def covered(self) -> bytes:
        """What signature or tag is over (RFC 9052 sections 4.4 and 6.3)."""
        context = "Signature1" if self.kind == COSE_SIGN1 else "MAC0"
        return dump_cbor([context, self.protected, b"", self.payload])


def _take_protected(data: bytes, *, what: str) -> int:
    header = CborMap(parse_cbor(data, what=what, cap=_MAX_PROTECTED_BYTES), what=what)
    algorithm = header.integer(_ALG, floor=-(2**31), cap=2**31)
    if _KID in header:
        header.data(_KID, range(_MAX_KID_BYTES + 1))
    for label in (_CONTENT_TYPE, _TYP):
        if label in header and not isinstance(header.take(label), int | str):
            header.fail(label, "want an integer or a text")
    header.end()
    return algorithm


def _take_unprotected(header: CborMap) -> None:
    """Admit a key id, which nobody uses: it is nobody's word."""
    if _KID in header:
        header.data(_KID, range(_MAX_KID_BYTES + 1))
    header.end()


def verify_message(
    message: CoseMessage, key: CoseKey, *, algorithms: Collection[int], subject: str, code: str = "signature_invalid"
) -> None:
    """Prove that ``key`` signed or tagged the message. Raises ``Rejected``: ``algorithm_not_allowed`` or ``code``."""
    table = _ECDSA if message.kind == COSE_SIGN1 else _HMAC
    if message.algorithm not in algorithms or message.algorithm not in table:
        want = " or ".join(str(item) for item in sorted(set(algorithms) & set(table)))
        raise Rejected.because("algorithm_not_allowed", subject, got=str(message.algorithm), want=want or "none")
    holds = _is_signed(message, key) if message.kind == COSE_SIGN1 else _is_tagged(message, key)
    if not holds:
        raise Rejected.because(code, subject, got=message.proof[:64].hex(), want=f"by {_shown(key)}")


def _is_signed(message: CoseMessage, key: CoseKey) -> bool:
    curve, algorithm = _ECDSA[message.algorithm]
    if isinstance(key, bytes) or key.curve.name != curve:
        return False
    size = (key.curve.key_size + 7) // 8
    if len(message.proof) != 2 * size:  # RFC 9053 section 2.1: r and s, each as long as the curve's order
        return False
    r, s = int.from_bytes(message.proof[:size], "big"), int.from_bytes(message.proof[size:], "big")
    try:
        key.verify(encode_dss_signature(r, s), message.covered, ec.ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True


def _is_tagged(message: CoseMessage, key: CoseKey) -> bool:
    if not isinstance(key, bytes):
        return False
    return hmac.compare_digest(hmac.digest(key, message.covered, _HMAC[message.algorithm]), message.proof)


def _shown(key: CoseKey) -> str:
    return "a shared secret" if isinstance(key, bytes) else f"a key on {key.curve.name}"


def parse_cose_key(data: bytes, *, what: str) -> ec.EllipticCurvePublicKey:
    """Parse a COSE_Key of type EC2 (RFC 9053 section 7.1.1). Raises ``Malformed``."""
    key = CborMap(parse_cbor(data, what=what, cap=_MAX_KEY_BYTES), what=what)
    key.integer(_KTY, floor=_EC2, cap=_EC2)
    curve = CURVES[key.integer(_CRV, floor=min(CURVES), cap=max(CURVES))]
    size = (curve.key_size + 7) // 8
    x, y = key.data(_X, (size,)), key.data(_Y, (size,))
    if _KEY_KID in key:
        key.data(_KEY_KID, range(_MAX_KID_BYTES + 1))
    if _KEY_ALG in key:
        key.integer(_KEY_ALG, floor=-(2**31), cap=2**31)
    key.end()
    return point_key(x, y, curve, what=what)


def dump_cose_key(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return the COSE_Key of a public key on one of ``CURVES``."""
    size = (key.curve.key_size + 7) // 8
    numbers = key.public_numbers()
    (crv,) = (number for number, curve in CURVES.items() if curve.name == key.curve.name)
    x, y = (value.to_bytes(size, "big") for value in (numbers.x, numbers.y))
    return dump_cbor({_KTY: _EC2, _CRV: crv, _X: x, _Y: y})


def point_key(x: bytes, y: bytes, curve: ec.EllipticCurve, *, what: str) -> ec.EllipticCurvePublicKey:
    """Return the key of a point. Raises ``Malformed`` where it is not on its curve."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + x + y)
    except ValueError as exc:
        msg = f"{what}: no point on {curve.name}"
        raise Malformed(msg) from exc
