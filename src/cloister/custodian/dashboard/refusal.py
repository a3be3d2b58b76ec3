"""The page that says no: what was refused, by which rule, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.dashboard.words import cause_of, fix_of
from cloister.custodian.problems import STATUS_BY_CODE, problem
from cloister.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from cloister.custodian.dashboard.desk import Desk
    from cloister.custodian.dashboard.visit import Visit
    from cloister.errors import CloisterError

__all__ = ["refusal_page"]

_TITLES = {
    403: "You may not do that",
    404: "Nothing is here",
    409: "That no longer fits",
    429: "Too much at once",
    503: "Not possible just now",
}


def refusal_page(desk: Desk, request: Request, visit: Visit | None, error: CloisterError) -> Response:
    """Return the page about an error, with the status that the API would answer."""
    status, _, headers = problem(error)
    reasons = error.reasons if isinstance(error, Rejected) else ()
    values = {
        "back": request.headers.get("sec-fetch-site") == "same-origin" and request.method == "POST",
        "hint": error.hint or (fix_of(reasons[0].code) if reasons else ""),
        "message": error.message,
        "plain": cause_of(reasons[0].code) if reasons else "",
        "reasons": reasons,
        "title": _TITLES.get(status, "That cannot be done"),
    }
    if visit is not None:
        response = visit.page("refusal.html", here="", status=status, live=False, **values)
    else:
        context = desk.service.context
        response = desk.site.render(
            request,
            "refusal.html",
            now=context.now(),
            status=status,
            base=desk.base(request),
            may=None,
            done="",
            **values,
        )
    if isinstance(error, Unavailable) or status == STATUS_BY_CODE["too_many_requests"]:
        response.headers["retry-after"] = headers["Retry-After"]
    return response
