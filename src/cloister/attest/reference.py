"""Reference values: what good evidence says, computed or imported, and signed by whoever answers for it.

RFC 9334 section 8.3; format in docs/spec/reference-values.md. A set names, for TEEs and claims, the values that are
right, and how they came about. It is no policy: ``into_policy`` makes rules of it.

Not done here: computing them (each TEE's own folder), deciding who may sign.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.attest.policy import CLAIM_NAME, Policy, TeePolicy
from cloister.attest.rats import TeeKind
from cloister.attest.rules import MAX_VALUE_CHARS, OneOf
from cloister.crypto.sign import Label, Statement
from cloister.errors import Rejected
from cloister.wire import MAX_INT, Fields, Json, dump_json, dump_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from cloister.attest.rules import Rule
    from cloister.crypto.sign import SigningKey, VerifyKey

__all__ = ["MAX_REFERENCE_BYTES", "ReferenceValues", "into_policy", "sign_reference", "verify_reference"]

MAX_REFERENCE_BYTES = 256 * 1024  # bytes of one set
_MAX_TEES = 16
_MAX_CLAIMS = 128
_MAX_VALUES = 256
_MAX_INPUTS = 32
_TEE = re.compile(r"[a-z][a-z0-9-]{0,31}")
_INPUT = re.compile(r"[a-z][a-z0-9_.-]{0,31}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceValues:
    """One set. ``inputs`` are what it was computed from: names to SHA-256 (hex) of a file, or to a setting's text."""

    name: str
    version: int
    made_at: datetime
    tees: Mapping[TeeKind, Mapping[str, tuple[str | int, ...]]]
    inputs: Mapping[str, str]

    def dump(self) -> bytes:
        """Return the canonical bytes."""
        tees: dict[str, Json] = {
            tee: {name: list(values) for name, values in claims.items()} for tee, claims in self.tees.items()
        }
        return dump_json(
            {
                "inputs": dict(self.inputs),
                "made_at": dump_time(self.made_at),
                "name": self.name,
                "tees": tees,
                "v": 1,
                "version": self.version,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> ReferenceValues:
        """Parse a set as people or tools write it. Raises ``Malformed``, also for a claim without a value (T18)."""
        fields = Fields.parse(data, what="reference values", cap=MAX_REFERENCE_BYTES)
        fields.literal("v", 1)
        tees = fields.members("tees", cap=_MAX_TEES)
        inputs = fields.members("inputs", cap=_MAX_INPUTS)
        texts = Fields(inputs, what="reference values: inputs")
        if not tees or not all(map(_TEE.fullmatch, tees)) or not all(map(_INPUT.fullmatch, inputs)):
            fields.fail("tees", "want at least one tee; names in form")
        found = cls(
            name=fields.text("name", cap=200, floor=1),
            version=fields.integer("version", floor=1),
            made_at=fields.time("made_at"),
            tees={TeeKind(tee): _take_claims(Fields(tees, what="reference values"), tee) for tee in tees},
            inputs={name: texts.text(name, cap=400) for name in inputs},
        )
        fields.end()
        return found


def _take_claims(fields: Fields, tee: str) -> dict[str, tuple[str | int, ...]]:
    claims = fields.members(tee, cap=_MAX_CLAIMS)
    inner = Fields(claims, what=f"reference values: {tee}")
    if not claims or not all(map(CLAIM_NAME.fullmatch, claims)):
        inner.fail("claims", "want at least one; names in form")
    return {name: tuple(_take_value(inner, item) for item in _filled(inner, name)) for name in claims}


def _filled(fields: Fields, name: str) -> list[Json]:
    values = fields.items(name, cap=_MAX_VALUES)
    if not values:
        fields.fail(name, "want at least one value")
    return values


def _take_value(fields: Fields, value: Json) -> str | int:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        fields.fail("claims", "want strings and integers")
    bounded = 0 < len(value) <= MAX_VALUE_CHARS if isinstance(value, str) else 0 <= value <= MAX_INT
    if not bounded:
        fields.fail("claims", "value out of range")
    return value


def sign_reference(values: ReferenceValues, key: SigningKey) -> bytes:
    """Return the set as a statement signed by ``key``."""
    return Statement.sign(key, Label.REFERENCE_VALUES, values.dump()).dump()


def verify_reference(statement: bytes, keys: Iterable[VerifyKey], *, newer_than: int = 0) -> ReferenceValues:
    """Return the set once one of ``keys`` is proven to have signed it, and it is newer than the one held (T18).

    Raises ``Malformed``, ``Rejected`` (``unknown_key``, ``signature_invalid``, ``reference_version_old``).
    """
    payload = Statement.parse(statement, label=Label.REFERENCE_VALUES).verify(list(keys))
    values = ReferenceValues.parse(payload)
    if values.version <= newer_than:
        want = f"more than {newer_than}"
        raise Rejected.because("reference_version_old", "reference values", got=str(values.version), want=want)
    return values


def into_policy(values: ReferenceValues, policy: Policy, *, version: int) -> Policy:
    """Return ``policy`` with a rule ``one_of`` for every claim that the set has values for, in TEEs it names already.

    A TEE that the policy does not name stays refused: reference values open no door.
    """
    tees = {tee: TeePolicy({**rules.rules, **_rules(values.tees.get(tee, {}))}) for tee, rules in policy.tees.items()}
    return Policy(version=version, tees=tees)


def _rules(claims: Mapping[str, tuple[str | int, ...]]) -> dict[str, Rule]:
    return {name: OneOf(tuple(dict.fromkeys(values))) for name, values in claims.items()}
