"""A verified enclave: what was proven of it, check by check, and first what was not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.appraise import NO_RULE
from cloister.attest.rats import Verdict
from cloister.attest.words import GROUPS, TIERS, group_of, outcome_of, question_of
from cloister.client.notebook.box import box, details, facts, short, table
from cloister.wire import dump_time
from cloister.wire.markup import Html, joined, tag

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloister.attest.rats import Check, TeeKind
    from cloister.client.trust import VerifiedEnclave

__all__ = ["SIMULATED", "enclave_html"]

SIMULATED = "SIMULATED TEE: no hardware stands behind this. It protects nothing; it is for learning and tests."


def enclave_html(enclave: VerifiedEnclave) -> Html:
    """Return what was verified; the whole table of checks is folded away."""
    title, meaning = TIERS[enclave.result.tier.value]
    devices = [
        details(f"Checks of device {item.name} ({item.tee})", *_tables(item.tee, item.checks))
        for item in enclave.result.submodules
    ]
    return box(
        f"Verified enclave at {enclave.url}",
        tag("p", tag("strong", f"{title}. "), meaning),
        facts(_about(enclave)),
        _unchecked(enclave),
        details(_count(enclave.checks), *_tables(enclave.result.tee, enclave.checks)),
        *devices,
        warning=SIMULATED if enclave.is_simulated else "",
    )


def _about(enclave: VerifiedEnclave) -> Iterator[tuple[str, str]]:
    keyset = enclave.keyset
    yield "kind of TEE", enclave.tee
    yield "run by", enclave.operator or "not asked: nobody vouches for who runs it"
    yield "may serve now", enclave.status.state if enclave.status else "not asked"
    yield "loan", keyset.loan
    yield "custodian's key", short(keyset.custodian.key_id)
    for model in keyset.models:
        ticketed = ", each answer by a ticket of the custodian" if model.ticketed else ""
        yield "model", joined(f"{model.name}, sealed as ", short(model.digest), ticketed)
    yield "instance", short(enclave.instance)
    yield "questions are encrypted to", f"a key inside the evidence, by {enclave.suite.kem.name}"
    yield "its keys are good until", dump_time(keyset.exp)
    yield "verified at", dump_time(enclave.result.verified_at)


def _unchecked(enclave: VerifiedEnclave) -> Html:
    """Return what was not checked, before anything that was: it is what a reader would not notice."""
    skipped = [check for check in enclave.checks if check.verdict is Verdict.NOT_CHECKED]
    meant = [check for check in skipped if check.note != NO_RULE]
    lines = [tag("li", tag("strong", check.subject), f": {check.note or 'no reason given'}") for check in meant]
    idle = [check.subject for check in skipped if check.note == NO_RULE]
    if idle:
        lines.append(tag("li", f"proven, and no rule of the policy asks for it: {', '.join(idle)}"))
    if not lines:
        return tag("p", "Not checked: nothing; every check was made.")
    return joined(tag("p", tag("strong", "Not checked")), tag("ul", *lines))


def _count(checks: Sequence[Check]) -> str:
    made = sum(check.verdict is Verdict.PASSED for check in checks)
    left = sum(check.verdict is Verdict.NOT_CHECKED for check in checks)
    return f"All checks: {made} as they have to be, {left} not checked"


def _tables(tee: TeeKind, checks: Sequence[Check]) -> Iterator[Html]:
    for group, title in GROUPS.items():
        rows = [_row(tee, check) for check in checks if group_of(check) == group]
        if rows:
            yield joined(tag("p", tag("strong", title)), table(("check", "outcome", "got", "want"), rows))


def _row(tee: TeeKind, check: Check) -> tuple[str, ...]:
    question = question_of(tee, check)
    what = joined(tag("strong", check.subject), tag("div", question) if question else "")
    return what, outcome_of(check), short(check.got), short(check.want)
