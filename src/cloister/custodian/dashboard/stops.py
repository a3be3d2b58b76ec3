"""Blocking and lifting blocks, from whichever page the button is on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.dashboard.desk import Page
from cloister.custodian.dashboard.gate import is_page
from cloister.errors import Malformed

if TYPE_CHECKING:
    from starlette.responses import Response

    from cloister.custodian.dashboard.visit import Visit

__all__ = ["PAGES"]


def block(visit: Visit) -> Response:
    """Stop a model, loan, instance or consumer."""
    body = {name: visit.text(name) for name in ("kind", "subject", "reason")} | visit.optional("loan")
    return visit.act("POST /v1/blocks", _back(visit), "blocked", body=body)


def unblock(visit: Visit) -> Response:
    """Lift a block; where two persons decide, ask for it."""
    query = {name: str(value) for name, value in visit.optional("loan").items()}
    kind, subject = visit.text("kind"), visit.text("subject")
    return visit.act(
        "DELETE /v1/blocks/{kind}/{subject}", _back(visit), "unblocked", query=query, kind=kind, subject=subject
    )


def _back(visit: Visit) -> str:
    """Return the page that the button is on. Raises ``Malformed`` for anything that is none of ours."""
    back = visit.text("back")
    if not is_page(back):
        msg = "form: back: want a page of this server"
        raise Malformed(msg)
    return back


PAGES = (
    Page(path="/block", method="POST", work=block),
    Page(path="/unblock", method="POST", work=unblock),
)
