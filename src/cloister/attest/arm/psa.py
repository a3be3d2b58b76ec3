"""The PSA attestation token: claims of a device with a PSA Root of Trust in TrustZone.

RFC 9783 (profile ``tag:psacertified.org,2023:psa#tfm``), draft-tschofenig-rats-psa-token-09 (``http://arm.com/psa/2.0.0``)
and -07 (``PSA_IOT_PROFILE_1``, keys of a private range; RFC 9783 section 4.6).

Not done here: the signature and whose key it is (``schemes.psa``), what claims should be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.attest.arm.anchors import IMPLEMENTATION_ID_BYTES, INSTANCE_ID_BYTES, is_instance_id
from cloister.attest.arm.lifecycle import MAX_LIFECYCLE, Lifecycle
from cloister.attest.arm.software import HASH_SIZES, MAX_COMPONENTS, Component, parse_components
from cloister.attest.cbor import CborMap, parse_cbor
from cloister.attest.cose import COSE_MAC0, COSE_SIGN1, CoseMessage
from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.cbor import Cbor

__all__ = ["MAX_TOKEN_BYTES", "PsaClaims", "PsaProfile", "parse_claims_set", "parse_message", "profile_of"]

MAX_TOKEN_BYTES = 16 * 1024  # bytes of one token
_WHAT = "psa token"
_MAX_TEXT_CHARS = 256
_EAT_PROFILE, _LEGACY_PROFILE = 265, -75000
_CLIENT_ID = (-(2**31), 2**31 - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PsaProfile:
    """Where one profile keeps its claims, and what differs between profiles."""

    keys: Mapping[str, int]
    boot_seed_sizes: range
    boot_seed_required: bool
    reference: re.Pattern[str]


_EAN = "[0-9]{13}"
_PROFILE_1 = PsaProfile(
    keys={
        "profile": _LEGACY_PROFILE,
        "client_id": -75001,
        "lifecycle": -75002,
        "implementation_id": -75003,
        "boot_seed": -75004,
        "certification_reference": -75005,
        "software_components": -75006,
        "no_software_measurements": -75007,
        "nonce": -75008,
        "instance_id": -75009,
        "verification_service": -75010,
    },
    boot_seed_sizes=range(32, 33),
    boot_seed_required=True,
    reference=re.compile(f"{_EAN}(?:-[0-9]{{5}})?"),
)
_PROFILE_2 = PsaProfile(
    keys={
        "profile": _EAT_PROFILE,
        "client_id": 2394,
        "lifecycle": 2395,
        "implementation_id": 2396,
        "boot_seed": 2397,
        "certification_reference": 2398,
        "software_components": 2399,
        "nonce": 10,
        "instance_id": 256,
        "verification_service": 2400,
    },
    boot_seed_sizes=range(8, 33),
    boot_seed_required=False,
    reference=re.compile(f"{_EAN}-[0-9]{{5}}"),
)
_RFC_9783 = PsaProfile(
    keys={**_PROFILE_2.keys, "boot_seed": 268},
    boot_seed_sizes=range(8, 33),
    boot_seed_required=False,
    reference=_PROFILE_2.reference,
)
_PROFILES = {
    "PSA_IOT_PROFILE_1": _PROFILE_1,
    "PSA_IoT_PROFILE_1": _PROFILE_1,  # as the PSA Attestation API 1.0 spells it
    "tag:psacertified.org,2019:psa#legacy": _PROFILE_1,
    "http://arm.com/psa/2.0.0": _PROFILE_2,
    "tag:psacertified.org,2023:psa#tfm": _RFC_9783,
}


def parse_message(data: bytes) -> CoseMessage:
    """Parse the COSE_Sign1 or COSE_Mac0 around the claims; its tag is demanded (RFC 9783 section 5.2.1)."""
    return CoseMessage.parse(data, what=_WHAT, kinds=(COSE_MAC0, COSE_SIGN1), cap=MAX_TOKEN_BYTES)


def parse_claims_set(payload: bytes) -> dict[int | str, Cbor]:
    """Parse the payload to a map of claims nobody has looked at yet. Raises ``Malformed``."""
    found = parse_cbor(payload, what=_WHAT, cap=MAX_TOKEN_BYTES)
    CborMap(found, what=_WHAT)
    return found if isinstance(found, dict) else {}


def profile_of(claims: Mapping[int | str, Cbor]) -> PsaProfile:
    """Return the profile of a set of claims. Raises ``Rejected`` (``unsupported_format``).

    Without a profile claim it is the first one, which may leave it out (draft -07 section 3.5.2).
    """
    name = claims.get(_EAT_PROFILE, claims.get(_LEGACY_PROFILE, "PSA_IOT_PROFILE_1"))
    profile = _PROFILES.get(name) if isinstance(name, str) else None
    if profile is None or (_EAT_PROFILE in claims) != (profile.keys["profile"] == _EAT_PROFILE):
        raise Rejected.because("unsupported_format", "psa profile", got=ascii(name)[:80], want=" or ".join(_PROFILES))
    return profile


@dataclass(frozen=True, slots=True, kw_only=True)
class PsaClaims:
    """What the token says; unverified. ``unread``: keys of claims that nobody here knows."""

    profile: str | None
    nonce: bytes
    client_id: int
    instance_id: bytes
    implementation_id: bytes
    lifecycle: int
    state: Lifecycle
    components: tuple[Component, ...]
    boot_seed: bytes | None
    certification_reference: str | None
    verification_service: str | None
    unread: tuple[str, ...]

    @classmethod
    def parse(cls, claims: Mapping[int | str, Cbor]) -> Self:
        """Parse a set of claims by its profile; every mandatory claim is demanded.

        Raises ``Malformed``; ``Rejected`` (``unsupported_format``) for an unknown profile.
        """
        profile = profile_of(claims)
        keys, fields = profile.keys, CborMap(dict(claims), what=_WHAT)

        def text(key: int | str) -> str:
            return fields.text(key, cap=_MAX_TEXT_CHARS)

        lifecycle = fields.integer(keys["lifecycle"], floor=0, cap=MAX_LIFECYCLE)
        return cls(
            profile=fields.optional(keys["profile"], text),
            nonce=fields.data(keys["nonce"], HASH_SIZES),
            client_id=fields.integer(keys["client_id"], floor=_CLIENT_ID[0], cap=_CLIENT_ID[1]),
            instance_id=take_instance_id(fields, keys["instance_id"]),
            implementation_id=fields.data(keys["implementation_id"], (IMPLEMENTATION_ID_BYTES,)),
            lifecycle=lifecycle,
            state=Lifecycle.of(lifecycle),
            components=_take_components(fields, keys),
            boot_seed=_take_boot_seed(fields, profile),
            certification_reference=_take_reference(fields, profile),
            verification_service=fields.optional(keys["verification_service"], text),
            unread=fields.left,
        )


def take_instance_id(fields: CborMap, key: int) -> bytes:
    """Take an instance id. Raises ``Malformed``."""
    got = fields.data(key, (INSTANCE_ID_BYTES,))
    if not is_instance_id(got):
        fields.fail(key, f"first byte {got[0]:#04x}, want 0x01 (RAND)")
    return got


def _take_components(fields: CborMap, keys: Mapping[str, int]) -> tuple[Component, ...]:
    key = keys["software_components"]
    flag = keys.get("no_software_measurements")
    if flag is None or flag not in fields:
        return parse_components(fields.items(key, floor=1, cap=MAX_COMPONENTS), what=_WHAT)
    fields.integer(flag, floor=1, cap=1)
    if key in fields:  # RFC 9783 section 4.6: one or the other
        fields.fail(key, "components, and a claim that there are none")
    return ()


def _take_boot_seed(fields: CborMap, profile: PsaProfile) -> bytes | None:
    key = profile.keys["boot_seed"]
    if key not in fields and not profile.boot_seed_required:
        return None
    return fields.data(key, profile.boot_seed_sizes)


def _take_reference(fields: CborMap, profile: PsaProfile) -> str | None:
    key = profile.keys["certification_reference"]
    if key not in fields:
        return None
    got = fields.text(key, cap=_MAX_TEXT_CHARS)
    if not profile.reference.fullmatch(got):
        fields.fail(key, f"want {profile.reference.pattern}")
    return got
