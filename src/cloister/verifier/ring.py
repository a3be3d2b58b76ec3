"""Signing keys and when each is what: published before it signs, signing, published after it signed.

    made, published ----ahead----> signs ----life----> retired, published ----keep----> gone
                                   the next key is published before it signs

Readers keep what they fetched for a while, and tokens live for a while: a key is in the published set before its first
token and until after its last. Times are whole seconds, so that a ring reads back from its file as it was.

Not done here: files (``keyfile``), reading the clock (``now`` comes in).
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self, TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from cloister.errors import Malformed, UsageError
from cloister.wire import Fields, Json, dump_b64u, dump_json, dump_time

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["KeyPlan", "PrivateKey", "Ring", "RingKey"]

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

MAX_RING_BYTES = 256 * 1024  # bytes of a ring at rest
MAX_KEYS = 32  # keys of a ring, of all algorithms
_RSA_BITS = 3072
_MAX_PKCS8_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPlan:
    """How long a key is what. ``keep`` is longer than any token lives."""

    life: timedelta
    ahead: timedelta
    keep: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class RingKey:
    """One key. It never prints its secret. ``kid`` is the thumbprint of its public half (RFC 7638)."""

    kid: str
    algorithm: str
    signs_from: datetime
    private: PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, algorithm: str, signs_from: datetime) -> Self:
        """Return a fresh key of ``ES256`` or ``RS256``."""
        private: PrivateKey = (
            ec.generate_private_key(ec.SECP256R1())
            if algorithm == "ES256"
            else rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
        )
        return cls(kid=_thumbprint(private), algorithm=algorithm, signs_from=_whole(signs_from), private=private)

    def jwk(self) -> dict[str, Json]:
        """Return the public half as a JWK (RFC 7517), with how it is used."""
        return {**_public(self.private), "alg": self.algorithm, "kid": self.kid, "use": "sig"}

    def to_json(self) -> Json:
        """Return the key with its secret, for the file."""
        pkcs8 = self.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return {"algorithm": self.algorithm, "pkcs8": dump_b64u(pkcs8), "signs_from": dump_time(self.signs_from)}

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """Parse a key. Raises ``Malformed``."""
        fields = Fields(value, what="signing key")
        algorithm, pkcs8 = fields.text("algorithm", cap=16), fields.b64u("pkcs8", cap=_MAX_PKCS8_BYTES)
        signs_from = fields.time("signs_from")
        fields.end()
        private = _load(pkcs8, algorithm)
        return cls(kid=_thumbprint(private), algorithm=algorithm, signs_from=signs_from, private=private)


def _load(pkcs8: bytes, algorithm: str) -> PrivateKey:
    try:
        key = load_der_private_key(pkcs8, password=None)
    except (ValueError, TypeError) as exc:
        msg = "signing key: not a pkcs #8 key"
        raise Malformed(msg) from exc
    if algorithm == "ES256" and isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    if algorithm == "RS256" and isinstance(key, rsa.RSAPrivateKey):
        return key
    msg = f"signing key: not one for {algorithm}"
    raise Malformed(msg)


def _public(private: PrivateKey) -> dict[str, Json]:
    public = private.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        return dict(jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True))
    members: dict[str, Json] = dict(jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True))
    return {name: members[name] for name in ("e", "kty", "n")}


def _thumbprint(private: PrivateKey) -> str:
    """RFC 7638 section 3: the required members alone, in order, without spaces."""
    return base64.urlsafe_b64encode(hashlib.sha256(dump_json(_public(private))).digest()).rstrip(b"=").decode()


def _whole(moment: datetime) -> datetime:
    return datetime.fromtimestamp(int(moment.timestamp()), UTC)


def _sorted(keys: Iterable[RingKey]) -> tuple[RingKey, ...]:
    return tuple(sorted(keys, key=lambda key: (key.algorithm, key.signs_from)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """Every key there is, the one that signs first first."""

    keys: tuple[RingKey, ...] = ()

    def signing(self, algorithm: str, now: datetime) -> RingKey:
        """Return the key that signs now. Raises ``UsageError`` where nobody planned for the algorithm."""
        found = [key for key in self._of(algorithm) if key.signs_from <= now] or self._of(algorithm)[:1]
        if not found:
            msg = f"signing keys: none for {algorithm}"
            raise UsageError(msg)
        return found[-1]

    def advance(self, algorithms: Collection[str], plan: KeyPlan, now: datetime) -> Self:
        """Return the ring as it has to be now: a key that signs, the next one in time, none that is done with."""
        keys: list[RingKey] = []
        for algorithm in sorted({*algorithms, *(key.algorithm for key in self.keys)}):
            mine = [key for key in self._of(algorithm) if not self._is_done(key, plan, now)]
            if algorithm in algorithms:
                mine += self._due(algorithm, mine, plan, now)
            keys += mine
        return replace(self, keys=tuple(keys))

    def rotate(self, plan: KeyPlan, now: datetime) -> Self:
        """Return the ring with a next key for every algorithm, to sign once readers have had time to fetch it."""
        algorithms = {key.algorithm for key in self.keys}
        waiting = {key.algorithm for key in self.keys if key.signs_from > now}
        fresh = [RingKey.generate(item, now + plan.ahead) for item in sorted(algorithms - waiting)]
        return replace(self, keys=_sorted((*self.keys, *fresh)))

    def replaced(self, now: datetime) -> Self:
        """Return a ring of fresh keys alone: after an incident no token of before is believed, by who asks again."""
        return replace(
            self, keys=tuple(RingKey.generate(item, now) for item in sorted({k.algorithm for k in self.keys}))
        )

    def jwks(self) -> Json:
        """Return every public key as a JWK set (RFC 7517 section 5)."""
        return {"keys": [key.jwk() for key in self.keys]}

    def dump(self) -> bytes:
        """Return the ring with its secrets, for the file."""
        return dump_json({"keys": [key.to_json() for key in self.keys], "v": 1})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a ring. Raises ``Malformed``."""
        fields = Fields.parse(data, what="signing keys", cap=MAX_RING_BYTES)
        fields.literal("v", 1)
        keys = tuple(RingKey.from_json(item) for item in fields.items("keys", cap=MAX_KEYS))
        fields.end()
        return cls(keys=_sorted(keys))

    def _of(self, algorithm: str) -> list[RingKey]:
        return [key for key in self.keys if key.algorithm == algorithm]

    def _is_done(self, key: RingKey, plan: KeyPlan, now: datetime) -> bool:
        """Tell whether every token that a key signed has ended."""
        later = [item.signs_from for item in self._of(key.algorithm) if item.signs_from > key.signs_from]
        return bool(later) and later[0] + plan.keep <= now

    def _due(self, algorithm: str, mine: list[RingKey], plan: KeyPlan, now: datetime) -> list[RingKey]:
        """Return the keys that are missing: the first, which signs at once for nobody knows another, or the next."""
        if not mine:
            return [RingKey.generate(algorithm, now)]
        last = mine[-1].signs_from
        if last > now or now < last + plan.life - plan.ahead:
            return []
        return [RingKey.generate(algorithm, max(last + plan.life, now + plan.ahead))]
