"""Who comes to a page: the session in the cookie, proven as a token in a header is; and that a form is one of ours.

The cookie is ``__Host-``, ``Secure``, ``HttpOnly`` and ``SameSite=Strict``. It opens pages and nothing else: the JSON
API reads no cookies. A form is taken only from a page of this origin (``Sec-Fetch-Site``, ``Origin``), and with a token
that is derived from the session's own, so that no other site can press a button (T106).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from cloister.custodian.admitting import admit
from cloister.custodian.dashboard.visit import Visit
from cloister.custodian.logs import LOG, Event
from cloister.custodian.peer_certificate import certificates_of
from cloister.custodian.presented import Presented
from cloister.custodian.threads import run_in_threadpool
from cloister.custodian.tokens import Role
from cloister.errors import CloisterError, Malformed, Rejected
from cloister.pages import PAGE_HEADERS
from cloister.serving.bodies import demand_media
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.custodian.dashboard.desk import Desk, Page

__all__ = [
    "FORM_TYPE",
    "Answer",
    "demand_ours",
    "endpoint",
    "form_of",
    "guarded",
    "leave",
    "presented",
    "settle",
    "signed_in",
]

FORM_TYPE = "application/x-www-form-urlencoded"
_SESSION_TOKEN = re.compile(r"clss_[A-Za-z0-9_-]{43}")
_LABEL = b"cloister/form/v1\n"
_MAX_FIELDS = 64
_MAX_QUERY = 2048  # characters
LIVE_HEADER = "x-live"
"""On what a page fetches by itself: it is not somebody who is there, and does not prolong the session."""


Answer: TypeAlias = Callable[[Request], Awaitable[Response]]
"""What answers one route."""


def guarded(route: str, answer: Answer) -> Answer:
    """Return ``answer`` with the server's edge around it: what nobody foresaw is written down and shown to nobody."""

    async def edge(request: Request) -> Response:
        try:
            return await answer(request)
        except Exception as error:  # noqa: BLE001 - the server's edge: a bug of ours must not become an answer
            LOG.write(Event.INTERNAL_ERROR, route=route, error=type(error).__name__)
            return Response("internal error\n", status_code=500, media_type="text/plain", headers=PAGE_HEADERS)

    return edge


def endpoint(desk: Desk, page: Page) -> Answer:
    """Return what answers requests for a page."""

    async def answer(request: Request) -> Response:
        visit: Visit | None = None
        try:
            visit = await signed_in(desk, request)
            if visit is None:
                return _to_sign_in(desk, request)
            if page.method != "GET":
                visit = await _posted(desk, visit, again=page.again)
            return await run_in_threadpool(page.work, visit)
        except CloisterError as error:
            return await run_in_threadpool(_refused, desk, request, visit, error)

    return guarded(page.work.__name__, answer)


async def signed_in(desk: Desk, request: Request) -> Visit | None:
    """Return the visit of who is signed in, None where nobody is. Raises ``Rejected`` (``too_many_requests``)."""
    token = request.cookies.get(desk.cookie(request), "")
    if not _SESSION_TOKEN.fullmatch(token):
        return None
    if len(request.url.query) > _MAX_QUERY:
        msg = f"query: want at most {_MAX_QUERY} characters"
        raise Malformed(msg)
    try:
        actor = await admit(desk.service, desk.limits, request, presented(request, token))
    except Rejected as refusal:
        if refusal.code == "unauthenticated":
            return None
        raise
    if actor.role is Role.BORROWER:  # its pages are at its own machine
        return None
    stay = LIVE_HEADER not in request.headers
    return await run_in_threadpool(Visit.begin, desk, request, actor, _form_token(token), stay=stay)


def presented(request: Request, token: str) -> Presented:
    """Return what a request shows of its sender, the token as if it had come in the header of the API."""
    return Presented(
        authorization=f"Bearer {token}",
        method=request.method,
        path=request.url.path,
        certificates=certificates_of(request.scope),
    )


def demand_ours(request: Request) -> None:
    """Prove that a form was sent from a page of this origin. Raises ``Rejected`` (``forbidden``).

    A browser says where a form is from in headers that no page can set; one that says nothing is refused.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    host = request.headers.get("host", "")
    if site not in {None, "same-origin"} or (site is None and origin is None):
        raise Rejected.because("forbidden", "form", got=f"from {site or 'nowhere'}", want="from a page of this server")
    if origin is not None and _host_of(origin) != host:
        raise Rejected.because("forbidden", "form", got="another origin", want="from a page of this server")


def _host_of(origin: str) -> str | None:
    """Return the host that an origin names, None where it is none at all."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


async def form_of(desk: Desk, request: Request) -> Mapping[str, str]:
    """Return the fields of a form, each once, without white space around them. Raises ``Malformed``."""
    body = await desk.limits.bodies.read_form(request)
    demand_media(request, FORM_TYPE)
    try:
        fields = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=_MAX_FIELDS,
            errors="strict",
        )  # fmt: skip
    except ValueError as exc:
        msg = "form: cannot be read"
        raise Malformed(msg) from exc
    if len(dict(fields)) != len(fields):
        msg = "form: a field twice"
        raise Malformed(msg)
    return {name: value.replace("\r\n", "\n").strip() for name, value in fields}


async def _posted(desk: Desk, visit: Visit, *, again: bool) -> Visit:
    """Return the visit with its form, which is our own. Raises ``Rejected``, ``Malformed``."""
    demand_ours(visit.request)
    form = await form_of(desk, visit.request)
    if not hmac.compare_digest(form.get("form_token", "").encode(), visit.form_token.encode()):
        raise Rejected.because("forbidden", "form", got="one of another session", want="one of this page")
    if not again:
        return visit.with_form(form)
    actor = await admit(desk.service, desk.limits, visit.request, presented(visit.request, form.get("token", "")))
    if actor.session is not None or actor.id != visit.actor.id:
        raise Rejected.because("token_wanted", "your token", got="another", want="the token that you signed in with")
    return visit.with_form(form, actor=actor)


def _form_token(token: str) -> str:
    """Return what a form of this session carries: nobody can make it without the session's token, nor that of it."""
    return dump_b64u(hashlib.sha256(_LABEL + token.encode()).digest())


def settle(desk: Desk, request: Request, response: Response, token: str) -> Response:
    """Let the browser keep a session."""
    response.set_cookie(desk.cookie(request), token, path="/", secure=True, httponly=True, samesite="strict")
    return response


def leave(desk: Desk, request: Request, response: Response) -> Response:
    """Let the browser forget its session."""
    response.delete_cookie(desk.cookie(request), path="/", secure=True, httponly=True, samesite="strict")
    return response


def _to_sign_in(desk: Desk, request: Request) -> Response:
    """Lead who is not signed in to where that is done, and back again where a page was asked for."""
    if LIVE_HEADER in request.headers:
        return Response("signed out\n", status_code=401, media_type="text/plain", headers=PAGE_HEADERS)
    path = request.url.path.rpartition("/ui")[2]
    back = f"?next={path}" if request.method == "GET" and is_page(path) else ""
    return leave(
        desk, request, RedirectResponse(f"{desk.base(request)}/sign-in{back}", status_code=303, headers=PAGE_HEADERS)
    )


def is_page(path: str) -> bool:
    """Tell whether a text is a plain path below the base: nothing that leads to another server."""
    return re.fullmatch(r"(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+|/", path, re.ASCII) is not None


def _refused(desk: Desk, request: Request, visit: Visit | None, error: CloisterError) -> Response:
    from cloister.custodian.dashboard.refusal import refusal_page  # noqa: PLC0415 - a page like the others

    return refusal_page(desk, request, visit, error)
