"""Enclaves: the list, and one enclave with what its evidence proved, check by check, and what was not checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloister.attest.appraise import NO_RULE
from cloister.attest.ear import parse_ear
from cloister.attest.policy import Policy
from cloister.attest.rats import Verdict
from cloister.attest.vocabulary import describe_claim
from cloister.attest.words import TIERS
from cloister.crypto.sign import KeyId
from cloister.custodian.dashboard.desk import Page, Tab
from cloister.custodian.service import lists
from cloister.custodian.service.blocks import bound_of
from cloister.custodian.store.blocks import BlockKind
from cloister.errors import Malformed, Rejected
from cloister.pages import NavEntry
from cloister.pages.checks import check_groups, unruled
from cloister.wire import dump_b64u, dump_json, parse_b64u, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

    from cloister.attest.ear import Ear, EarSubmodule
    from cloister.attest.rats import ClaimValue, TeeKind
    from cloister.custodian.dashboard.visit import Visit

__all__ = ["PAGES", "TABS"]

_ROWS = 50
_MAX_TOKEN = 1 << 20  # bytes of a token's payload
_OWN = KeyId("own")


def enclave_list(visit: Visit) -> Response:
    """Show some enclaves: those that are not over first, then the newest."""
    visit.demand("GET /v1/instances")
    skip = visit.rows_before()
    found: Any = lists.instance_page(visit.desk.service.context, skip=skip, limit=_ROWS)
    return visit.page("enclaves.html", here="/enclaves", **found, skip=skip, rows=_ROWS)


def enclave(visit: Visit) -> Response:
    """Show one enclave."""
    name = str(visit.request.path_params["instance"])
    found = visit.ask("GET /v1/instances/{instance}", instance=name)
    loan = visit.ask("GET /v1/loans/{loan}", loan=found["loan"])
    ear = _result(found["result"])
    evidence = _evidence(visit, name)
    return visit.page(
        "enclave.html",
        here="/enclaves",
        bound=bound_of(visit.desk.service.context, BlockKind.INSTANCE, name),
        devices={} if ear is None else {item: _judged(part) for item, part in ear.submodules.items()},
        ear=ear,
        enclave=found,
        evidence=evidence,
        judged=None if ear is None else _judged(ear),
        loan=loan,
        nonce="" if ear is None else dump_b64u(ear.nonce),
        software=[] if evidence is None else _software(evidence["bound"]["software"]),
        stale=found["policy_digest"] != Policy.from_json(loan["policy"]).digest,
        tier=TIERS[found["tier"]],
    )


def _result(token: str) -> Ear | None:
    """Read a token of our own database, signed by us before it came there; None for one of a form we no longer read.

    Whoever has to stop an enclave is not kept from its page by that.
    """
    try:
        return parse_ear(parse_b64u(token.split(".")[1], what="result", cap=_MAX_TOKEN), _OWN)
    except (Malformed, IndexError):
        return None


def _evidence(visit: Visit, name: str) -> Any:
    """Return what the last release was decided by, None where that is kept no more."""
    try:
        return visit.ask("GET /v1/instances/{instance}/evidence", instance=name)
    except Rejected as refusal:
        if refusal.code != "not_found":
            raise
        return None


def _judged(item: Ear | EarSubmodule) -> dict[str, Any]:
    """Return the checks of a CPU or a device as tables, what nobody looked at, and its claims with their meaning."""
    return {
        "claims": _claims(item.tee, item.claims),
        "groups": check_groups(item.tee, item.checks),
        "passed": sum(check.verdict is Verdict.PASSED for check in item.checks),
        "skipped": [
            check for check in item.checks if check.verdict is Verdict.NOT_CHECKED and check.note != NO_RULE
        ],
        "tee": item.tee,
        "tier": item.tier.value,
        "unruled": unruled(item.checks),
    }  # fmt: skip


def _claims(tee: TeeKind, claims: Mapping[str, ClaimValue]) -> list[tuple[str, str, str]]:
    """Return every claim that is proven: its name, its value, what it means."""
    return [
        (name, ", ".join(value) if isinstance(value, tuple) else str(value), describe_claim(tee, name, value).meaning)
        for name, value in sorted(claims.items())
    ]


def _software(manifest: str) -> list[tuple[str, str]]:
    """Return what the enclave said it runs, as its evidence binds it: names and digests."""
    members = parse_json(parse_b64u(manifest, what="software", cap=_MAX_TOKEN), what="software")
    if not isinstance(members, dict):
        return []
    return [(name, value if isinstance(value, str) else dump_json(value).decode()) for name, value in members.items()]


TABS = (Tab(entry=NavEntry(path="/enclaves", title="Enclaves", keys="g e"), route="GET /v1/instances"),)
PAGES = (
    Page(path="/enclaves", work=enclave_list),
    Page(path="/enclaves/{instance}", work=enclave),
)
