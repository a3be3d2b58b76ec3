"""What an auditor and a data protection officer need: persons behind pseudonyms, committed fields, holds, pruning."""

from __future__ import annotations

from cloister.custodian import compliance_http, log_http
from cloister.custodian.calls import Again, Body, Member
from cloister.custodian.routes import duties
from cloister.custodian.routes.route import ADMIN, route
from cloister.custodian.tokens import Role

__all__ = ["COMPLIANCE"]

_OVERSEERS = frozenset({Role.ADMIN, Role.AUDITOR})

COMPLIANCE = (
    route(
        "POST", "/v1/audit/resolve", _OVERSEERS, compliance_http.resolve, again=Again.LOGGED, body=Body.JSON,
        members=(compliance_http.SUBJECT,),
    ),
    route(
        "POST", "/v1/audit/forget", ADMIN, compliance_http.forget, body=Body.JSON, duty=duties.ERASURE,
        again=Again.KEYED,
        members=(compliance_http.SUBJECT,),
    ),
    route(
        "POST", "/v1/audit/{index}/fields/{field}", _OVERSEERS, compliance_http.field_proof, body=Body.JSON,
        again=Again.LOGGED,
        query=(log_http.SIZE, log_http.QUORUM),
    ),
    route("GET", "/v1/audit/holds", _OVERSEERS, compliance_http.list_holds),
    route(
        "POST", "/v1/audit/holds", _OVERSEERS, compliance_http.place_hold, body=Body.JSON, again=Again.KEYED,
        members=(
            Member(name="scope", type="string", doc="`all`, `class:NAME`, `loan:ID` or `subject:PERSON`"),
            Member(name="reason", type="string", doc="1 to 200 characters"),
        ),
    ),
    route("DELETE", "/v1/audit/holds/{hold}", ADMIN, compliance_http.lift_hold, again=Again.KEYED, duty=duties.ERASURE),
    route("GET", "/v1/audit/retention", _OVERSEERS, compliance_http.due),
    route(
        "POST", "/v1/audit/prune", ADMIN, compliance_http.prune, body=Body.JSON,
        again=Again.KEYED, duty=duties.ERASURE,
    ),
)  # fmt: skip
