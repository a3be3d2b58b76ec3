"""What two persons decide: proposals that wait, and approving one with one's own token once more.

A session in a browser lasts minutes and is bound to nothing, so it approves nothing by itself
(docs/spec/session.md); the token that it was opened with is asked for again, used for this one call and not kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloister.custodian.dashboard.desk import Page, Tab
from cloister.errors import Malformed
from cloister.pages import NavEntry
from cloister.wire import dump_json, parse_b64u, parse_json

if TYPE_CHECKING:
    from starlette.responses import Response

    from cloister.custodian.dashboard.visit import Visit

__all__ = ["PAGES", "TABS"]

_MAX_BODY = 1 << 20


def proposal_list(visit: Visit) -> Response:
    """Show the newest proposals, and the rule."""
    found = visit.ask("GET /v1/proposals")
    return visit.page("proposals.html", here="/proposals", proposals=found["proposals"], rule=found["two_person"])


def proposal(visit: Visit) -> Response:
    """Show one proposal: exactly what is asked for, on what state, and who decides."""
    name = str(visit.request.path_params["proposal"])
    found = visit.ask("GET /v1/proposals/{proposal}", proposal=name)
    mine = visit.who.person is not None and visit.who.person == found["person"]
    return visit.page(
        "proposal.html",
        here="/proposals",
        asked=_asked(found),
        basis=_lines(found["basis"]),
        mine=mine,
        proposal=found,
        waits=found["state"] == "open",
    )


def _asked(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return every member of what is asked for: nothing of what an approval is of is left out."""
    request = found["request"]
    lines = [("route", request["route"]), *_lines(request["parameters"]), *_lines(request["query"])]
    body = parse_b64u(found["body"], what="proposal", cap=_MAX_BODY)
    if body:
        try:
            lines += _lines(parse_json(body, what="body"))
        except Malformed:
            lines.append(("body", found["body"]))
    return lines


def _lines(value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, dict):
        return [("value", dump_json(value).decode())]
    return [(name, item if isinstance(item, str) else dump_json(item).decode()) for name, item in value.items()]


def approve(visit: Visit) -> Response:
    """Approve another person's proposal."""
    return _decide(visit, "approve", "approved", {"digest": visit.text("digest")})


def deny(visit: Visit) -> Response:
    """Deny another person's proposal."""
    return _decide(visit, "deny", "denied", visit.optional("reason"))


def withdraw(visit: Visit) -> Response:
    """Take back one's own proposal."""
    return _decide(visit, "withdraw", "withdrawn", {})


def _decide(visit: Visit, verb: str, done: str, body: dict[str, Any]) -> Response:
    name = str(visit.request.path_params["proposal"])
    route = f"POST /v1/proposals/{{proposal}}/{verb}"
    return visit.act(route, f"/proposals/{name}", done, body=body, proposal=name)


TABS = (Tab(entry=NavEntry(path="/proposals", title="Approvals", keys="g p"), route="GET /v1/proposals"),)
PAGES = (
    Page(path="/proposals", work=proposal_list),
    Page(path="/proposals/{proposal}", work=proposal),
    Page(path="/proposals/{proposal}/approve", method="POST", work=approve, again=True),
    Page(path="/proposals/{proposal}/deny", method="POST", work=deny),
    Page(path="/proposals/{proposal}/withdraw", method="POST", work=withdraw),
)
