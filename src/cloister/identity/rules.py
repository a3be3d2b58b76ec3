"""Which identity is what (docs/spec/identity.md, section 4): equality and membership, in order, the first that holds.

A rule names a subject, or claims by JSON pointer (RFC 6901), or both; all that it names must hold. There are no
patterns: what a pattern lets in is seen too late. Nobody is granted anything by a rule that names nothing.

Not done here: what a role may do, whether a loan or consumer exists.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.attest.tokens.rows import place, text, words
from cloister.errors import Malformed, Rejected
from cloister.identity.identity import MAX_SUBJECT_CHARS
from cloister.wire import Fields, Json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cloister.attest.rats import ClaimValue
    from cloister.identity.identity import Identity

__all__ = ["Grants", "Rule", "grants_of", "take_claims"]

MAX_RULES = 256  # rules of one issuer
MAX_CLAIMS = 16  # claims of one rule
MAX_POINTER_CHARS = 256
_MAX_VALUE_CHARS = 2048
_POINTER = re.compile(r"(?:/(?:[^/~]|~[01])+){1,8}")
_PERSON = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,127}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SPACED = frozenset({"/scope", "/scp"})
"""Claims that are a list with spaces between (RFC 8693 section 4.2; Entra's ``scp``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """What somebody is: a role, or a consumer; with the loan that it is for, where it is for one. Names, as they stand.

    ``person`` is who answers for them, where it matters that two are not one.
    """

    role: str | None = None
    loan: str | None = None
    person: str | None = None
    consumer: str | None = None

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        """Take ``{"role", "loan"?, "person"?}`` or ``{"consumer", "loan"?}``. Raises ``Malformed``."""
        found = cls(
            role=fields.optional("role", lambda name: fields.match(name, _NAME)),
            loan=fields.optional("loan", lambda name: fields.match(name, _NAME)),
            person=fields.optional("person", lambda name: fields.match(name, _PERSON)),
            consumer=fields.optional("consumer", lambda name: fields.match(name, _NAME)),
        )
        if (found.role is None) == (found.consumer is None):
            fields.fail("role", "want a role or a consumer, and not both")
        if found.role is None and found.person is not None:
            fields.fail("role", "wanted where a person is")
        fields.end()
        return found

    def to_json(self) -> dict[str, Json]:
        """Return the members that are set."""
        members = {"consumer": self.consumer, "loan": self.loan, "person": self.person, "role": self.role}
        return {name: value for name, value in members.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """If the subject is this, and each claim is or contains this, then they are that."""

    subject: str | None
    claims: Mapping[str, str | int | bool]
    grants: Grants

    @classmethod
    def parse(cls, value: Json) -> Self:
        """Parse one rule. Raises ``Malformed``."""
        fields = Fields(value, what="rule")
        subject = fields.optional("subject", lambda name: fields.text(name, cap=MAX_SUBJECT_CHARS, floor=1))
        claims = fields.optional("claims", lambda name: fields.members(name, cap=MAX_CLAIMS)) or {}
        if subject is None and not claims:
            fields.fail("subject", "want a subject, or claims: a rule that names neither is everybody's")
        rule = cls(
            subject=subject,
            claims={_pointer(pointer): _value(value) for pointer, value in claims.items()},
            grants=Grants.parse(fields.fields("grants")),
        )
        fields.end()
        return rule

    def to_json(self) -> Json:
        """Return what ``parse`` takes."""
        members: dict[str, Json] = {"grants": self.grants.to_json()}
        if self.subject is not None:
            members["subject"] = self.subject
        if self.claims:
            members["claims"] = dict(self.claims)
        return members

    def holds(self, identity: Identity) -> bool:
        """Tell whether the identity is what this rule names."""
        if self.subject is not None and identity.subject != self.subject:
            return False
        return all(_has(identity.claims.get(pointer), value) for pointer, value in self.claims.items())


def _pointer(pointer: str) -> str:
    if len(pointer) > MAX_POINTER_CHARS or not _POINTER.fullmatch(pointer):
        msg = "rule: claims: want json pointers (rfc 6901) of 1 to 8 names, as /groups"
        raise Malformed(msg)
    return pointer


def _value(value: Json) -> str | int | bool:
    if isinstance(value, (bool, int)):
        return value
    taken = text(value, "rule: claims")
    if not taken or len(taken) > _MAX_VALUE_CHARS:
        msg = "rule: claims: want a string that is not empty, an integer, true or false"
        raise Malformed(msg)
    return taken


def _has(got: ClaimValue | None, want: str | int | bool) -> bool:  # noqa: FBT001 - the value of a claim
    """Tell whether a claim is ``want``, in type too, or a set that contains it."""
    if isinstance(got, tuple):
        return want in got
    return type(got) is type(want) and got == want


def take_claims(claims: Mapping[str, Json], rules: Iterable[Rule]) -> dict[str, ClaimValue]:
    """Return the claims that some rule asks about, and no others: what nobody asks about is not kept.

    Raises ``Malformed`` for one that is of a kind no rule can name: an object, a fraction, an array of other than
    strings.
    """
    found: dict[str, ClaimValue] = {}
    for pointer in sorted({name for rule in rules for name in rule.claims}):
        path = [name.replace("~1", "/").replace("~0", "~") for name in pointer[1:].split("/")]
        value = place(claims, *path)
        if value is None:
            continue
        what = f"token: {pointer}"
        if isinstance(value, bool) or type(value) is int:
            found[pointer] = value
        elif isinstance(value, str):
            found[pointer] = tuple(text(value, what).split(" ")) if pointer in _SPACED else text(value, what)
        else:
            found[pointer] = words(value, what)
    return found


def parse_rules(items: Sequence[Json]) -> tuple[Rule, ...]:
    """Parse the rules of one issuer, in order. Raises ``Malformed``."""
    return tuple(Rule.parse(item) for item in items)


def grants_of(identity: Identity, rules: Iterable[Rule]) -> Grants:
    """Return what the first rule that holds says. Raises ``Rejected`` (``identity_not_mapped``) where none does."""
    for rule in rules:
        if rule.holds(identity):
            return rule.grants
    raise Rejected.because("identity_not_mapped", "rules of the issuer", got=identity.id, want="a rule that holds")
