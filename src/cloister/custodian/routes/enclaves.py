"""What enclaves send: challenge, attestation, leases, tickets, the last count, usage; and proofs of forks."""

from __future__ import annotations

from cloister.custodian import handlers, issuers_http, usage_http
from cloister.custodian.calls import ANYBODY, BORROWER, STATEMENT_TYPE, Again, Body, Member, Wanted
from cloister.custodian.routes.route import WATCHERS, WATCHERS_AND_VIEWERS, route

__all__ = ["ENCLAVES"]

_ENCLAVES = (
    # An enclave has no certificate before it has attested, and its borrower's is none of its own.
    route(
        "POST", "/v1/loans/{loan}/challenge", BORROWER, handlers.challenge, answers=STATEMENT_TYPE, limited=True,
        again=Again.FRESH,
        wanted=Wanted.NOTHING,
    ),
    route(
        "POST", "/v1/loans/{loan}/attest", BORROWER, handlers.attest, body=Body.STATEMENT, answers=STATEMENT_TYPE,
        again=Again.SINGLE,
        wanted=Wanted.NOTHING,
    ),
    # Signed by the instance key inside: the signature is the authentication (C1); a certificate keeps others out.
    route(
        "POST", "/v1/instances/{instance}/lease", ANYBODY, handlers.lease, again=Again.SIGNED, body=Body.STATEMENT,
        answers=STATEMENT_TYPE, wanted=Wanted.INSTANCE,
    ),
    route(
        "POST",
        "/v1/instances/{instance}/renewal",
        ANYBODY,
        handlers.renew,
        again=Again.SIGNED,
        body=Body.JSON,
        members=(
            Member(name="report", type="string", doc="the usage report's exact bytes, base64url"),
            Member(name="request", type="string", doc="the lease request's exact bytes, base64url"),
        ),
        wanted=Wanted.INSTANCE,
    ),
    route(
        "POST", "/v1/instances/{instance}/ticket", ANYBODY, handlers.ticket, again=Again.SIGNED, body=Body.STATEMENT,
        answers=STATEMENT_TYPE, wanted=Wanted.INSTANCE,
    ),
    route(
        "POST", "/v1/instances/{instance}/issuers", ANYBODY, issuers_http.issuers_for_instance, body=Body.STATEMENT,
        again=Again.SIGNED,
        answers=STATEMENT_TYPE, wanted=Wanted.INSTANCE,
    ),
    route(
        "POST", "/v1/instances/{instance}/close", ANYBODY, handlers.close, body=Body.STATEMENT, wanted=Wanted.INSTANCE,
        again=Again.SIGNED,
    ),
)  # fmt: skip

_USAGE = (
    # Signed by the instance key inside, as leases and closes are.
    route(
        "POST", "/v1/instances/{instance}/usage", ANYBODY, usage_http.report, again=Again.SIGNED, body=Body.STATEMENT,
        answers=STATEMENT_TYPE, wanted=Wanted.INSTANCE,
    ),
    route(
        "GET", "/v1/instances/{instance}/usage", WATCHERS_AND_VIEWERS, usage_http.reports,
        query=(Member(name="after", type="integer", doc="index of the last record known; 0 for none", required=False),),
    ),
    route(
        "GET", "/v1/loans/{loan}/usage", WATCHERS, usage_http.statement, answers=STATEMENT_TYPE, limited=True,
        query=(
            Member(name="from", type="string", doc="first minute (RFC 3339); all by default", required=False),
            Member(name="to", type="string", doc="the minute behind the last one; all by default", required=False),
        ),
    ),
    route(
        "POST", "/v1/forks", ANYBODY, usage_http.submit_fork, again=Again.SETTLED, body=Body.JSON, limited=True,
        members=(
            Member(name="instance", type="string", doc="id of the instance that signed"),
            Member(name="receipts", type="array", doc="two receipts of one index (base64url), or one that the "
                   "reported record contradicts"),
        ),
    ),
)  # fmt: skip

ENCLAVES = (*_ENCLAVES, *_USAGE)
