"""What anybody may ask: health, the API itself, who the custodian is, how an instance stands."""

from __future__ import annotations

from cloister.custodian import handlers, watching_http
from cloister.custodian.calls import ANYBODY, STATEMENT_TYPE, Member
from cloister.custodian.routes.route import route

__all__ = ["PUBLIC"]

PUBLIC = (
    route("GET", "/healthz", ANYBODY, watching_http.healthz),
    route("GET", "/readyz", ANYBODY, watching_http.readyz),
    route("GET", "/openapi.json", ANYBODY, handlers.openapi),
    route("GET", "/v1/custodian", ANYBODY, handlers.custodian),
    route(
        "GET", "/v1/instances/{instance}/status", ANYBODY, handlers.status, answers=STATEMENT_TYPE,
        query=(Member(name="nonce", type="string", doc="32 bytes of the asker's choice, base64url"),),
    ),
)  # fmt: skip
