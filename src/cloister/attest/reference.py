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
from cloister.attest.rules import MAX_VALUES, Exact, NotChecked, OneOf, satisfies
from cloister.crypto.sign import Label, Statement
from cloister.errors import Malformed, Rejected, UsageError
from cloister.wire import Fields, Json, dump_json, dump_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from cloister.attest.rules import Rule
    from cloister.crypto.sign import SigningKey, VerifyKey

__all__ = ["MAX_REFERENCE_BYTES", "ReferenceValues", "into_policy", "sign_reference", "verify_reference"]

MAX_REFERENCE_BYTES = 256 * 1024  # bytes of one set
_MAX_TEES = 16
_MAX_CLAIMS = 128
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
    def parse(cls, data: bytes, *, canonical: bool = False) -> ReferenceValues:
        """Parse a set as people or tools write it. Raises ``Malformed``, also for a claim without a value (T18)."""
        fields = Fields.parse(data, what="reference values", cap=MAX_REFERENCE_BYTES, canonical=canonical)
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
    return {name: _take_values(inner, name) for name in claims}


def _take_values(fields: Fields, name: str) -> tuple[str | int, ...]:
    """Take what a rule can be made of: the same values as in ``one_of``, none of them a boolean."""
    values = fields.items(name, cap=MAX_VALUES)
    found = tuple(item for item in values if isinstance(item, (str, int)) and not isinstance(item, bool))
    if len(found) != len(values):
        fields.fail(name, "want strings and integers")
    try:
        OneOf(found)
    except UsageError as exc:  # the values refuse themselves; here their author is the other party
        fields.fail(name, exc.message)
    return found


def sign_reference(values: ReferenceValues, key: SigningKey) -> bytes:
    """Return the set as a statement signed by ``key``. Raises ``UsageError`` for one that no reader would take."""
    data = values.dump()
    try:
        ReferenceValues.parse(data)
    except Malformed as exc:
        raise UsageError(exc.message) from exc
    return Statement.sign(key, Label.REFERENCE_VALUES, data).dump()


def verify_reference(statement: bytes, keys: Iterable[VerifyKey], *, newer_than: int = 0) -> ReferenceValues:
    """Return the set once one of ``keys`` is proven to have signed it, and it is newer than the one held (T18).

    Raises ``Malformed``, ``Rejected`` (``unknown_key``, ``signature_invalid``, ``reference_version_old``).
    """
    payload = Statement.parse(statement, label=Label.REFERENCE_VALUES).verify(list(keys))
    values = ReferenceValues.parse(payload, canonical=True)
    if values.version <= newer_than:
        want = f"more than {newer_than}"
        raise Rejected.because("reference_version_old", "reference values", got=str(values.version), want=want)
    return values


def into_policy(values: ReferenceValues, policy: Policy, *, version: int) -> Policy:
    """Return ``policy`` with a rule ``one_of`` for every claim that the set has values for, in TEEs it names already.

    They take the place of the values that the policy lists. What it refuses by another rule stays refused: by a
    deny-list, a bound, or true and false; such values are left out. A TEE that the policy does not name stays refused
    too: reference values open no door. Raises ``UsageError`` where no value of a claim is left.
    """
    tees = {
        tee: TeePolicy({**rules.rules, **_rules(tee, values.tees.get(tee, {}), rules.rules)})
        for tee, rules in policy.tees.items()
    }
    return Policy(version=version, tees=tees)


def _rules(tee: TeeKind, claims: Mapping[str, tuple[str | int, ...]], old: Mapping[str, Rule]) -> dict[str, Rule]:
    return {name: OneOf(_left(tee, name, values, old.get(name))) for name, values in claims.items()}


def _left(tee: TeeKind, name: str, values: tuple[str | int, ...], old: Rule | None) -> tuple[str | int, ...]:
    """Return the values that ``old`` does not refuse, where it is a rule that reference values cannot replace."""
    if old is None or isinstance(old, (NotChecked, OneOf)) or (isinstance(old, Exact) and type(old.value) is not bool):
        return values
    left = tuple(item for item in values if satisfies(item, old))
    if not left:
        msg = f"reference values: {tee} {name}: the policy's own rule refuses every value"
        raise UsageError(msg, hint="change that rule first, if the values are right")
    return left
