"""Keys that a Relying Party was given for an issuer: a JWKS, one JWK (RFC 7517), PEM public keys or certificates.

Trust starts here: whoever hands over the file says whom he trusts. Keys of kinds that verify nothing here (``oct``,
unknown curves) are left out of the set, as RFC 7517 section 5 asks for; a set of none such is malformed.

Not done here: walking the chain of a key that has one (``proof``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloister.attest.chain import Certificate, parse_certificates
from cloister.attest.tokens.claimset import parse_claimset
from cloister.attest.tokens.jws import take_x5c
from cloister.errors import Malformed
from cloister.wire import parse_b64u

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.wire import Json

__all__ = ["MAX_KEYSET_BYTES", "KeySet", "PublicKey", "TokenKey", "fits", "jwks_items"]

PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | Ed25519PublicKey

MAX_KEYSET_BYTES = 256 * 1024  # bytes of one file of keys
MAX_KEYS = 64  # keys of one set
_MIN_RSA_BITS, _MAX_RSA_BITS = 2048, 8192
_MAX_EXPONENT_BYTES = 4
_CURVES: Mapping[str, tuple[ec.EllipticCurve, int]] = {
    "P-256": (ec.SECP256R1(), 32),
    "P-384": (ec.SECP384R1(), 48),
    "P-521": (ec.SECP521R1(), 66),
}
_EC_ALGORITHMS = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}
_RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_PEM_KEY = re.compile(rb"-----BEGIN (?:RSA )?PUBLIC KEY-----[^-]*-----END (?:RSA )?PUBLIC KEY-----")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """One key. ``public`` is None where only certificates say it; ``x5c`` are they, still base64."""

    public: PublicKey | None
    kid: str | None = None
    algorithm: str | None = None
    x5c: tuple[str, ...] | None = None
    certificate: Certificate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """Keys, and certificates that may be the root of a token's own chain."""

    keys: tuple[TokenKey, ...]
    roots: tuple[Certificate, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a JWKS, a JWK, PEM public keys, or certificates (PEM or DER). Raises ``Malformed``."""
        if len(data) > MAX_KEYSET_BYTES:
            msg = f"keys: {len(data)} bytes, want at most {MAX_KEYSET_BYTES}"
            raise Malformed(msg)
        if data.lstrip().startswith(b"{"):
            found = cls(keys=_take_jwks(parse_claimset(data, what="keys")))
        elif blocks := _PEM_KEY.findall(data):
            found = cls(keys=tuple(TokenKey(public=_take_pem(block)) for block in blocks[:MAX_KEYS]))
        else:
            found = cls.of_certificates(parse_certificates(data))
        if not found.keys:
            msg = "keys: none of a kind that verifies tokens"
            raise Malformed(msg)
        return found

    @classmethod
    def of_jwks(cls, members: Mapping[str, Json], *, use: str) -> Self:
        """Return the keys of a JWKS whose ``use`` is named and this one; there may be none. Raises ``Malformed``."""
        found = [key for item in jwks_items(members) if item.get("use") == use for key in _take_jwk(item, use=use)]
        return cls(keys=tuple(found))

    @classmethod
    def of_certificates(cls, certificates: tuple[Certificate, ...]) -> Self:
        """Return a set of roots, each of which may also be the signer itself."""
        keys = tuple(
            TokenKey(public=public, certificate=item)
            for item in certificates
            if (public := _accepted(item.x509.public_key())) is not None
        )
        return cls(keys=keys, roots=certificates)


def fits(public: PublicKey, algorithm: str) -> bool:
    """Tell whether a key of this kind and curve signs with ``algorithm`` (RFC 7518 section 3.1, RFC 8037)."""
    if isinstance(public, rsa.RSAPublicKey):
        return algorithm in _RSA_ALGORITHMS
    if isinstance(public, ec.EllipticCurvePublicKey):
        return isinstance(public.curve, _EC_ALGORITHMS.get(algorithm, ()))
    return algorithm == "EdDSA"


def _take_jwks(members: Mapping[str, Json]) -> tuple[TokenKey, ...]:
    if "keys" not in members:
        return tuple(_take_jwk(members))
    return tuple(key for item in jwks_items(members) for key in _take_jwk(item))


def jwks_items(members: Mapping[str, Json]) -> list[Mapping[str, Json]]:
    """Return the JWKs of a set (RFC 7517 section 5), whatever they are for. Raises ``Malformed``."""
    listed = members.get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS or not all(isinstance(item, dict) for item in listed):
        msg = f"keys: want an array of at most {MAX_KEYS} objects"
        raise Malformed(msg)
    return listed


def _take_jwk(jwk: Mapping[str, Json], *, use: str = "sig") -> list[TokenKey]:
    """Return the key, or nothing where it is of a kind, or for a use, that verifies no signature here."""
    operations = jwk.get("key_ops", ["verify"])  # RFC 7517 section 4.3
    if jwk.get("use") not in {None, use} or not isinstance(operations, list) or "verify" not in operations:
        return []
    x5c = take_x5c(jwk, what="jwk")
    bare = jwk.get("kty") == "RSA" and "n" not in jwk
    public = None if bare else _take_public(jwk)
    if public is None and not (bare and x5c):
        return []
    return [TokenKey(public=public, kid=_optional(jwk, "kid"), algorithm=_optional(jwk, "alg"), x5c=x5c)]


def _optional(jwk: Mapping[str, Json], name: str) -> str | None:
    value = jwk.get(name)
    if value is not None and not isinstance(value, str):
        msg = f"jwk: {name}: want a string"
        raise Malformed(msg)
    return value


def _take_public(jwk: Mapping[str, Json]) -> PublicKey | None:
    """Return the key of RFC 7518 section 6 or RFC 8037 section 2; None for kinds that are not read."""
    kty, crv = jwk.get("kty"), jwk.get("crv")
    try:
        if kty == "RSA":
            exponent = int.from_bytes(_number(jwk, "e", cap=_MAX_EXPONENT_BYTES))
            modulus = int.from_bytes(_number(jwk, "n", cap=_MAX_RSA_BITS // 8))
            return _accepted(rsa.RSAPublicNumbers(exponent, modulus).public_key())
        if kty == "EC" and isinstance(crv, str) and crv in _CURVES:
            curve, size = _CURVES[crv]
            x, y = (int.from_bytes(_number(jwk, name, size=size)) for name in ("x", "y"))
            return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
        if kty == "OKP" and crv == "Ed25519":
            return Ed25519PublicKey.from_public_bytes(_number(jwk, "x", size=32))
    except (ValueError, UnsupportedAlgorithm) as exc:
        msg = "jwk: no such key"
        raise Malformed(msg) from exc
    return None


def _number(jwk: Mapping[str, Json], name: str, *, size: int | None = None, cap: int = 128) -> bytes:
    value = jwk.get(name)
    if not isinstance(value, str):
        msg = f"jwk: {name}: want a base64url string"
        raise Malformed(msg)
    return parse_b64u(value, what=f"jwk: {name}", size=size, cap=cap)


def _take_pem(block: bytes) -> PublicKey:
    try:
        public = _accepted(serialization.load_pem_public_key(block))
    except (ValueError, UnsupportedAlgorithm) as exc:
        msg = "keys: not pem"
        raise Malformed(msg) from exc
    if public is None:
        msg = "keys: pem of a kind that verifies no token"
        raise Malformed(msg)
    return public


def _accepted(public: object) -> PublicKey | None:
    """Return a key strong enough to be believed, else None."""
    if isinstance(public, rsa.RSAPublicKey):
        return public if _MIN_RSA_BITS <= public.key_size <= _MAX_RSA_BITS else None
    curves = tuple(type(curve) for curve, _ in _CURVES.values())
    if isinstance(public, ec.EllipticCurvePublicKey):
        return public if isinstance(public.curve, curves) else None
    return public if isinstance(public, Ed25519PublicKey) else None
