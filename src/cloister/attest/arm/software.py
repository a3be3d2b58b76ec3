"""Measured software components of a token (RFC 9783 section 4.4.1, draft-ffm-rats-cca-token-04 section 4.6.1).

Not done here: what a measurement should be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.attest.cbor import CborMap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.attest.cbor import Cbor
    from cloister.attest.rats import ClaimValue

__all__ = ["HASH_SIZES", "MAX_COMPONENTS", "Component", "component_claims", "parse_components"]

HASH_SIZES = (32, 48, 64)
"""Sizes of SHA-256, SHA-384 and SHA-512 (RFC 9783 section 4: psa-hash-type)."""

MAX_COMPONENTS = 32
_MAX_TEXT_CHARS = 128
_TYPE, _MEASUREMENT, _VERSION, _SIGNER, _DESCRIPTION, _LIVE, _COUNTERSIGNERS = 1, 2, 4, 5, 6, 7, 8
_SHORT_NAME = re.compile(r"(?!n[0-9]+$)[a-z0-9_]{1,15}")  # n0, n1, ... are the names of places


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One component: its hash, the hash of the key that signed it, and what the device says it is."""

    measurement: bytes
    signer: bytes
    type: str | None
    version: str | None
    description: str | None

    @classmethod
    def parse(cls, value: Cbor, *, what: str) -> Self:
        """Parse one entry. Raises ``Malformed``."""
        fields = CborMap(value, what=what)

        def text(key: int | str) -> str:
            return fields.text(key, cap=_MAX_TEXT_CHARS)

        component = cls(
            measurement=fields.data(_MEASUREMENT, HASH_SIZES),
            signer=fields.data(_SIGNER, HASH_SIZES),
            type=fields.optional(_TYPE, text),
            version=fields.optional(_VERSION, text),
            description=fields.optional(_DESCRIPTION, text),
        )
        fields.optional(_LIVE, fields.boolean)
        fields.optional(_COUNTERSIGNERS, lambda key: fields.items(key, floor=1, cap=MAX_COMPONENTS))
        fields.end()
        return component


def parse_components(values: Sequence[Cbor], *, what: str) -> tuple[Component, ...]:
    """Parse the list of components. Raises ``Malformed``."""
    return tuple(Component.parse(value, what=f"{what}: component {index}") for index, value in enumerate(values))


def component_claims(components: Sequence[Component]) -> dict[str, ClaimValue]:
    """Return ``software``, the set of all measurements, and ``measurement``, ``signer``, ``version`` of each by name.

    A component's name is its type in lower case, or ``n0``, ``n1`` by its place where that is no name, too long, not
    its alone or a place's. Without components there is no claim: a set of none would satisfy any list.
    """
    if not components:
        return {}
    claims: dict[str, ClaimValue] = {"software": tuple(sorted({item.measurement.hex() for item in components}))}
    types = [(item.type or "").lower() for item in components]
    for index, (item, short) in enumerate(zip(components, types, strict=True)):
        alone = _SHORT_NAME.fullmatch(short) and types.count(short) == 1
        name = short if alone else f"n{index}"
        claims[f"measurement.{name}"] = item.measurement.hex()
        claims[f"signer.{name}"] = item.signer.hex()
        if item.version is not None:
            claims[f"version.{name}"] = item.version
    return claims
