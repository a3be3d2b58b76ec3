"""The page as an ASGI application: the loan and a form for more, who uses it, what is agreed on, the enclave here.

The door (``serving.door``) stands before it. Not done here: TLS and sockets (``serve``).
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from cloister.borrowing.books import WINDOWS
from cloister.borrowing.burn import burn_chart
from cloister.borrowing.loan import LOAN
from cloister.errors import CloisterError, Malformed, Rejected
from cloister.lending.terms import MAX_UNITS
from cloister.pages import NavEntry, Site
from cloister.pages.site import base_of
from cloister.serving.behind_door import behind_door
from cloister.serving.bodies import Bodies
from cloister.serving.door import DOOR_STATUSES
from cloister.serving.door_guard import SAME_ORIGIN, take_form, visitor_of
from cloister.serving.problems import code_of, status_of
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from datetime import datetime

    from starlette.types import ASGIApp

    from cloister.borrowing.books import Books
    from cloister.borrowing.host import Host
    from cloister.lending.contract import Contract
    from cloister.serving.door import Door
    from cloister.serving.forms import Form

__all__ = ["borrower_app"]

_STATUSES: Mapping[str, int] = {
    **DOOR_STATUSES,
    "busy": 429,
    "method_not_allowed": 405,
    "not_found": 404,
    "payload_too_large": 413,
    "request_timeout": 408,
    "too_many_requests": 429,
}
_FOLDER = Path(__file__).parent
_MAX_FORM_BYTES = 16 * 1024
_FORM_WITHIN_S = 20
_REASON_CHARS = 200  # what the custodian takes
_KEY_BYTES = 18
_KEY = re.compile(r"[A-Za-z0-9_-]{24}")
_CLOCKS = "_seconds_left"  # metrics that are another at every look
_LOOK_S, _MAX_STREAMS = 5.0, 8
_NAV = (
    NavEntry(path="/", title="Loan", keys="g l"),
    NavEntry(path="/use", title="Who uses it", keys="g u"),
    NavEntry(path="/terms", title="What is agreed on", keys="g t"),
    NavEntry(path="/enclave", title="Enclave here", keys="g e"),
)
_TITLES = {
    "form_foreign": "That form was not of this page",
    "host_not_allowed": "That is not this page's address",
    "link_used": "This link was used already",
    "not_found": "There is nothing here",
    "signed_out": "You are not signed in",
    "too_many_requests": "Too many requests wait for an answer",
    "unavailable": "The custodian does not answer",
}


def borrower_app(
    books: Books,
    host: Host,
    *,
    door: Door,
    secure: bool,
    clock: Callable[[], datetime],
    contract_rows: Callable[[Contract], list[tuple[str, str]]],
) -> ASGIApp:
    """Return the application, behind its door. ``contract_rows`` says a contract in words."""
    page = _Page(books, host, door, clock, contract_rows)

    works = (
        ("GET", "/", page.loan),
        ("POST", "/ask", page.ask),
        ("GET", "/use", page.use),
        ("POST", "/use", page.state),
        ("POST", "/use/statement", page.statement),
        ("GET", "/terms", page.terms),
        ("GET", "/enclave", page.enclave),
        ("GET", "/live", page.live),
    )
    return behind_door(works, assets=page.site.assets, door=door, secure=secure, refused=page.refused)


class _Page:
    """One coroutine for each route."""

    def __init__(
        self,
        books: Books,
        host: Host,
        door: Door,
        clock: Callable[[], datetime],
        contract_rows: Callable[[Contract], list[tuple[str, str]]],
    ) -> None:
        self._books, self._host, self._door, self._clock, self._rows = books, host, door, clock, contract_rows
        self._bodies = Bodies(within_s=_FORM_WITHIN_S, cap=_MAX_FORM_BYTES)
        self._streams = 0
        self.site = Site(product="Cloister", templates=_FOLDER / "templates", nav=_NAV, assets=_FOLDER / "assets")

    async def loan(self, request: Request) -> Response:
        """Return how the loan stands, with the form for more."""
        return await self._loan(request)

    async def ask(self, request: Request) -> Response:
        """Ask for more units; what cannot be asked comes back with the form."""
        form = await self._posted(request)
        try:
            units = _units(form.text("units"))
            key = form.text("once")
            if not _KEY.fullmatch(key) or len(form.text("reason")) > _REASON_CHARS:
                msg = f"form: want a reason of at most {_REASON_CHARS} characters"
                raise Malformed(msg)
            await self._books.ask_more(
                units=units, meter=form.text("meter") or LOAN, reason=form.text("reason").strip(), key=key
            )
        except CloisterError as error:
            return await self._loan(request, error=error, filled=form)
        return RedirectResponse(f"{base_of(request)}/?asked=1#asks", status_code=303)

    async def use(self, request: Request) -> Response:
        """Return the meters of consumers and models."""
        return await self._used(request)

    async def state(self, request: Request) -> Response:
        """Have the custodian state, signed, who used what, and show it."""
        await self._posted(request)
        return await self._used(request, stated=True)

    async def statement(self, request: Request) -> Response:
        """Have it stated, and give the file."""
        await self._posted(request)
        _, data = await self._books.usage()
        headers = {"content-disposition": 'attachment; filename="usage.statement"', "cache-control": "no-store"}
        headers |= {"x-content-type-options": "nosniff"}
        return Response(data, media_type="application/octet-stream", headers=headers)

    async def terms(self, request: Request) -> Response:
        """Return what is agreed on, and what waits for the borrower's signature."""
        in_force, offered = await self._books.contract()
        rows = [None if found is None else self._rows(found) for found in (in_force, offered)]
        return self._shown(request, "terms.html", here="/terms", in_force=rows[0], offered=rows[1])

    async def enclave(self, request: Request) -> Response:
        """Return the enclave here as it shows itself, and the instances that the custodian knows."""
        read, view = await self._books.read(), await self._host.view()
        return self._shown(
            request, "enclave.html", here="/enclave", live=True, named=self._host.is_named, read=read, view=view
        )

    async def live(self, request: Request) -> Response:
        """Say that something changed, never what. Raises ``Rejected`` (``busy``) for too many at once."""
        if self._streams >= _MAX_STREAMS:
            raise Rejected.because("busy", "page", want=f"at most {_MAX_STREAMS} live pages")
        headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
        return StreamingResponse(self._changes(request), media_type="text/event-stream", headers=headers)

    def refused(self, error: CloisterError, request: Request | None = None) -> Response:
        """Return the page that says no."""
        if request is None:
            request = Request({"type": "http", "headers": [], "root_path": ""})
        inside = bool(getattr(request.state, "visitor", None))
        code = _code(error)
        page = self.site.render(
            request,
            "refused.html",
            now=self._clock(),
            status=status_of(error, _STATUSES),
            code=code,
            error=error,
            inside=inside,
            nav=_NAV if inside else (),
            title=_TITLES.get(code, "Refused"),
        )
        page.headers.update(SAME_ORIGIN)
        return page

    async def _loan(
        self, request: Request, *, error: CloisterError | None = None, filled: Form | None = None
    ) -> Response:
        window = request.query_params.get("window", "hour")
        window = window if window in WINDOWS else "hour"
        read, view = await self._books.read(window), await self._host.view()
        outlook = read.spending.outlook(read.loan.whole.left)
        return self._shown(
            request,
            "loan.html",
            asked="asked" in request.query_params,
            burn=burn_chart(read, outlook),
            error=error,
            filled={} if filled is None else filled.texts,
            here="/",
            live=True,
            meters=[(meter.name, meter.name if meter.name != LOAN else meter.subject) for meter in read.loan.meters],
            named=self._host.is_named,
            once=dump_b64u(os.urandom(_KEY_BYTES)),
            outlook=outlook,
            read=read,
            reason_chars=_REASON_CHARS,
            status=200 if error is None else status_of(error, _STATUSES),
            view=view,
            window=window,
            windows=tuple(WINDOWS),
        )

    async def _used(self, request: Request, *, stated: bool = False) -> Response:
        read = await self._books.read()
        statement = (await self._books.usage())[0] if stated else None
        names = {digest: name for name, digest in read.loan.models}
        return self._shown(request, "use.html", here="/use", names=names, read=read, statement=statement)

    async def _changes(self, request: Request) -> AsyncIterator[bytes]:
        self._streams += 1
        try:
            before = await self._mark()
            yield b"retry: 5000\n\n"
            while not await request.is_disconnected():
                await asyncio.sleep(_LOOK_S)
                mark = await self._mark()
                yield b": still here\n\n" if mark == before else b"event: change\ndata: 1\n\n"
                before = mark
        finally:
            self._streams -= 1

    async def _mark(self) -> object:
        """Return what is different once something has changed."""
        view = await self._host.view()
        still = {name: value for name, value in view.values.items() if not name.endswith(_CLOCKS)}
        shown = (view.status, view.state, view.parts, still, None if view.fault is None else view.fault.message)
        try:
            read = await self._books.read()
        except CloisterError as error:
            return shown, error.message
        return shown, read.loan, read.spending.total, read.fault is None

    def _shown(
        self, request: Request, template: str, *, status: int = 200, live: bool = False, **values: object
    ) -> Response:
        page = self.site.render(
            request,
            template,
            now=self._clock(),
            status=status,
            live=f"{base_of(request)}/live" if live else "",
            token=visitor_of(request).form_token,
            **values,
        )
        page.headers.update(SAME_ORIGIN)
        return page

    async def _posted(self, request: Request) -> Form:
        return await take_form(request, self._bodies, self._door)


def _units(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and 1 <= int(text) <= MAX_UNITS):  # noqa: PLR2004
        msg = f"units: {text[:40]!r}, want a whole number of at least 1"
        raise Malformed(msg)
    return int(text)


def _code(error: CloisterError) -> str:
    code = code_of(error)
    return "refused" if code in ("internal", "usage") else code  # a fault of ours is told as no more
