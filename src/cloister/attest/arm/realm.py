"""Claims of a CCA Realm and its attestation key (draft-ffm-rats-cca-token-04 section 4.8; RMM section A7.2.3.1).

The Realm Attestation Key signs the Realm's token and is in it; what makes it more than self-signed is that the platform
signed its hash (section 4.3.3). The hash is over the claim's bytes: a raw point on P-384 where the token has no Realm
profile (RMM 1.0), else a COSE_Key.

Not done here: the binding itself (``schemes.cca``), what measurements should be.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from cloister.attest.arm.platform import PLATFORM_PROFILES
from cloister.attest.arm.psa import take_instance_id
from cloister.attest.arm.software import HASH_SIZES
from cloister.attest.cbor import CborMap
from cloister.attest.cose import CURVES, parse_cose_key, point_key
from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric import ec

    from cloister.attest.cbor import Cbor

__all__ = ["HASHES", "RealmClaims", "RealmKey"]

CHALLENGE_BYTES = 64
PERSONALIZATION_BYTES = 64
EXTENSIBLE_MEASUREMENTS = 4

PROFILE, CHALLENGE, INSTANCE_ID = 265, 10, 256
PERSONALIZATION, HASH_ALGORITHM, PUBLIC_KEY = 44235, 44236, 44237
INITIAL_MEASUREMENT, MEASUREMENTS, KEY_HASH_ALGORITHM, MEC_POLICY = 44238, 44239, 44240, 44243

HASHES: Final[Mapping[str, int]] = {"sha-256": 32, "sha-384": 48, "sha-512": 64}
"""Hash algorithms by their name in IANA's registry, with the size of what they make."""

_MAX_KEY_BYTES = 512
_MAX_TEXT_CHARS = 64
_P384 = 2  # number of the curve in COSE
_MEC_POLICIES = ("private", "shared", 0, 1)  # words since draft -03; numbers before
_WITH_MEC = frozenset({"tag:arm.com,2024:realm#2.0.0"})
_WHAT = "cca realm token"


@dataclass(frozen=True, slots=True, kw_only=True)
class RealmKey:
    """The Realm Attestation Key as the token has it, and the algorithm it was hashed with for the platform."""

    encoded: bytes
    hash_algorithm: str
    raw: bool

    @classmethod
    def parse(cls, claims: Mapping[int | str, Cbor]) -> Self:
        """Take the key out of a Realm's claims. Raises ``Malformed``."""
        fields = CborMap(dict(claims), what=_WHAT)
        return cls(
            encoded=fields.data(PUBLIC_KEY, range(1, _MAX_KEY_BYTES + 1)),
            hash_algorithm=fields.text(KEY_HASH_ALGORITHM, cap=_MAX_TEXT_CHARS),
            raw=PROFILE not in fields,
        )

    @property
    def digest(self) -> bytes:
        """What the platform's challenge has to be. Raises ``Rejected`` (``algorithm_not_allowed``)."""
        if self.hash_algorithm not in HASHES:
            got = self.hash_algorithm
            raise Rejected.because("algorithm_not_allowed", "realm key hash", got=got, want=" or ".join(HASHES))
        return hashlib.new(self.hash_algorithm.replace("-", ""), self.encoded).digest()

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the key. Raises ``Malformed`` for no point on its curve."""
        what = f"{_WHAT}: public key"
        if not self.raw:
            return parse_cose_key(self.encoded, what=what)
        curve = CURVES[_P384]
        size = (curve.key_size + 7) // 8
        fields = CborMap({0: self.encoded[:1], 1: self.encoded[1:]}, what=what)
        point = fields.data(1, (2 * size,))
        if self.encoded[0] != 0x04:  # noqa: PLR2004 - SEC 1 section 2.3.3: uncompressed
            fields.fail(0, "want an uncompressed point")
        return point_key(point[:size], point[size:], curve, what=what)


@dataclass(frozen=True, slots=True, kw_only=True)
class RealmClaims:
    """What the Realm Management Monitor says of a Realm; unverified. ``unread``: keys nobody here looks at."""

    profile: str | None
    challenge: bytes
    personalization: bytes
    initial_measurement: bytes
    measurements: tuple[bytes, ...]
    hash_algorithm: str
    mec_policy: str | None
    instance_id: bytes | None
    unread: tuple[str, ...]

    @classmethod
    def parse(cls, claims: Mapping[int | str, Cbor], *, platform_profile: str) -> Self:
        """Parse a set of claims; every mandatory one is demanded.

        Raises ``Malformed``; ``Rejected`` (``unsupported_format``) for a profile that does not go with the platform's.
        """
        fields = CborMap(dict(claims), what=_WHAT)
        profile = fields.optional(PROFILE, lambda key: fields.text(key, cap=_MAX_TEXT_CHARS))
        if profile not in PLATFORM_PROFILES[platform_profile]:
            want = " or ".join(str(item) for item in PLATFORM_PROFILES[platform_profile])
            raise Rejected.because("unsupported_format", "cca realm profile", got=str(profile), want=want)
        for key in (PUBLIC_KEY, KEY_HASH_ALGORITHM):  # read before, by RealmKey
            fields.take(key)
        return cls(
            profile=profile,
            challenge=fields.data(CHALLENGE, (CHALLENGE_BYTES,)),
            personalization=fields.data(PERSONALIZATION, (PERSONALIZATION_BYTES,)),
            initial_measurement=fields.data(INITIAL_MEASUREMENT, HASH_SIZES),
            measurements=_take_measurements(fields),
            hash_algorithm=fields.text(HASH_ALGORITHM, cap=_MAX_TEXT_CHARS),
            mec_policy=_take_mec_policy(fields, profile),
            instance_id=fields.optional(INSTANCE_ID, lambda _: take_instance_id(fields, INSTANCE_ID)),
            unread=fields.left,
        )


def _take_measurements(fields: CborMap) -> tuple[bytes, ...]:
    found = fields.items(MEASUREMENTS, floor=EXTENSIBLE_MEASUREMENTS, cap=EXTENSIBLE_MEASUREMENTS)
    inner = CborMap(dict(enumerate(found)), what=f"{_WHAT}: extensible measurements")
    return tuple(inner.data(index, HASH_SIZES) for index in range(EXTENSIBLE_MEASUREMENTS))


def _take_mec_policy(fields: CborMap, profile: str | None) -> str | None:
    """Take the policy of Memory Encryption Contexts (section 4.8.9), mandatory from the profile of RMM 2.0 on."""
    if MEC_POLICY not in fields and profile not in _WITH_MEC:
        return None
    policy = fields.take(MEC_POLICY)
    if type(policy) not in {int, str} or policy not in _MEC_POLICIES:
        fields.fail(MEC_POLICY, "want private or shared")
    return str(policy)
