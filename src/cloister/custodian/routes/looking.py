"""What there is to see: instances, events, the audit log and its proofs."""

from __future__ import annotations

from cloister.custodian import handlers, log_http, watching_http
from cloister.custodian.calls import ANYBODY, STATEMENT_TYPE, Again, Body
from cloister.custodian.events import EVENT_STREAM, events
from cloister.custodian.routes.route import AFTER, LIMIT, LOAN, STAFF, VIEWERS, WATCHERS, WATCHERS_AND_VIEWERS, route

__all__ = ["LOOKING"]

_LOOKING = (
    route("GET", "/v1/instances", VIEWERS, handlers.list_instances),
    route("GET", "/v1/instances/{instance}", VIEWERS, handlers.show_instance),
    route("GET", "/v1/instances/{instance}/evidence", VIEWERS, handlers.evidence),
    route("GET", "/v1/alarms", VIEWERS, watching_http.alarms),
    route("GET", "/v1/metrics", VIEWERS, watching_http.metrics, answers=log_http.TEXT_TYPE),
    route("GET", "/v1/spending", VIEWERS, watching_http.spending, query=watching_http.STEPS),
    route(
        "GET", "/v1/loans/{loan}/spending", WATCHERS_AND_VIEWERS, watching_http.loan_spending,
        query=watching_http.STEPS,
    ),
    route("GET", "/v1/audit", STAFF, handlers.audit, query=(AFTER, LIMIT)),
    route("GET", "/v1/audit/checkpoint", VIEWERS, handlers.checkpoint, answers=STATEMENT_TYPE),
    route("GET", "/v1/events", WATCHERS, events, query=(AFTER, LOAN), answers=EVENT_STREAM),
)  # fmt: skip

_LOG = (
    route(
        "GET", "/log/checkpoint", ANYBODY, log_http.log_checkpoint, query=(log_http.SIZE, log_http.QUORUM),
        answers=log_http.TEXT_TYPE,
    ),
    route(
        "GET", "/log/consistency", ANYBODY, log_http.log_consistency,
        query=(log_http.OLD, log_http.SIZE, log_http.QUORUM), answers=log_http.TEXT_TYPE,
    ),
    # Entries before tiles: the path of the second is any.
    route("GET", "/log/tile/entries/{tile}", STAFF, log_http.log_entries, answers=log_http.TILE_TYPE, deep=True),
    route("GET", "/log/tile/{tile}", ANYBODY, log_http.log_tile, answers=log_http.TILE_TYPE, deep=True),
    # Signed by a witness that the settings name: the signature is the authentication.
    route("POST", "/log/cosignatures", ANYBODY, log_http.cosignatures, again=Again.SIGNED, body=Body.TEXT),
    route("GET", "/v1/loans/{loan}/audit", WATCHERS, log_http.loan_entries, query=(AFTER, LIMIT)),
    route(
        "GET", "/v1/audit/{index}/proof", WATCHERS, log_http.proof, query=(log_http.SIZE, log_http.QUORUM),
        answers=log_http.TEXT_TYPE,
    ),
)  # fmt: skip

LOOKING = (*_LOOKING, *_LOG)
