"""Appraisal of verified claims by a policy (RFC 9334 section 8.5, docs/spec/policy.md).

A policy names every TEE it accepts and, for each, a rule for every claim it relies on. Nothing is
skipped by being left out: a TEE without rules is refused, a required claim without a rule is a failed
check, and a claim somebody chose not to compare says so with a reason that stays in the result.

Not done here: signatures and freshness (``verifier``), and who may set a policy (the custodian).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, assert_never

from cloister.attest.rats import Check, TeeKind, Verdict
from cloister.errors import Rejected, UsageError
from cloister.wire import MAX_INT, Fields, Json, dump_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.rats import ClaimValue, VerifiedClaims

__all__ = [
    "CLAIM_NAME",
    "MAX_POLICY_BYTES",
    "AtLeast",
    "Exact",
    "NotChecked",
    "OneOf",
    "Policy",
    "Rule",
    "TeePolicy",
    "appraise",
    "mismatch_code",
    "verify_successor",
]

MAX_POLICY_BYTES = 256 * 1024  # bytes of one policy document
MAX_TEES = 16  # TEEs one policy may name
MAX_RULES = 128  # rules for one TEE
MAX_VALUES = 256  # reference values of one claim
MAX_VALUE_CHARS = 256  # characters of one reference value
MAX_WHY_CHARS = 200  # characters of the reason why a claim is not checked
_SHOWN_VALUES = 4  # reference values spelled out in a mismatch

CLAIM_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}(?:\.[a-z0-9_]{1,15})?")
"""Names of claims: ``measurement``, ``pcr.23``."""
_TEE_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")

_CODES: Mapping[str, str] = {
    "debug": "debug_enabled",
    "migratable": "migratable",
    "service_td": "service_td_not_allowed",
    "svn": "svn_too_low",
    "td_attributes": "td_attributes_invalid",
    "tcb": "tcb_out_of_date",
    "tcb_status": "tcb_status_not_allowed",
}
"""Claims whose mismatch has a name of its own; every other is ``NAME_mismatch``."""


def mismatch_code(claim: str) -> str:
    """Return the reason code for a claim that is not as the policy wants it: ``pcr.7`` -> ``pcr_mismatch``."""
    family = claim.partition(".")[0]
    return _CODES.get(family, f"{family}_mismatch")


@dataclass(frozen=True, slots=True)
class Exact:
    """The claim equals ``value`` in value and type."""

    value: ClaimValue

    def __post_init__(self) -> None:
        """Refuse a value that no claim can have."""
        _demand_value(self.value)


@dataclass(frozen=True, slots=True)
class OneOf:
    """The claim equals one of ``values``: a set of Reference Values, never empty (T18)."""

    values: tuple[ClaimValue, ...]

    def __post_init__(self) -> None:
        """Refuse an empty set, doubles, and booleans: both of them would be no rule at all."""
        if not 0 < len(self.values) <= MAX_VALUES:
            msg = f"one_of: {len(self.values)} reference values, want 1 to {MAX_VALUES}"
            raise UsageError(msg)
        for value in self.values:
            _demand_value(value)
            if isinstance(value, bool):
                msg = "one_of: true and false have exact; both would be no rule"
                raise UsageError(msg)
        if len(set(self.values)) != len(self.values):
            msg = "one_of: a reference value twice"
            raise UsageError(msg)


@dataclass(frozen=True, slots=True)
class AtLeast:
    """The claim is an integer of ``value`` or more: security versions."""

    value: int

    def __post_init__(self) -> None:
        """Refuse what is no integer."""
        if type(self.value) is not int:
            msg = "at_least: want an integer"
            raise UsageError(msg)
        _demand_value(self.value)


@dataclass(frozen=True, slots=True)
class NotChecked:
    """The claim is not compared, and ``why`` is shown wherever the result is."""

    why: str

    def __post_init__(self) -> None:
        """Refuse to skip without a reason."""
        if not self.why.strip() or len(self.why) > MAX_WHY_CHARS or not self.why.isprintable():
            msg = f"not_checked: want a reason of 1 to {MAX_WHY_CHARS} printable characters"
            raise UsageError(msg)


Rule: TypeAlias = Exact | OneOf | AtLeast | NotChecked


def _demand_value(value: ClaimValue) -> None:
    if type(value) is str:
        if not 0 < len(value) <= MAX_VALUE_CHARS or not value.isprintable():
            msg = f"reference value: want 1 to {MAX_VALUE_CHARS} printable characters"
            raise UsageError(msg)
    elif type(value) is int:
        if not 0 <= value <= MAX_INT:
            msg = f"reference value: {value} is outside 0..2**53-1"
            raise UsageError(msg)
    elif type(value) is not bool:
        msg = "reference value: want a string, an integer or a boolean"
        raise UsageError(msg)


@dataclass(frozen=True, slots=True)
class TeePolicy:
    """The rules for one TEE, by claim."""

    rules: Mapping[str, Rule]

    def __post_init__(self) -> None:
        """Refuse an empty policy and names no claim can have."""
        if not 0 < len(self.rules) <= MAX_RULES:
            msg = f"policy: {len(self.rules)} rules for a tee, want 1 to {MAX_RULES}"
            raise UsageError(msg)
        for name in self.rules:
            if not CLAIM_NAME.fullmatch(name):
                msg = f"policy: {name[:64]!r} is no name of a claim"
                raise UsageError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a Relying Party accepts, by TEE. ``version`` only ever grows (``verify_successor``)."""

    version: int
    tees: Mapping[TeeKind, TeePolicy]

    def __post_init__(self) -> None:
        """Refuse a policy of no TEE: it would be a policy nobody wrote."""
        if not 0 < len(self.tees) <= MAX_TEES:
            msg = f"policy: {len(self.tees)} tees, want 1 to {MAX_TEES}"
            raise UsageError(msg)
        if type(self.version) is not int or not 1 <= self.version <= MAX_INT:
            msg = "policy: version is outside 1..2**53-1"
            raise UsageError(msg)
        for tee in self.tees:
            if not _TEE_NAME.fullmatch(tee):
                msg = f"policy: {tee[:64]!r} is no name of a tee"
                raise UsageError(msg)

    def to_json(self) -> Json:
        """Return the JSON object of docs/spec/policy.md."""
        tees: dict[str, Json] = {
            str(tee): {name: _rule_json(rule) for name, rule in policy.rules.items()}
            for tee, policy in self.tees.items()
        }
        return {"tees": tees, "v": 1, "version": self.version}

    def dump(self) -> bytes:
        """Return the canonical bytes, over which ``digest`` is taken."""
        return dump_json(self.to_json())

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes, lower-case hex."""
        return hashlib.sha256(self.dump()).hexdigest()

    @classmethod
    def parse(cls, data: bytes) -> Policy:
        """Parse a policy as people write it: any order, any spacing, no unknown member. Raises ``Malformed``."""
        return cls._take(Fields.parse(data, what="policy", cap=MAX_POLICY_BYTES))

    @classmethod
    def from_json(cls, value: Json) -> Policy:
        """Parse a policy inside another document. Raises ``Malformed``."""
        return cls._take(Fields(value, what="policy"))

    @classmethod
    def _take(cls, fields: Fields) -> Policy:
        fields.literal("v", 1)
        version = fields.integer("version", floor=1)
        members = fields.members("tees", cap=MAX_TEES)
        fields.end()
        tees: dict[TeeKind, TeePolicy] = {}
        for tee in members:
            if not _TEE_NAME.fullmatch(tee):
                fields.fail("tees", "name of a tee out of form")
            tees[TeeKind(tee)] = _take_tee(members, tee)
        if not tees:
            fields.fail("tees", "want at least one")
        return cls(version=version, tees=tees)


def _take_tee(tees: dict[str, Json], tee: str) -> TeePolicy:
    what = f"policy: {tee}"
    rules = Fields(tees, what="policy: tees").members(tee, cap=MAX_RULES)
    inner = Fields(rules, what=what)
    if not rules:
        inner.fail("rules", "want at least one")
    for name in rules:
        if not CLAIM_NAME.fullmatch(name):
            inner.fail("rules", "name of a claim out of form")
    return TeePolicy({name: _take_rule(inner.fields(name)) for name in rules})


def _take_rule(fields: Fields) -> Rule:
    """Return the one rule in an object with exactly one member."""
    rule: Rule
    try:
        if "exact" in fields:
            rule = Exact(_take_value(fields, fields.take("exact")))
        elif "one_of" in fields:
            values = fields.items("one_of", cap=MAX_VALUES)
            rule = OneOf(tuple(_take_value(fields, value) for value in values))
        elif "at_least" in fields:
            rule = AtLeast(fields.integer("at_least"))
        elif "not_checked" in fields:
            rule = NotChecked(fields.text("not_checked", cap=MAX_WHY_CHARS, floor=1))
        else:
            fields.fail("rule", "want exact, one_of, at_least or not_checked")
    except UsageError as exc:  # the values refuse themselves; here their author is the other party
        fields.fail("rule", exc.message)
    fields.end()
    return rule


def _take_value(fields: Fields, value: Json) -> ClaimValue:
    if not isinstance(value, (str, int)):
        fields.fail("rule", "reference value: want a string, an integer or a boolean")
    return value


def _rule_json(rule: Rule) -> Json:
    match rule:
        case Exact(value):
            return {"exact": value}
        case OneOf(values):
            return {"one_of": list(values)}
        case AtLeast(value):
            return {"at_least": value}
        case NotChecked(why):
            return {"not_checked": why}
        case _:
            assert_never(rule)


def verify_successor(new: Policy, old: Policy) -> None:
    """Prove that ``new`` may replace ``old``: versions only grow (T18). Raises ``Rejected``."""
    if new.version <= old.version:
        raise Rejected.because("policy_version_old", "policy", got=str(new.version), want=f"more than {old.version}")


def appraise(claims: VerifiedClaims, policy: Policy, required: frozenset[str]) -> tuple[Check, ...]:
    """Return one check for each claim, rule and required name: all of them, passed or not.

    Fails closed: a TEE the policy does not name, a required claim without a rule
    (``policy_incomplete``) and a rule without a claim (``claim_missing``) are failed checks. A claim
    that is neither required nor named by a rule shows as not checked.
    """
    rules = policy.tees.get(claims.tee)
    if rules is None:
        return (not_allowed(claims.tee, policy),)
    names = sorted({*claims.claims, *rules.rules, *required}, key=_natural)
    return tuple(_compare(name, claims.claims.get(name), rules.rules.get(name), required) for name in names)


def not_allowed(tee: TeeKind, policy: Policy) -> Check:
    """Return the failed check of a TEE that ``policy`` does not name."""
    want = ", ".join(sorted(policy.tees))
    return Check(code="tee_not_allowed", subject="tee", verdict=Verdict.FAILED, got=tee[:64], want=want)


def _natural(name: str) -> tuple[str, int, str]:
    """Order ``pcr.7`` before ``pcr.10``."""
    family, _, index = name.partition(".")
    return family, int(index) if index.isdecimal() else -1, index


def _compare(name: str, got: ClaimValue | None, rule: Rule | None, required: frozenset[str]) -> Check:
    """Return the check of one claim."""
    if rule is None and name in required:
        return Check(code="policy_incomplete", subject=name, verdict=Verdict.FAILED, got=_show(got), want="a rule")
    if got is None:
        return Check(code="claim_missing", subject=name, verdict=Verdict.FAILED, want=_wanted(rule))
    code = mismatch_code(name)
    if rule is None or isinstance(rule, NotChecked):
        note = "the policy has no rule for it" if rule is None else rule.why
        return Check(code=code, subject=name, verdict=Verdict.NOT_CHECKED, got=_show(got), note=note)
    verdict = Verdict.PASSED if _satisfies(got, rule) else Verdict.FAILED
    return Check(code=code, subject=name, verdict=verdict, got=_show(got), want=_wanted(rule))


def _same(got: ClaimValue, want: ClaimValue) -> bool:
    """Compare in value and type: in Python ``True == 1``, in a policy it is not."""
    return type(got) is type(want) and got == want


def _satisfies(got: ClaimValue, rule: Exact | OneOf | AtLeast) -> bool:
    match rule:
        case Exact(value):
            return _same(got, value)
        case OneOf(values):
            return any(_same(got, value) for value in values)
        case AtLeast(value):
            return type(got) is int and got >= value
        case _:
            assert_never(rule)


def _show(value: ClaimValue | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)[:MAX_VALUE_CHARS]
    return text if text.isprintable() else ascii(text)[:MAX_VALUE_CHARS]  # a claim may come from a certificate (T84)


def _wanted(rule: Rule | None) -> str:
    match rule:
        case None:
            return ""
        case Exact(value):
            return _show(value)
        case OneOf(values):
            shown = " or ".join(_show(value)[:128] for value in values[:_SHOWN_VALUES])
            more = len(values) - _SHOWN_VALUES
            return f"{shown} or {more} more" if more > 0 else shown
        case AtLeast(value):
            return f"at least {value}"
        case NotChecked():
            return "any value"
        case _:
            assert_never(rule)
