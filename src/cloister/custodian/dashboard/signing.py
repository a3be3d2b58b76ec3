"""Signing in and out: a token, or a link that is good once, becomes a session in a cookie that no script can read.

Whatever comes in is exchanged: a token for a session (``POST /v1/sessions``), the token of a link's session for a fresh
one (``POST /v1/sessions/exchange``). So nobody can plant a session that they know, and what lay in a link, a shell's
history or over a shoulder is good for nothing afterwards. The form is taken from a page of this origin only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse

from cloister.custodian.admitting import admit
from cloister.custodian.dashboard.gate import (
    demand_ours,
    form_of,
    guarded,
    is_page,
    leave,
    presented,
    settle,
)
from cloister.custodian.dashboard.refusal import refusal_page
from cloister.custodian.dashboard.visit import routed
from cloister.custodian.threads import run_in_threadpool
from cloister.custodian.tokens import Role
from cloister.errors import CloisterError, Malformed, Rejected
from cloister.pages import PAGE_HEADERS

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from cloister.custodian.dashboard.desk import Desk
    from cloister.custodian.dashboard.gate import Answer
    from cloister.custodian.dashboard.visit import Visit
    from cloister.custodian.tokens import Actor

__all__ = ["sign_in", "sign_in_page", "sign_out", "stay"]

_TOKEN = re.compile(r"cls[ts]_[A-Za-z0-9_-]{16,128}")


def sign_in_page(desk: Desk) -> Answer:
    """Return what shows the form."""

    async def answer(request: Request) -> Response:
        after = request.query_params.get("next", "")
        return _form(desk, request, after=after if is_page(after) else "")

    return guarded("sign_in_page", answer)


def _form(desk: Desk, request: Request, *, after: str, said: str = "", status: int = 200) -> Response:
    service = desk.service
    return desk.site.render(
        request, "sign_in.html", now=service.context.now(), status=status, base=desk.base(request), nav=(), after=after,
        said=said, name="" if service.discreet else service.config.name,
    )  # fmt: skip


def sign_in(desk: Desk) -> Answer:
    """Return what takes the form."""

    async def answer(request: Request) -> Response:
        try:
            demand_ours(request)
            form = await form_of(desk, request)
        except CloisterError as error:
            return await run_in_threadpool(refusal_page, desk, request, None, error)
        after = form.get("next", "")
        after = after if is_page(after) else "/"
        try:
            session = await _enter(desk, request, form.get("token", ""))
        except (Malformed, Rejected) as error:
            return _form(desk, request, after=after, said=_plain(error), status=403)
        except CloisterError as error:
            return await run_in_threadpool(refusal_page, desk, request, None, error)
        response = RedirectResponse(f"{desk.base(request)}{after}", status_code=303, headers=PAGE_HEADERS)
        return settle(desk, request, response, session)

    return guarded("sign_in", answer)


async def _enter(desk: Desk, request: Request, token: str) -> str:
    """Return the token of a fresh session for whoever brings ``token``. Raises ``Malformed``, ``Rejected``."""
    if not _TOKEN.fullmatch(token):
        msg = "token: want what begins with clst_, or a link of 'cloister custodian dashboard'"
        raise Malformed(msg)
    actor = await admit(desk.service, desk.limits, request, presented(request, token))
    return await run_in_threadpool(_opened, desk, request, actor)


def _plain(error: CloisterError) -> str:
    """Say why nobody was let in: the same for every token that is good for nothing."""
    code = error.code if isinstance(error, Rejected) else ""
    if code == "unauthenticated":
        return "That token, or the link, is good for nothing here. A link is good once, and for a minute."
    return error.message + (f" ({error.hint})" if error.hint else "")


def _opened(desk: Desk, request: Request, actor: Actor) -> str:
    """Return the token of a fresh session of whoever brought a token or a link. Raises ``Rejected``."""
    if actor.role is Role.BORROWER:
        hint = "a borrower's pages are those of 'cloister borrower'"
        raise Rejected.because(
            "forbidden", "pages", got="a borrower's token", want="one of the custodian's staff", hint=hint
        )
    name = "POST /v1/sessions" if actor.session is None else "POST /v1/sessions/exchange"
    answer = routed(desk, request, actor, name, body={})[0]
    return str(answer["token"])


def sign_out(visit: Visit) -> Response:
    """End the session, and let the browser forget it."""
    visit.ask("DELETE /v1/sessions/{session}", session=visit.actor.session or "")
    return leave(visit.desk, visit.request, visit.go("/sign-in"))


def stay(visit: Visit) -> Response:
    """Let the session go on, because somebody is there."""
    visit.ask("POST /v1/sessions/renew", body={})
    back = visit.text("back")
    return visit.go(back if is_page(back) else "/")
