"""One call of any route of the table, and what the database holds: for who tries every role on every route."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from custodian_kit import STATEMENT
from sqlalchemy import select

from cloister.custodian.calls import Body
from cloister.custodian.routes import ROUTES
from cloister.custodian.store.tables import AUDIT, AUDIT_PENDING, LOG_HEAD, TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx
    from custodian_kit import Bench

    from cloister.custodian.calls import Route

SAMPLE = {
    "loan": "loan-aaaaaaaaaaaaaaaa",
    "instance": "0" * 64,
    "digest": "0" * 64,
    "request": "req-0000000000000000",
    "kind": "loan",
    "subject": "loan-aaaaaaaaaaaaaaaa",
    "issuer": "iss-0000000000000000",
    "token": "tok-0000000000000000",
    "enrolment": "0" * 32,
    "device": "0" * 64,
    "index": "0",
    "field": "reason",
    "hold": "hold-0000000000000000",
    "tile": "000",
    "session": "ses-0000000000000000",
    "proposal": "prop-0000000000000000",
}
"""A value for every parameter of every path: of the right form, and there is nothing of that name."""
GUARDED = [route for route in ROUTES if route.roles is not None]
LOGS = {AUDIT.name, AUDIT_PENDING.name, LOG_HEAD.name}


def route_name(route: Route) -> str:
    """Return what a route is called in tests and docs."""
    return f"{route.method} {route.path}"


def call_route(
    bench: Bench, route: Route, headers: Mapping[str, str], parameters: Mapping[str, str] = SAMPLE
) -> httpx.Response:
    """Call a route with the emptiest body that it reads."""
    path = re.sub(r"\{([a-z]+)\}", lambda found: parameters[found.group(1)], route.path)
    if route.body is Body.STATEMENT:
        return bench.client.request(route.method, path, content=b"{}", headers={**headers, **STATEMENT})
    if route.body is Body.TEXT:
        return bench.client.request(
            route.method, path, content=b"{}", headers={**headers, "content-type": "text/plain"}
        )
    if route.body is Body.JSON:
        return bench.client.request(route.method, path, json={}, headers=dict(headers))
    # An unbounded stream is asked for from a place where it refuses instead of flowing.
    query = "?after=x" if route.stream else ""
    return bench.client.request(route.method, path + query, headers=dict(headers))


def everything(bench: Bench, *, but: frozenset[str] | set[str] = frozenset()) -> dict[str, list[str]]:
    """Return all rows of all tables, the log's left out where ``but`` names them."""
    with bench.service.context.reading() as connection:
        return {
            table.name: sorted(repr(tuple(row)) for row in connection.execute(select(table)))
            for table in TABLES
            if table.name not in but
        }
