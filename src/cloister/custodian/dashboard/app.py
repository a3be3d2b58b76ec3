"""The pages of a custodian put together: one table of pages, one of tabs, mounted beside the API."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount, Route

from cloister.custodian.dashboard import (
    audit,
    callers,
    devices,
    enclaves,
    loans,
    models,
    overview,
    policies,
    proposals,
    settings,
    signing,
    stops,
)
from cloister.custodian.dashboard.desk import UI, Desk, Page
from cloister.custodian.dashboard.gate import endpoint, guarded, signed_in
from cloister.custodian.dashboard.live import live
from cloister.custodian.dashboard.refusal import refusal_page
from cloister.custodian.dashboard.words import OPERATIONS, ROLES, cause_of, fix_of
from cloister.custodian.threads import run_in_threadpool
from cloister.errors import CloisterError, Rejected
from cloister.pages import Site

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from cloister.custodian.admitting import Limits
    from cloister.custodian.service import CustodianService

__all__ = ["UI", "dashboard"]

TABS = (
    *overview.TABS,
    *loans.TABS,
    *models.TABS,
    *enclaves.TABS,
    *callers.TABS[:1],
    *devices.TABS,
    *proposals.TABS,
    *audit.TABS,
    *callers.TABS[1:],
    *settings.TABS,
)
PAGES = (
    *overview.PAGES,
    *loans.PAGES,
    *policies.PAGES,
    *models.PAGES,
    *enclaves.PAGES,
    *proposals.PAGES,
    *audit.PAGES,
    *callers.PAGES,
    *devices.PAGES,
    *settings.PAGES,
    *stops.PAGES,
    Page(path="/sign-out", method="POST", work=signing.sign_out),
    Page(path="/stay", method="POST", work=signing.stay),
)


@cache
def _site() -> Site:
    """Return the templates and assets, which all custodians of a process share: they hold nothing of any."""
    site = Site(product="Cloister custodian", templates=Path(__file__).parent / "templates")
    site.teach(cause_of=cause_of, fix_of=fix_of, operation_words=OPERATIONS, role_words=ROLES)
    return site


def dashboard(service: CustodianService, limits: Limits) -> Starlette:
    """Return the application to be mounted at ``UI``: every page in the table, and what needs nobody signed in."""
    desk = Desk(service=service, limits=limits, site=_site(), tabs=TABS)

    async def unrouted(request: Request, error: Exception) -> Response:
        async def answer(request: Request) -> Response:
            return await nothing(request, error)

        return await guarded("unrouted", answer)(request)

    async def nothing(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        code = {404: "not_found", 405: "method_not_allowed"}.get(status, "refused")
        try:
            visit = await signed_in(desk, request)
        except CloisterError as refusal:
            return await run_in_threadpool(refusal_page, desk, request, None, refusal)
        return await run_in_threadpool(refusal_page, desk, request, visit, Rejected.because(code, "page"))

    app = Starlette(
        routes=[
            Mount("/assets", desk.site.assets),
            Route("/sign-in", signing.sign_in_page(desk), methods=["GET"]),
            Route("/sign-in", signing.sign_in(desk), methods=["POST"]),
            Route("/live", live(desk), methods=["GET"]),
            *(Route(page.path, endpoint(desk, page), methods=[page.method]) for page in PAGES),
        ],
        exception_handlers={HTTPException: unrouted},
    )
    app.router.redirect_slashes = False
    return app
