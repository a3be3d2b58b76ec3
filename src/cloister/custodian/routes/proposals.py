"""Two persons: what waits for a second one, and the second one's word."""

from __future__ import annotations

from cloister.custodian import proposals_http
from cloister.custodian.calls import Again, Body
from cloister.custodian.routes.route import MANAGE, REASON, VIEWERS, route

__all__ = ["PROPOSALS"]

PROPOSALS = (
    route("GET", "/v1/proposals", VIEWERS, proposals_http.list_proposals),
    route("GET", "/v1/proposals/{proposal}", VIEWERS, proposals_http.show_proposal),
    route(
        "POST", "/v1/proposals/{proposal}/approve", MANAGE, proposals_http.approve_proposal, body=Body.JSON,
        again=Again.KEYED,
        members=(proposals_http.DIGEST,),
    ),
    route(
        "POST", "/v1/proposals/{proposal}/deny", MANAGE, proposals_http.deny_proposal, body=Body.JSON,
        again=Again.KEYED,
        members=(REASON,),
    ),
    route(
        "POST", "/v1/proposals/{proposal}/withdraw", MANAGE, proposals_http.withdraw_proposal, body=Body.JSON,
        again=Again.KEYED,
    ),
)  # fmt: skip
