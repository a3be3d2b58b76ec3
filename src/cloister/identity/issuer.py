"""Whose word counts, and under which conditions (docs/spec/identity.md, section 2).

Nothing is guessed: audiences and algorithms are named, and a check that is left out is left out with a reason. Keys may
stand in the document; where they do not, whoever keeps issuers fetches them.

Not done here: keys as values (``issuers``), verifying anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Self

from cloister.attest.rules import NotChecked
from cloister.attest.tokens.proof import ASYMMETRIC
from cloister.identity.discovery import parse_url
from cloister.identity.rules import MAX_RULES, Rule, parse_rules
from cloister.identity.spiffe import parse_trust_domain
from cloister.wire import Fields, Json, dump_json, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_ISSUER_BYTES", "Issuer", "IssuerKind"]

MAX_ISSUER_BYTES = 512 * 1024  # bytes of one document
_MAX_NAMES = 16  # audiences, parties, types, algorithms of one issuer
_MAX_URL_CHARS = 512
_MAX_PEM_CHARS = 64 * 1024
_MAX_AGE_S, _DEFAULT_AGE_S = 86_400, 3600  # seconds
_MAX_LEEWAY_S, _DEFAULT_LEEWAY_S = 60, 5  # seconds
_AUTHORITY = re.compile(r"x509:[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")


class IssuerKind(Enum):
    """What an issuer issues."""

    OIDC = "oidc"
    KUBERNETES = "kubernetes"
    SPIFFE = "spiffe"
    CERTIFICATES = "certificates"


_TYPES: Mapping[IssuerKind, tuple[str, ...]] = {
    IssuerKind.OIDC: ("at+jwt", "jwt"),
    IssuerKind.KUBERNETES: ("",),
    IssuerKind.SPIFFE: ("", "jwt", "jose"),  # JWT-SVID section 2.2
    IssuerKind.CERTIFICATES: (),
}
"""What ``typ`` may say where a document does not; empty for a header without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """One issuer, without what changes: its keys.

    ``name`` is compared as it stands: a URL, ``spiffe://trust-domain``, or ``x509:NAME`` for certificates below an
    authority of a site's own. ``keys`` are those that the document brings: a JWKS, a SPIFFE bundle or PEM. ``jwks_uri``
    is where they are asked for otherwise; None leaves it to the issuer's discovery document.
    """

    kind: IssuerKind
    name: str
    rules: tuple[Rule, ...]
    audiences: frozenset[str] = frozenset()
    algorithms: frozenset[str] = frozenset()
    parties: frozenset[str] | NotChecked = field(default_factory=frozenset)
    types: frozenset[str] = frozenset()
    max_age: timedelta = timedelta(seconds=_DEFAULT_AGE_S)
    leeway: timedelta = timedelta(seconds=_DEFAULT_LEEWAY_S)
    jwks_uri: str | None = None
    keys: bytes | None = None

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse one document. Raises ``Malformed``."""
        return cls.take(Fields.parse(data, what="issuer", cap=MAX_ISSUER_BYTES))

    @classmethod
    def take(cls, fields: Fields) -> Self:
        """Take one issuer's members, to the last. Raises ``Malformed``."""
        kind = _take_kind(fields)
        name = fields.text("issuer", cap=_MAX_URL_CHARS, floor=1)
        _demand_name(kind, name, fields)
        rules = parse_rules(fields.items("rules", cap=MAX_RULES))
        if kind is IssuerKind.CERTIFICATES:
            found = cls(kind=kind, name=name, rules=rules, keys=_take_pem(fields))
        else:
            found = cls(
                kind=kind,
                name=name,
                rules=rules,
                audiences=_names(fields, "audiences"),
                algorithms=_algorithms(fields),
                parties=_take_parties(fields) if kind is IssuerKind.OIDC else frozenset(),
                types=_take_types(fields, kind),
                max_age=_seconds(fields, "max_age_s", _DEFAULT_AGE_S, floor=60, cap=_MAX_AGE_S),
                leeway=_seconds(fields, "leeway_s", _DEFAULT_LEEWAY_S, floor=0, cap=_MAX_LEEWAY_S),
                jwks_uri=fields.optional("jwks_uri", lambda member: parse_url(fields.text(member), what=member)),
                keys=fields.optional("keys", lambda member: dump_json(fields.take(member))),
            )
        if kind is IssuerKind.SPIFFE and found.keys is None and found.jwks_uri is None:
            fields.fail("keys", "want the trust bundle, or jwks_uri, its endpoint")
        fields.end()
        return found

    def to_json(self) -> dict[str, Json]:
        """Return what ``take`` takes, every default spelled."""
        members: dict[str, Json] = {
            "issuer": self.name,
            "kind": self.kind.value,
            "rules": [rule.to_json() for rule in self.rules],
        }
        if self.kind is IssuerKind.CERTIFICATES:
            return members | {"authorities": (self.keys or b"").decode("ascii")}
        members |= {
            "algorithms": sorted(self.algorithms),
            "audiences": sorted(self.audiences),
            "leeway_s": int(self.leeway.total_seconds()),
            "max_age_s": int(self.max_age.total_seconds()),
            "types": sorted(self.types),
        }
        if self.kind is IssuerKind.OIDC:
            parties = self.parties
            members["authorized_parties"] = (
                {"not_checked": parties.why} if isinstance(parties, NotChecked) else sorted(parties)
            )
        if self.jwks_uri is not None:
            members["jwks_uri"] = self.jwks_uri
        if self.keys is not None:
            members["keys"] = parse_json(self.keys, what="keys")
        return members

    def dump(self) -> bytes:
        """Return the canonical document."""
        return dump_json(self.to_json())


def _take_kind(fields: Fields) -> IssuerKind:
    kind = fields.text("kind", cap=16)
    known = {item.value: item for item in IssuerKind}
    if kind not in known:
        fields.fail("kind", f"want {', '.join(known)}")
    return known[kind]


def _demand_name(kind: IssuerKind, name: str, fields: Fields) -> None:
    """Demand a name of the kind's form, in its one spelling."""
    match kind:
        case IssuerKind.SPIFFE:
            parse_trust_domain(name)
        case IssuerKind.CERTIFICATES:
            if not _AUTHORITY.fullmatch(name):
                fields.fail("issuer", "want x509:NAME, a name of your own for the authorities")
        case IssuerKind.OIDC | IssuerKind.KUBERNETES:
            parse_url(name, what="issuer")


def _names(fields: Fields, member: str) -> frozenset[str]:
    """Return names of which there is at least one."""
    found = frozenset(fields.texts(member, cap=_MAX_NAMES, item_cap=_MAX_URL_CHARS))
    if not found or "" in found:
        fields.fail(member, f"want 1 to {_MAX_NAMES} names")
    return found


def _algorithms(fields: Fields) -> frozenset[str]:
    found = _names(fields, "algorithms")
    if not found <= ASYMMETRIC:
        fields.fail("algorithms", f"want some of {', '.join(sorted(ASYMMETRIC))}")
    return found


def _take_parties(fields: Fields) -> frozenset[str] | NotChecked:
    """Return the clients that tokens may have been issued to, or why that is not looked at."""
    value = fields.take("authorized_parties")
    if isinstance(value, dict):
        inner = Fields(value, what="authorized_parties")
        why = inner.text("not_checked", cap=200)
        if not why.strip() or not why.isprintable():
            inner.fail("not_checked", "want a reason")
        inner.end()
        return NotChecked(why)
    return _names(Fields({"authorized_parties": value}, what="issuer"), "authorized_parties")


def _take_types(fields: Fields, kind: IssuerKind) -> frozenset[str]:
    """Return what ``typ`` may say, in lower case and without ``application/`` (RFC 7515 section 4.1.9)."""
    if "types" not in fields:
        return frozenset(_TYPES[kind])
    found = fields.texts("types", cap=_MAX_NAMES, item_cap=64)
    if not found:
        fields.fail("types", "want at least one; the empty string stands for a header without typ")
    return frozenset(item.lower().removeprefix("application/") for item in found)


def _seconds(fields: Fields, member: str, default: int, *, floor: int, cap: int) -> timedelta:
    found = fields.optional(member, lambda name: fields.seconds(name, floor=floor, cap=cap))
    return timedelta(seconds=default) if found is None else found


def _take_pem(fields: Fields) -> bytes:
    """Return certificates as PEM: lines, which no other member may have."""
    value = fields.take("authorities")
    if not isinstance(value, str) or not value.isascii() or not 0 < len(value) <= _MAX_PEM_CHARS:
        fields.fail("authorities", f"want certificates as pem, at most {_MAX_PEM_CHARS} characters")
    return value.encode("ascii")
