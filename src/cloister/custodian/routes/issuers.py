"""Issuers of callers' identities."""

from __future__ import annotations

from cloister.custodian import issuers_http
from cloister.custodian.calls import Again, Body
from cloister.custodian.routes import duties
from cloister.custodian.routes.route import ADMIN, route

__all__ = ["ISSUERS"]

ISSUERS = (
    route("GET", "/v1/issuers", ADMIN, issuers_http.list_issuers),
    route(
        "POST", "/v1/issuers", ADMIN, issuers_http.set_issuer, body=Body.JSON, again=Again.KEYED, duty=duties.LETS_IN,
        members=issuers_http.ISSUER_MEMBERS,
    ),
    route("DELETE", "/v1/issuers/{issuer}", ADMIN, issuers_http.remove_issuer, again=Again.KEYED, duty=duties.ISSUER),
)  # fmt: skip
