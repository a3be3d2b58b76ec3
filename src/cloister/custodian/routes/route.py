"""What the families of routes share: who may, members that several take, and how a route is written."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from cloister.custodian.calls import BORROWER, JSON_TYPE, Body, Member, Route, Wanted
from cloister.custodian.events import EVENT_STREAM
from cloister.custodian.tokens import Role
from cloister.errors import UsageError

if TYPE_CHECKING:
    from cloister.custodian.calls import Again, Handler
    from cloister.custodian.duty import Duty

__all__ = [
    "ADMIN",
    "AFTER",
    "CLAUSES",
    "EVERYBODY",
    "LIMIT",
    "LIMITS",
    "LOAN",
    "MANAGE",
    "METER",
    "REASON",
    "STAFF",
    "UNITS",
    "VIEWERS",
    "WATCHERS",
    "WATCHERS_AND_VIEWERS",
    "route",
]

EVERYBODY = frozenset(Role) - {Role.OPERATOR}  # who is a host's, and nobody at a custodian
"""Whoever is somebody: each for itself."""
ADMIN = frozenset({Role.ADMIN})
MANAGE = frozenset({Role.ADMIN, Role.LENDER})
STAFF = frozenset({Role.ADMIN, Role.LENDER, Role.AUDITOR})
WATCHERS = STAFF | BORROWER
VIEWERS = STAFF | {Role.VIEWER}
"""Who may look: a viewer changes nothing, not even the log, and reads no entry of it."""
WATCHERS_AND_VIEWERS = WATCHERS | VIEWERS

CLAUSES = Member(
    name="clauses", type="object", required=False,
    doc="`purpose`, `hours`, `precision`, `offline`, `refund`, `borrower` (key), `sub_allowances`, "
    "`revocations`, `consumer_limits`, `outputs`, `watches` (docs/spec/contract.md)",
)  # fmt: skip
LIMITS = (
    Member(name="ttl_s", type="integer", doc="T: seconds a lease lives", required=False),
    Member(name="rate_cap", type="integer", doc="units per second, 0 for no cap", required=False),
    Member(name="max_ceiling", type="integer", doc="units one instance may hold unserved", required=False),
    Member(name="untrusted_ceiling", type="integer", doc="the same where its clock is not trusted", required=False),
    Member(name="max_instances", type="integer", doc="instances that may live at once", required=False),
)
UNITS = Member(name="units", type="integer", doc="units, 1 to 2**53 - 1")
METER = Member(name="meter", type="string", doc="`loan` (default), `model:NAME` or `consumer:ID`", required=False)
REASON = Member(name="reason", type="string", doc="at most 200 characters", required=False)
AFTER = Member(name="after", type="integer", doc="index of the last entry known; -1 for none", required=False)
LIMIT = Member(name="limit", type="integer", doc="entries in one answer, at most 1000; 100 by default", required=False)
LOAN = Member(name="loan", type="string", doc="id of a loan", required=False)


def route(
    method: str,
    path: str,
    roles: frozenset[Role] | None,
    handler: Handler,
    *,
    body: Body = Body.NONE,
    members: tuple[Member, ...] = (),
    query: tuple[Member, ...] = (),
    answers: str = JSON_TYPE,
    again: Again | None = None,
    limited: bool = False,
    deep: bool = False,
    duty: Duty | None = None,
    wanted: Wanted | None = None,
) -> Route:
    """Return one line of the API; its summary is the first line of the handler's docstring.

    A route that takes a token wants the token's certificate too, unless it says ``wanted``. Raises ``UsageError`` for a
    change that does not say what comes of it ``again``.
    """
    if (again is None) != (method == "GET"):
        msg = f"route {method} {path}: want again= for a change, and only there"
        raise UsageError(msg)
    if wanted is None:
        wanted = Wanted.NOTHING if roles is None else Wanted.HOLDER
    summary = (inspect.getdoc(handler) or "").partition("\n")[0]
    return Route(
        method=method, path=path, roles=roles, summary=summary, handler=handler, body=body, members=members,
        query=query, answers=answers, again=again, limited=limited, stream=answers == EVENT_STREAM, deep=deep,
        duty=duty, wanted=wanted,
    )  # fmt: skip
