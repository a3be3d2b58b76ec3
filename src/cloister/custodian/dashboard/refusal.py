"""The page that says no: what was refused, by which rule, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
_PLAIN = {
    "already_decided": "Somebody else was faster: it is decided.",
    "forbidden": "Your role does not allow it, or the form did not come from one of these pages. Nothing was changed.",
    "not_found": "There is no such thing, or it is gone.",
    "person_wanted": "Your token names no person, and what two persons decide wants one.",
    "same_person": "Whoever asked for it cannot approve it. Another person has to.",
    "session_unbound": "A session in a browser does not do this by itself: it wants your token once more.",
    "token_wanted": "It wants the very token that you signed in with.",
    "unauthenticated": "That is not a token of this custodian's, or it is good no more.",
    "too_many_units": "The allowance would be larger than can be counted.",
}


def refusal_page(desk: Desk, request: Request, visit: Visit | None, error: CloisterError) -> Response:
    """Return the page about an error, with the status that the API would answer."""
    status, _, headers = problem(error)
    reasons = error.reasons if isinstance(error, Rejected) else ()
    values = {
        "back": request.headers.get("sec-fetch-site") == "same-origin" and request.method == "POST",
        "hint": error.hint,
        "message": error.message,
        "plain": next((_PLAIN[item.code] for item in reasons if item.code in _PLAIN), ""),
        "reasons": reasons,
        "title": _TITLES.get(status, "That cannot be done"),
    }
    if visit is not None:
        response = visit.page("refusal.html", here="", status=status, live=False, **values)
    else:
        context = desk.service.context
        response = desk.site.render(
            request, "refusal.html", now=context.now(), status=status, base=desk.base, may=None, done="", **values
        )
    if isinstance(error, Unavailable) or status == STATUS_BY_CODE["too_many_requests"]:
        response.headers["retry-after"] = headers["Retry-After"]
    return response
