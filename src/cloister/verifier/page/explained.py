"""A result, check by check: what was asked, what was there, what had to be, and what nobody looked at."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cloister.attest.appraise import NO_RULE
from cloister.attest.ear import SUBMOD
from cloister.attest.rats import Verdict
from cloister.attest.trust_vector import WARNS
from cloister.attest.words import GROUPS, TIERS, VECTOR, group_of, outcome_of, question_of
from cloister.wire import dump_b64u, dump_time
from cloister.wire.markup import Html, joined, tag

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloister.attest.ear import Ear, EarSubmodule
    from cloister.attest.rats import Check, TeeKind
    from cloister.wire import Json

__all__ = ["explained"]

_CLASSES = {Verdict.PASSED: "passed", Verdict.FAILED: "failed", Verdict.NOT_CHECKED: "not-checked"}
_HEAD = tag("tr", *(tag("th", name, scope="col") for name in ("check", "outcome", "was there", "had to be")))


def explained(ear: Ear, payload: bytes) -> Html:
    """Return the body of the page of a result whose token was proven. ``payload`` is what ``ear`` was read from."""
    members = json.loads(payload)
    devices = [
        joined(tag("h2", f"Device {name}"), _tier(item.tier.value), _checks(item.tee, item.checks), _claims(item))
        for name, item in ear.submodules.items()
    ]
    return joined(
        _tier(ear.tier.value),
        _unchecked(ear),
        tag("h2", "About this result"),
        _about(ear, members),
        tag("h2", "What was checked"),
        _checks(ear.tee, ear.checks),
        _vector(members),
        _claims(ear),
        *devices,
    )


def _tier(tier: str) -> Html:
    title, meaning = TIERS[tier]
    return tag("p", tag("strong", f"{title}. "), meaning, class_=f"verdict {tier}")


def _unchecked(ear: Ear) -> Html:
    """Return what was not checked first: it is what a reader would not notice."""
    named = [(check, "") for check in ear.checks]
    named += [(check, f"{name}: ") for name, item in ear.submodules.items() for check in item.checks]
    skipped = [(check, place) for check, place in named if check.verdict is Verdict.NOT_CHECKED]
    meant = [item for item in skipped if item[0].note != NO_RULE]
    idle = [item for item in skipped if item[0].note == NO_RULE]
    lines = [
        tag("li", tag("strong", place + check.subject), f": {check.note or 'no reason given'}")
        for check, place in meant
    ]
    if idle:
        names = ", ".join(place + check.subject for check, place in idle)
        lines.append(tag("li", f"The policy has no rule for {len(idle)} claims that are proven: {names}."))
    if not named:
        lines = [tag("li", "This token is brief: it names no checks. Ask for a full one to see them.")]
    elif not lines:
        lines = [tag("li", "Nothing: every check was made.")]
    return joined(tag("h2", "What was not checked"), tag("ul", *lines))


def _about(ear: Ear, members: Mapping[str, Json]) -> Html:
    rows = [
        ("kind of evidence", ear.tee),
        ("issuer", ear.issuer),
        ("policy (SHA-256)", ear.policy_digest),
        ("made at", dump_time(ear.issued_at)),
        ("good until", dump_time(ear.expires_at)),
        ("answers the nonce", dump_b64u(ear.nonce) or "none"),
        ("for (audience)", _said(members, "aud") or "nobody: a result to be read, not an identity"),
        ("subject", _said(members, "sub") or "none"),
        ("id", _said(members, "jti")),
        ("signed by key", ear.key_id),
        *((f"bound {name} (SHA-256)", digest.hex()) for name, digest in ear.bound_sha256.items()),
    ]
    return tag("dl", *(part for name, value in rows for part in (tag("dt", name), tag("dd", tag("code", value)))))


def _said(members: Mapping[str, Json], name: str) -> str:
    value = members.get(name)
    return value if isinstance(value, str) else ""


def _checks(tee: TeeKind, checks: Sequence[Check]) -> Html:
    made = [check for check in checks if check.note != NO_RULE]
    tables = []
    for group, title in GROUPS.items():
        rows = [_row(tee, check) for check in made if group_of(check) == group]
        if rows:
            table = tag("table", tag("caption", title), tag("thead", _HEAD), tag("tbody", *rows))
            tables.append(tag("div", table, class_="wide", tabindex="0", role="region", aria_label=title))
    return joined(*tables) if tables else tag("p", "None is named.")


def _row(tee: TeeKind, check: Check) -> Html:
    question = question_of(tee, check)
    what = joined(tag("strong", check.subject), tag("div", question) if question else "")
    return tag(
        "tr",
        tag("td", what),
        tag("td", outcome_of(check), class_=_CLASSES[check.verdict]),
        tag("td", tag("code", check.got)),
        tag("td", tag("code", check.want)),
    )


def _vector(members: Mapping[str, Json]) -> Html:
    """Return the trustworthiness vector of the attester itself, where there is one."""
    submods = members.get("submods")
    appraisal = submods.get(SUBMOD) if isinstance(submods, dict) else None
    vector = appraisal.get("ear_trustworthiness_vector") if isinstance(appraisal, dict) else None
    if not isinstance(vector, dict) or not vector:
        return joined()
    rows = [
        tag("tr", tag("td", VECTOR.get(name, name)), tag("td", f"{value}: {_valued(value)}"))
        for name, value in sorted(vector.items())
    ]
    return tag("table", tag("caption", "In the words of the standard (AR4SI vector)"), tag("tbody", *rows))


def _valued(value: Json) -> str:
    if not isinstance(value, int) or value == 0:
        return "nothing is said"
    return "affirming" if abs(value) < WARNS else "warning" if abs(value) < 3 * WARNS else "contraindicated"


def _claims(item: Ear | EarSubmodule) -> Html:
    if not item.claims:
        return joined()
    rows = [
        tag("tr", tag("td", name), tag("td", tag("code", _shown(value)))) for name, value in sorted(item.claims.items())
    ]
    table = tag("table", tag("tbody", *rows))
    return tag("details", tag("summary", f"All {len(rows)} claims that are proven"), tag("div", table, class_="wide"))


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
