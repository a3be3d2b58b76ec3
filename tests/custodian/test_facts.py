"""Every fact of the house has its event, and no event says more than its form allows (T83, T84, T85)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloister.custodian.routes import ROUTES
from cloister.errors import UsageError
from cloister.lending.events import DETAILS, Event, EventKind

if TYPE_CHECKING:
    from custodian_kit import Bench

SOURCE = Path(__file__).parents[2] / "src" / "cloister"
TEXT = "\n".join(
    path.read_text(encoding="utf-8") for path in sorted(SOURCE.rglob("*.py")) if path.name != "events.py"
) + (SOURCE / "custodian" / "events.py").read_text(encoding="utf-8")
EMITTED = set(re.findall(r"\bEventKind\.(\w+)\b", TEXT))
SAID = {name for form in (r"\b(\w+)=", r'"(\w+)":', r'\["(\w+)"\]') for name in re.findall(form, TEXT)}

RESERVED: dict[EventKind, str] = {}
"""Kinds that nothing emits yet, each with the reason why it stays."""

FACTS: dict[tuple[str, str], tuple[EventKind, ...]] = {
    ("POST", "/v1/loans/{loan}/challenge"): (EventKind.CHALLENGE_ISSUED,),
    ("POST", "/v1/loans/{loan}/attest"): (EventKind.KEY_RELEASED, EventKind.ATTESTATION_REFUSED),
    ("POST", "/v1/instances/{instance}/lease"): (
        EventKind.LEASE_GRANTED, EventKind.LEASE_REFUSED, EventKind.FORK_DETECTED, EventKind.OVERDRAFT_DETECTED,
        EventKind.CLOCK_ANOMALY, EventKind.EXTRACTION_ALARM,
    ),
    ("POST", "/v1/instances/{instance}/renewal"): (
        EventKind.LEASE_GRANTED, EventKind.LEASE_REFUSED, EventKind.FORK_DETECTED, EventKind.OVERDRAFT_DETECTED,
        EventKind.CLOCK_ANOMALY, EventKind.EXTRACTION_ALARM, EventKind.USAGE_REPORTED, EventKind.USAGE_REFUSED,
    ),
    ("POST", "/v1/instances/{instance}/close"): (EventKind.INSTANCE_CLOSED, EventKind.INSTANCE_WRITTEN_OFF),
    ("POST", "/v1/loans/{loan}/requests"): (EventKind.MORE_REQUESTED,),
    ("POST", "/v1/models"): (EventKind.MODEL_PUBLISHED, EventKind.ENVELOPE_MOVED),
    ("POST", "/v1/models/{digest}/withdraw"): (EventKind.MODEL_WITHDRAWN,),
    ("POST", "/v1/loans"): (EventKind.LOAN_CREATED,),
    ("POST", "/v1/loans/{loan}/top-up"): (EventKind.ALLOWANCE_ADDED,),
    ("POST", "/v1/loans/{loan}/set"): (EventKind.ALLOWANCE_SET,),
    ("POST", "/v1/loans/{loan}/requests/{request}/approve"): (EventKind.MORE_APPROVED,),
    ("POST", "/v1/loans/{loan}/requests/{request}/deny"): (EventKind.MORE_DENIED,),
    ("POST", "/v1/loans/{loan}/consumers"): (EventKind.CONSUMER_ADDED,),
    ("POST", "/v1/loans/{loan}/policy"): (EventKind.POLICY_CHANGED,),
    ("POST", "/v1/loans/{loan}/amend"): (EventKind.TERMS_CHANGED, EventKind.CONTRACT_OFFERED),
    ("POST", "/v1/loans/{loan}/models"): (EventKind.TERMS_CHANGED, EventKind.CONTRACT_OFFERED),
    ("POST", "/v1/loans/{loan}/contract"): (EventKind.CONTRACT_SIGNED,),
    ("POST", "/v1/instances/{instance}/usage"): (
        EventKind.USAGE_REPORTED, EventKind.USAGE_REFUSED, EventKind.FORK_DETECTED,
    ),
    ("POST", "/v1/instances/{instance}/ticket"): (EventKind.TICKET_GRANTED, EventKind.TICKET_REFUSED),
    ("POST", "/v1/loans/{loan}/vouchers"): (EventKind.VOUCHER_ISSUED, EventKind.VOUCHER_REFUSED),
    ("POST", "/v1/loans/{loan}/vouchers/settle"): (
        EventKind.VOUCHER_SETTLED, EventKind.OVERDRAFT_BOOKED, EventKind.OVERDRAFT_REPAID,
    ),
    ("POST", "/v1/forks"): (EventKind.FORK_DETECTED,),
    ("POST", "/v1/drills"): (EventKind.DRILL_RECORDED,),
    ("POST", "/v1/blocks"): (EventKind.BLOCKED,),
    ("DELETE", "/v1/blocks/{kind}/{subject}"): (EventKind.UNBLOCKED,),
    ("POST", "/v1/keys/rotate"): (EventKind.KEYS_ROTATED, EventKind.ENVELOPE_STUCK, EventKind.KEY_DESTROYED),
    ("POST", "/v1/keys/schedule"): (EventKind.ROTATION_SCHEDULED,),
    ("POST", "/v1/keys/exports"): (EventKind.PERMIT_ISSUED,),
    ("DELETE", "/v1/keys/exports/{proposal}"): (EventKind.PERMIT_REVOKED,),
    ("POST", "/v1/recall"): (EventKind.RECALLED,),
    ("POST", "/v1/tokens"): (EventKind.TOKEN_CREATED,),
    ("DELETE", "/v1/tokens/{token}"): (EventKind.TOKEN_REVOKED,),
    ("POST", "/v1/issuers"): (EventKind.ISSUER_SET,),
    ("DELETE", "/v1/issuers/{issuer}"): (EventKind.ISSUER_REMOVED,),
    ("POST", "/v1/sessions"): (EventKind.SESSION_OPENED,),
    ("POST", "/v1/sessions/exchange"): (EventKind.SESSION_ENDED, EventKind.SESSION_OPENED),
    ("POST", "/v1/sessions/renew"): (EventKind.SESSION_RENEWED,),
    ("DELETE", "/v1/sessions/{session}"): (EventKind.SESSION_ENDED,),
    ("POST", "/v1/proposals/{proposal}/approve"): (
        EventKind.PROPOSAL_APPROVED, EventKind.PROPOSAL_EXECUTED, EventKind.PROPOSAL_REFUSED,
    ),
    ("POST", "/v1/proposals/{proposal}/deny"): (EventKind.PROPOSAL_DENIED,),
    ("POST", "/v1/proposals/{proposal}/withdraw"): (EventKind.PROPOSAL_WITHDRAWN,),
    ("POST", "/v1/certificates"): (EventKind.CERTIFICATE_ISSUED,),
    ("POST", "/v1/certificates/renewal"): (EventKind.CERTIFICATE_ISSUED, EventKind.CERTIFICATE_REFUSED),
    ("POST", "/v1/certificates/authorities"): (EventKind.AUTHORITY_MADE, EventKind.AUTHORITIES_RETIRED),
    ("POST", "/v1/instances/{instance}/certificate"): (EventKind.CERTIFICATE_ISSUED, EventKind.CERTIFICATE_REFUSED),
    ("POST", "/v1/audit/resolve"): (EventKind.PSEUDONYM_RESOLVED,),
    ("POST", "/v1/audit/forget"): (EventKind.SUBJECT_FORGOTTEN,),
    ("POST", "/v1/audit/{index}/fields/{field}"): (EventKind.FIELD_OPENED,),
    ("POST", "/v1/audit/holds"): (EventKind.HOLD_PLACED,),
    ("DELETE", "/v1/audit/holds/{hold}"): (EventKind.HOLD_LIFTED,),
    ("POST", "/v1/audit/prune"): (EventKind.LOG_PRUNED,),
    ("POST", "/v1/devices/enrolments"): (EventKind.DEVICE_REFUSED,),
    ("POST", "/v1/devices/enrolments/{enrolment}/finish"): (EventKind.DEVICE_ENROLLED, EventKind.DEVICE_REFUSED),
    ("POST", "/v1/devices/{device}/label"): (EventKind.DEVICE_NAMED,),
    ("POST", "/v1/devices/{device}/retire"): (EventKind.DEVICE_RETIRED,),
    ("POST", "/v1/devices/{device}/readmit"): (EventKind.DEVICE_READMITTED,),
}  # fmt: skip
"""What the log says of each route that changes something."""

SILENT = {
    ("POST", "/log/cosignatures"): "signed evidence about the log; an entry for each would make the log grow by it",
    (
        "POST",
        "/v1/instances/{instance}/issuers",
    ): "reads whose word counts; changes of that have entries",
}
"""Routes that change something and leave no entry, each with the reason."""

NO_ROUTE = {
    EventKind.CUSTODIAN_INITIALISED, EventKind.CUSTODIAN_STARTED, EventKind.CUSTODIAN_STOPPED, EventKind.ACCESS_DENIED,
    EventKind.CUSTODIAN_RECOVERED, EventKind.ALLOWANCE_WRITTEN_OFF, EventKind.ENDORSEMENTS_ACCEPTED,
    EventKind.USAGE_STATED, EventKind.PROPOSAL_MADE, EventKind.PROPOSAL_EXPIRED,
    # of a host: its operator's API is a table of its own (tests/custodian/test_tenant_operator.py)
    EventKind.TENANT_CREATED, EventKind.TENANT_SUSPENDED, EventKind.TENANT_RESUMED, EventKind.TENANT_REMOVAL_ASKED,
    EventKind.TENANT_ERASED,
    EventKind.ALARM_RAISED, EventKind.ALARM_CLEARED,
    # of commands on the custodian's own machine
    EventKind.PERMIT_USED, EventKind.VAULT_CHANGED,
}  # fmt: skip
"""Facts that no route of their own brings about."""


@pytest.mark.parametrize("kind", EventKind, ids=lambda kind: kind.value)
def test_every_kind_is_emitted_somewhere_or_says_why_not(kind: EventKind) -> None:
    assert (kind.name in EMITTED) != (kind in RESERVED)


def test_every_route_that_changes_something_has_its_fact_and_every_fact_its_route() -> None:
    changing = {(route.method, route.path) for route in ROUTES if route.method != "GET"}
    assert changing == set(FACTS) | set(SILENT)
    told = {kind for kinds in FACTS.values() for kind in kinds}
    assert told | NO_ROUTE | set(RESERVED) == set(EventKind)


@pytest.mark.parametrize("name", sorted(DETAILS))
def test_every_detail_that_is_allowed_is_said_somewhere(name: str) -> None:
    assert name in SAID


def test_free_text_is_a_line_and_only_where_a_person_wrote_it() -> None:
    free = {
        name
        for name, form in DETAILS.items()
        if isinstance(form, re.Pattern) and form.fullmatch("a sentence, so to say")
    }
    assert free == {"borrower", "reason"}
    for name in free:
        for bad in ("two\nlines", "x" * 201, "\x1b[31m", "a\u2028b", 7):
            with pytest.raises(UsageError):
                Event(kind=EventKind.BLOCKED, actor="a", subject="b", details={name: bad})
    for name in ("input", "output", "token_text", "key", "prompt", "", "Reason"):
        with pytest.raises(UsageError):
            Event(kind=EventKind.BLOCKED, actor="a", subject="b", details={name: "x"})


def test_one_day_of_a_custodian_says_only_allowed_kinds_and_details(bench: Bench) -> None:
    lent = bench.lend()
    toy = lent.boot()
    toy.renew()
    asked = bench.post(f"/v1/loans/{lent.id}/requests", {"units": 1, "reason": "more"}, token=lent.token).json()
    bench.post(f"/v1/loans/{lent.id}/requests/{asked['id']}/deny", {"reason": "no"})
    bench.post("/v1/blocks", {"kind": "loan", "subject": lent.id, "reason": "why"})
    bench.get("/v1/loans", token=lent.token)
    toy.close()
    kinds = {kind.value for kind in EventKind} - {kind.value for kind in RESERVED}
    said = bench.audit()
    assert {entry["kind"] for entry in said} <= kinds
    assert {name for entry in said for name in entry["details"]} <= set(DETAILS)
    assert {"access_denied", "more_denied", "blocked", "instance_closed", "lease_granted"} <= set(bench.kinds())
