"""A loan's policy: what evidence has to satisfy, in words; changed in two steps, looked at before it counts.

The first step parses what was written, proves by mutation that its rules bite (``attest.lint``) and shows what is
different; nothing is changed. The second is the route's own, with its rules: a higher version, and a second person
where two decide.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cloister.attest.lint import lint_policy
from cloister.attest.policy import Policy
from cloister.attest.rules import NotChecked, dump_rule
from cloister.attest.vocabulary import describe_claim
from cloister.custodian.dashboard.desk import Page
from cloister.errors import CloisterError
from cloister.wire import dump_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

    from cloister.attest.rats import TeeKind
    from cloister.attest.rules import Rule
    from cloister.custodian.dashboard.visit import Visit

__all__ = ["PAGES"]

_REPLACE = "POST /v1/loans/{loan}/policy"


def policy(visit: Visit) -> Response:
    """Show a loan's policy, and what is to be said against it."""
    loan = _loan(visit)
    current = Policy.from_json(loan["policy"])
    following = replace(current, version=current.version + 1)
    return _shown(visit, loan, current, text=_pretty(following))


def look(visit: Visit) -> Response:
    """Look at a policy that somebody wrote: nothing is changed."""
    loan = _loan(visit)
    visit.demand(_REPLACE, loan=loan["loan"])
    current, text = Policy.from_json(loan["policy"]), visit.text("policy")
    try:
        data = text.encode()
        written = Policy.parse(data) if text.startswith("{") else Policy.parse_toml(data)
    except CloisterError as error:
        return _shown(visit, loan, current, text=text, fault=f"{error.message}", hint=error.hint)
    return _shown(visit, loan, current, text=text, written=written)


def put(visit: Visit) -> Response:
    """Replace a loan's policy by the one that was looked at."""
    loan = str(visit.request.path_params["loan"])
    body = {"policy": Policy.parse(visit.text("policy").encode()).to_json()}
    return visit.act(_REPLACE, f"/loans/{loan}/policy", "policy-changed", body=body, loan=loan)


def _loan(visit: Visit) -> Any:
    return visit.ask("GET /v1/loans/{loan}", loan=str(visit.request.path_params["loan"]))


def _shown(
    visit: Visit, loan: Any, current: Policy, *, text: str, written: Policy | None = None, fault: str = "",
    hint: str | None = None,
) -> Response:  # fmt: skip
    required = visit.desk.service.context.verifier.required
    shown = written or current
    return visit.page(
        "policy.html",
        here="/loans",
        live=False,
        changes=[] if written is None else list(_changes(current, written)),
        current=current,
        fault=fault,
        findings=lint_policy(shown, required),
        hint=hint or "",
        loan=loan,
        rules=_rules(shown),
        text=text,
        wire="" if written is None else written.dump().decode(),
        written=written,
    )


def _pretty(policy: Policy) -> str:
    return json.dumps(policy.to_json(), indent=2, ensure_ascii=False)


def _rules(policy: Policy) -> Mapping[TeeKind, list[tuple[str, str, str, bool]]]:
    """Return the rules of each TEE: claim, what is wanted, what the claim means, and whether it is left unchecked."""
    return {
        tee: [
            (claim, _said(rule), describe_claim(tee, claim).meaning, isinstance(rule, NotChecked))
            for claim, rule in sorted(rules.rules.items())
        ]
        for tee, rules in sorted(policy.tees.items())
    }


def _said(rule: Rule) -> str:
    return dump_json(dump_rule(rule)).decode()


def _changes(old: Policy, new: Policy) -> list[tuple[str, str, str, str]]:
    """Return every rule that is different: TEE, claim, as it is, as it would be; an empty text where there is none."""
    found = []
    for tee in sorted({*old.tees, *new.tees}):
        before, after = (item.tees[tee].rules if tee in item.tees else {} for item in (old, new))
        for claim in sorted({*before, *after}):
            was, will = (_said(item[claim]) if claim in item else "" for item in (before, after))
            if was != will:
                found.append((str(tee), claim, was, will))
    return found


PAGES = (
    Page(path="/loans/{loan}/policy", work=policy),
    Page(path="/loans/{loan}/policy/look", method="POST", work=look),
    Page(path="/loans/{loan}/policy", method="POST", work=put),
)
