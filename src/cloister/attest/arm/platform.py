"""Claims of a CCA platform (draft-ffm-rats-cca-token-04 sections 4.3 to 4.7; RMM specification section A7.2.3.2).

Not done here: signature, and which Realm it vouches for (``schemes.cca``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.attest.arm.anchors import IMPLEMENTATION_ID_BYTES
from cloister.attest.arm.lifecycle import MAX_LIFECYCLE, Lifecycle
from cloister.attest.arm.psa import take_instance_id
from cloister.attest.arm.software import HASH_SIZES, MAX_COMPONENTS, Component, parse_components
from cloister.attest.cbor import CborMap
from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.cbor import Cbor

__all__ = ["PLATFORM_PROFILES", "PlatformClaims", "platform_ids"]

PROFILE, CHALLENGE, INSTANCE_ID = 265, 10, 256
CLIENT_ID, LIFECYCLE, IMPLEMENTATION_ID = 2394, 2395, 2396
COMPONENTS, VERIFICATION_SERVICE, CONFIG, HASH_ALGORITHM = 2399, 2400, 2401, 2402
MANUFACTURING_CONFIG = 2403

_MAX_CONFIG_BYTES = 1024
_MAX_TEXT_CHARS = 256
_REALM_MANAGEMENT = 1  # client id of the Realm Management Security Domain (section 4.6.3)
_WHAT = "cca platform token"

PLATFORM_PROFILES: Mapping[str, tuple[str | None, ...]] = {
    "http://arm.com/CCA-SSD/1.0.0": (None,),
    "tag:arm.com,2023:cca_platform#1.0.0": ("tag:arm.com,2023:realm#1.0.0",),
    "tag:arm.com,2024:cca_platform#1.1.0": ("tag:arm.com,2023:realm#1.0.0", "tag:arm.com,2024:realm#1.1.0"),
    "tag:arm.com,2024:cca_platform#2.0.0": ("tag:arm.com,2024:realm#2.0.0",),
}
"""Profiles of platforms, and of the Realms that go with each; None: the platform's profile is about both."""

_WITH_CLIENT = frozenset({"tag:arm.com,2024:cca_platform#2.0.0"})  # section 4.6.3, compatibility


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformClaims:
    """What the platform says; unverified. ``unread``: keys of claims that nobody here looks at."""

    profile: str
    challenge: bytes
    instance_id: bytes
    implementation_id: bytes
    lifecycle: int
    state: Lifecycle
    config: bytes
    components: tuple[Component, ...]
    hash_algorithm: str
    verification_service: str | None
    manufacturing_config: bytes | None
    unread: tuple[str, ...]

    @classmethod
    def parse(cls, claims: Mapping[int | str, Cbor]) -> Self:
        """Parse a set of claims; every mandatory one is demanded.

        Raises ``Malformed``; ``Rejected`` (``unsupported_format``) for an unknown profile.
        """
        fields = CborMap(dict(claims), what=_WHAT)

        def text(key: int | str) -> str:
            return fields.text(key, cap=_MAX_TEXT_CHARS)

        def config(key: int | str) -> bytes:
            return fields.data(key, range(_MAX_CONFIG_BYTES + 1))

        profile = text(PROFILE)
        if profile not in PLATFORM_PROFILES:
            want = " or ".join(PLATFORM_PROFILES)
            raise Rejected.because("unsupported_format", "cca platform profile", got=profile[:80], want=want)
        if profile in _WITH_CLIENT:
            fields.integer(CLIENT_ID, floor=_REALM_MANAGEMENT, cap=_REALM_MANAGEMENT)
        lifecycle = fields.integer(LIFECYCLE, floor=0, cap=MAX_LIFECYCLE)
        return cls(
            profile=profile,
            challenge=fields.data(CHALLENGE, HASH_SIZES),
            instance_id=take_instance_id(fields, INSTANCE_ID),
            implementation_id=fields.data(IMPLEMENTATION_ID, (IMPLEMENTATION_ID_BYTES,)),
            lifecycle=lifecycle,
            state=Lifecycle.of(lifecycle),
            config=config(CONFIG),
            components=parse_components(fields.items(COMPONENTS, floor=1, cap=MAX_COMPONENTS), what=_WHAT),
            hash_algorithm=text(HASH_ALGORITHM),
            verification_service=fields.optional(VERIFICATION_SERVICE, text),
            manufacturing_config=fields.optional(MANUFACTURING_CONFIG, config),
            unread=fields.left,
        )


def platform_ids(claims: Mapping[int | str, Cbor]) -> tuple[bytes, bytes]:
    """Return instance id and implementation id, to find the key by. Raises ``Malformed``."""
    fields = CborMap(dict(claims), what=_WHAT)
    implementation_id = fields.data(IMPLEMENTATION_ID, (IMPLEMENTATION_ID_BYTES,))
    return take_instance_id(fields, INSTANCE_ID), implementation_id
