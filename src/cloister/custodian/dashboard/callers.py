"""Who asks: consumers of every loan by what they used; and at the custodian, tokens, sessions and issuers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloister.custodian.dashboard.desk import Page, Tab
from cloister.custodian.service import lists
from cloister.pages import NavEntry

if TYPE_CHECKING:
    from starlette.responses import Response

    from cloister.custodian.dashboard.visit import Visit

__all__ = ["PAGES", "TABS"]

_ROWS = 50
_TOKENS = 200  # shown on one page


def consumer_list(visit: Visit) -> Response:
    """Show some consumers, who used most first."""
    visit.demand("GET /v1/loans")
    skip = visit.rows_before()
    found: Any = lists.consumer_page(visit.desk.service.context, skip=skip, limit=_ROWS)
    return visit.page("consumers.html", here="/consumers", **found, skip=skip, rows=_ROWS)


def access(visit: Visit) -> Response:
    """Show who may do what at the custodian."""
    tokens = visit.ask("GET /v1/tokens")["tokens"]
    staff = [item for item in tokens if item["role"] != "borrower"]
    return visit.page(
        "access.html",
        here="/access",
        borrowers=sum(item["role"] == "borrower" and item["good"] for item in tokens),
        issuers=visit.ask("GET /v1/issuers")["issuers"],
        more=max(0, len(staff) - _TOKENS),
        own=visit.actor.id,
        sessions=visit.ask("GET /v1/sessions")["sessions"],
        tokens=staff[:_TOKENS],
    )


def revoke(visit: Visit) -> Response:
    """Revoke a token."""
    token = str(visit.request.path_params["token"])
    return visit.act("DELETE /v1/tokens/{token}", "/access", "revoked", token=token)


def end(visit: Visit) -> Response:
    """End a session."""
    session = str(visit.request.path_params["session"])
    return visit.act("DELETE /v1/sessions/{session}", "/access", "ended", session=session)


def distrust(visit: Visit) -> Response:
    """Trust an issuer no longer; where two persons decide, ask for it."""
    issuer = str(visit.request.path_params["issuer"])
    return visit.act("DELETE /v1/issuers/{issuer}", "/access", "distrusted", issuer=issuer)


TABS = (
    Tab(entry=NavEntry(path="/consumers", title="Consumers", keys="g c"), route="GET /v1/loans"),
    Tab(entry=NavEntry(path="/access", title="Access", keys="g t"), route="GET /v1/tokens"),
)
PAGES = (
    Page(path="/consumers", work=consumer_list),
    Page(path="/access", work=access),
    Page(path="/access/tokens/{token}/revoke", method="POST", work=revoke),
    Page(path="/access/sessions/{session}/end", method="POST", work=end),
    Page(path="/access/issuers/{issuer}/remove", method="POST", work=distrust),
)
