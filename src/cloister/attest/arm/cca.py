"""The CCA attestation token: a Realm on a platform, two tokens bound by the hash of the Realm's key.

Realm Management Monitor specification (Arm DEN0137) section A7.2 and draft-ffm-rats-cca-token: -00 for the profiles of
2023, -03 and -04 for those of 2024. The collection is the map of tag 399 (RMM 1.0) or the conceptual message wrapper of
tag 907 (draft -03 section 4.1). Delegated attestation alone: in the direct model the Realm's claims have no signature.

Not done here: signatures, binding and whose keys they are (``schemes.cca``), what claims should be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.attest.cbor import CborMap, parse_cbor, take_tag
from cloister.attest.cose import COSE_SIGN1, CoseMessage
from cloister.errors import Malformed

if TYPE_CHECKING:
    from cloister.attest.cbor import Cbor

__all__ = ["MAX_TOKEN_BYTES", "CcaToken"]

MAX_TOKEN_BYTES = 32 * 1024  # bytes of the collection
_MAX_PART_BYTES = 16 * 1024  # bytes of the platform's or the Realm's token
_COLLECTION, _WRAPPER = 399, 907  # tags
_PLATFORM, _REALM = 44234, 44241
_EAT_CWT = 263  # CoAP content format of application/eat+cwt (draft -03 section 4.1)
_WHAT = "cca token"


@dataclass(frozen=True, slots=True, kw_only=True)
class CcaToken:
    """Two signed sets of claims, nothing of them looked at."""

    platform: CoseMessage
    platform_claims: dict[int | str, Cbor]
    realm: CoseMessage
    realm_claims: dict[int | str, Cbor]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse the collection to its end. Raises ``Malformed``."""
        tag, rest = take_tag(data, what=_WHAT)
        if tag not in {_COLLECTION, _WRAPPER}:
            msg = f"{_WHAT}: tag {tag}, want {_COLLECTION} or {_WRAPPER}"
            raise Malformed(msg)
        parts = CborMap(parse_cbor(rest, what=_WHAT, cap=MAX_TOKEN_BYTES), what=_WHAT)
        platform = _take_message(parts, _PLATFORM, wrapped=tag == _WRAPPER)
        realm = _take_message(parts, _REALM, wrapped=tag == _WRAPPER)
        parts.end()
        return cls(
            platform=platform,
            platform_claims=_claims_of(platform, "cca platform token"),
            realm=realm,
            realm_claims=_claims_of(realm, "cca realm token"),
        )


def _take_message(parts: CborMap, key: int, *, wrapped: bool) -> CoseMessage:
    if wrapped:
        kind, value = parts.items(key, floor=2, cap=2)
        inner = CborMap({0: kind, 1: value}, what=f"{_WHAT}: {key}")
        inner.integer(0, floor=_EAT_CWT, cap=_EAT_CWT)
        data = inner.data(1, range(1, _MAX_PART_BYTES + 1))
    else:
        data = parts.data(key, range(1, _MAX_PART_BYTES + 1))
    return CoseMessage.parse(data, what=f"{_WHAT}: {key}", kinds=(COSE_SIGN1,), cap=_MAX_PART_BYTES)


def _claims_of(message: CoseMessage, what: str) -> dict[int | str, Cbor]:
    found = parse_cbor(message.payload, what=what, cap=_MAX_PART_BYTES)
    if not isinstance(found, dict):
        msg = f"{what}: want a map of claims"
        raise Malformed(msg)
    return found
