"""An appraisal policy: which TEEs, and for each a rule for every claim relied on (docs/spec/policy.md).

Not done here: comparing claims (``appraise``), what a rule is (``rules``), who may set a policy (the custodian).
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.attest.rats import TeeKind
from cloister.attest.rules import dump_rule, take_rule
from cloister.errors import Malformed, Rejected, UsageError
from cloister.wire import MAX_INT, Fields, Json, dump_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.rules import Rule

__all__ = ["CLAIM_NAME", "MAX_POLICY_BYTES", "Policy", "TeePolicy", "verify_successor"]

MAX_POLICY_BYTES = 256 * 1024  # bytes of one policy document
MAX_TEES = 16  # TEEs one policy may name
MAX_RULES = 128  # rules for one TEE
_MAX_SHOWN_CHARS = 120  # characters of what a toml parser says: what is wrong and in which line
_MAX_LINE_DOTS = 1024  # dots in one line of toml: a key of many parts costs memory by their square

CLAIM_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}(?:\.[a-z0-9_]{1,15})?")
"""Names of claims: ``measurement``, ``pcr.23``."""
_TEE_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


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
            str(tee): {name: dump_rule(rule) for name, rule in policy.rules.items()}
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
    def parse_toml(cls, data: bytes) -> Policy:
        """Parse a policy in TOML: the same members, for people who write comments. Raises ``Malformed``.

        Names with a dot are quoted (``"pcr.7" = {exact = "..."}``); dates and floats have no meaning here.
        """
        if len(data) > MAX_POLICY_BYTES:
            msg = f"policy: {len(data)} bytes, want at most {MAX_POLICY_BYTES}"
            raise Malformed(msg)
        if max(line.count(b".") for line in data.split(b"\n")) > _MAX_LINE_DOTS:
            msg = f"policy: a line with more than {_MAX_LINE_DOTS} dots"
            raise Malformed(msg)
        try:
            document = tomllib.loads(data.decode("utf-8"))
        except (ValueError, RecursionError) as exc:
            msg = f"policy: not toml: {ascii(str(exc))[1:-1][:_MAX_SHOWN_CHARS]}"
            raise Malformed(msg) from exc
        try:
            text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        except (TypeError, RecursionError) as exc:  # a date is a TypeError of json's
            msg = "policy: toml of other things than strings, integers, booleans, arrays and tables"
            raise Malformed(msg) from exc
        return cls.parse(text.encode("utf-8"))

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
    return TeePolicy({name: take_rule(inner.fields(name)) for name in rules})


def verify_successor(new: Policy, old: Policy) -> None:
    """Prove that ``new`` may replace ``old``: versions only grow (T18). Raises ``Rejected``."""
    if new.version <= old.version:
        raise Rejected.because("policy_version_old", "policy", got=str(new.version), want=f"more than {old.version}")
