"""Sessions of minutes in the place of long-lived tokens."""

from __future__ import annotations

from cloister.custodian import sessions_http
from cloister.custodian.calls import Again, Body, Member
from cloister.custodian.routes.route import EVERYBODY, route

__all__ = ["SESSIONS"]

SESSIONS = (
    route(
        "POST", "/v1/sessions", EVERYBODY, sessions_http.open_session, body=Body.JSON, again=Again.KEYED,
        members=(
            Member(name="life_s", type="integer", doc="seconds it is good for, 60 to `session_max_s`", required=False),
        ),
    ),
    route("POST", "/v1/sessions/renew", EVERYBODY, sessions_http.renew_session, again=Again.SETTLED, body=Body.JSON),
    route(
        "POST", "/v1/sessions/exchange", EVERYBODY, sessions_http.exchange_session,
        again=Again.SINGLE, body=Body.JSON,
    ),
    route("GET", "/v1/sessions", EVERYBODY, sessions_http.list_sessions),
    route("DELETE", "/v1/sessions/{session}", EVERYBODY, sessions_http.end_session, again=Again.KEYED),
)  # fmt: skip
