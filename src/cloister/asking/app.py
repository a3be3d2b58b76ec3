"""The page as an ASGI application: the form of a model, its answers, and what was verified.

The door (``serving.door``) stands before it. Not done here: TLS and sockets (``serve``); what the words mean
(``readers``, ``words``).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from cloister.asking.answer import json_parts, outputs_of
from cloister.asking.questionnaire import fill_in, questionnaire
from cloister.asking.questions import Question, Questions, State
from cloister.asking.words import told_of
from cloister.errors import CloisterError, Rejected, Unavailable
from cloister.pages import NavEntry, Site
from cloister.pages.checks import check_groups, unruled
from cloister.pages.site import base_of
from cloister.serving.behind_door import behind_door
from cloister.serving.bodies import Bodies
from cloister.serving.door import DOOR_STATUSES
from cloister.serving.door_guard import SAME_ORIGIN, take_form, visitor_of
from cloister.serving.problems import status_of
from cloister.serving.rates import RateLimit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp

    from cloister.asking.asker import Asker
    from cloister.asking.limits import Limits
    from cloister.serving.door import Door
    from cloister.serving.forms import Form

__all__ = ["STATUSES", "ask_app"]

STATUSES: Mapping[str, int] = {
    **DOOR_STATUSES,
    "allowance_exhausted": 402,
    "busy": 429,
    "method_not_allowed": 405,
    "not_found": 404,
    "payload_too_large": 413,
    "readers_changed": 409,
    "request_timeout": 408,
    "too_many_requests": 429,
    "unknown_model": 404,
}
"""Codes of the page's own, and those of the enclave's that browsers know a status for; the others are 403."""

_FOLDER = Path(__file__).parent


def ask_app(asker: Asker, questions: Questions, *, door: Door, limits: Limits, secure: bool) -> ASGIApp:
    """Return the application, behind its door; ``secure`` where browsers come over TLS."""
    page = _Page(asker, questions, door, limits)

    works = (
        ("GET", "/", page.front),
        ("GET", "/verified", page.verified),
        ("GET", "/models/{model}", page.model),
        ("POST", "/models/{model}", page.ask),
        ("GET", "/answers/{id}", page.answer),
        ("POST", "/answers/{id}/wait", page.wait),
        ("POST", "/answers/{id}/forget", page.forget),
        ("GET", "/answers/{id}/{file}", page.file),
    )
    return behind_door(works, assets=page.site.assets, door=door, secure=secure, refused=page.refused)


class _Page:
    """One coroutine for each route."""

    def __init__(self, asker: Asker, questions: Questions, door: Door, limits: Limits) -> None:
        self._asker, self._questions, self._door, self._limits = asker, questions, door, limits
        self._bodies = Bodies(
            within_s=limits.body_timeout_s, cap=limits.max_body_bytes, waiting_bytes=limits.max_waiting_bytes
        )
        self._decoding = asyncio.Semaphore(limits.max_decoding)
        self._rate = RateLimit(per_minute=limits.per_minute, subject="questions") if asker.is_open else None
        self.site = Site(product="Cloister", templates=_FOLDER / "templates", assets=_FOLDER / "assets")

    async def front(self, request: Request) -> Response:
        """Go to the first model."""
        models = self._asker.models()
        if not models:
            raise Rejected.because("unknown_model", "enclave", got="none that the trust names")
        return RedirectResponse(f"{base_of(request)}/models/{models[0]}", status_code=303)

    async def model(self, request: Request) -> Response:
        """Return the form of a model."""
        return await self._form(request, str(request.path_params["model"]))

    async def ask(self, request: Request) -> Response:
        """Ask, and go to where the answer will be; what cannot be asked comes back with the form."""
        model = str(request.path_params["model"])
        form = await self._posted(request)
        if self._rate is not None:
            self._rate.take(request.client.host if request.client else "unknown", self._asker.now())
        info, panel = await self._asker.info(model), await self._asker.panel()
        try:
            if form.text("readers") != panel.digest:
                raise Rejected.because("readers_changed", "readers", got="another panel", want=panel.digest)
            async with self._decoding:
                asked = questionnaire(info, self._limits)
                inputs = await asyncio.to_thread(fill_in, info, asked, form, self._limits)
            question = self._questions.start(visitor_of(request).id, model, inputs, panel)
        except CloisterError as error:
            return await self._form(request, model, error=error, filled=form)
        await self._questions.settled(question)
        return self._to(request, question)

    async def answer(self, request: Request) -> Response:
        """Return an answer, or where it is; beside it who could read it, of the enclave that answered."""
        question = self._own(request)
        info = self._asker.known(question.model)
        inference = question.inference
        return self._shown(
            request,
            "answer.html",
            again=question.state in (State.ASKING, State.WAITING),
            info=info,
            outputs=() if inference is None else outputs_of(inference, info),
            panel=question.panel if inference is None else self._asker.panel_of(inference.enclave),
            question=question,
            told=None if question.error is None else told_of(question.error),
            wait_s=self._limits.max_wait_s,
            status=200 if question.error is None else _status(question.error),
        )

    async def wait(self, request: Request) -> Response:
        """Let a question wait for units."""
        await self._posted(request)
        question = self._own(request)
        self._questions.wait(question)
        return self._to(request, question)

    async def forget(self, request: Request) -> Response:
        """End a question and let go of its answer."""
        await self._posted(request)
        question = self._own(request)
        self._questions.forget(question)
        return RedirectResponse(f"{base_of(request)}/models/{question.model}", status_code=303)

    async def file(self, request: Request) -> Response:
        """Return the receipt of an answer, the exact bytes that it is about, or its outputs as JSON."""
        inference = self._own(request).inference
        name, given = str(request.path_params["file"]), {}
        if inference is not None:
            receipt = inference.receipt.receipt
            stem = f"{receipt.instance[:16]}-{receipt.index:012d}"
            if name == "outputs":
                headers = _file_headers(f"{stem}.outputs.json")
                return StreamingResponse(json_parts(inference), media_type="application/json", headers=headers)
            given = {
                "receipt": (f"{stem}.receipt", inference.receipt.dump() + b"\n"),
                "request": (f"{stem}.receipt.request", inference.request),
                "response": (f"{stem}.receipt.response", inference.response),
            }
        if name not in given:
            raise Rejected.because("not_found", "file")
        shown, data = given[name]
        return Response(data, media_type="application/octet-stream", headers=_file_headers(shown))

    async def verified(self, request: Request) -> Response:
        """Return everything that was verified, check by check."""
        enclave, contract = self._asker.enclave(), await self._asker.contract()
        checks = [*enclave.checks, *(() if contract is None else contract.checks)]
        return self._shown(
            request,
            "verified.html",
            changes=self._asker.changes,
            contract=self._asker.contract_rows(contract),
            devices=[(device.name, check_groups(device.tee, device.checks)) for device in enclave.result.submodules],
            enclave=enclave,
            here="/verified",
            groups=check_groups(enclave.result.tee, checks),
            panel=await self._asker.panel(),
            pinned=self._asker.is_pinned(enclave),
            unruled=unruled(enclave.checks),
        )

    def refused(self, error: CloisterError, request: Request | None = None) -> Response:
        """Return the page that says no, without anything of the enclave."""
        if request is None:
            request = Request({"type": "http", "headers": [], "root_path": ""})
        status = _status(error)
        inside = bool(getattr(request.state, "visitor", None))
        page = self.site.render(
            request, "refused.html", now=self._asker.now(), status=status, told=told_of(error), inside=inside
        )
        page.headers.update(SAME_ORIGIN)
        if isinstance(error, Unavailable) and error.retry_after_s is not None:
            page.headers["retry-after"] = str(error.retry_after_s)
        return page

    async def _form(
        self, request: Request, model: str, *, error: CloisterError | None = None, filled: Form | None = None
    ) -> Response:
        info = await self._asker.info(model)
        return self._shown(
            request,
            "model.html",
            asked=questionnaire(info, self._limits),
            enclave=self._asker.enclave(),
            filled={} if filled is None else _refilled(filled),
            here=f"/models/{model}",
            info=info,
            limits=self._limits,
            panel=await self._asker.panel(),
            told=None if error is None else told_of(error),
            status=200 if error is None else _status(error),
        )

    def _shown(self, request: Request, template: str, *, status: int = 200, **values: object) -> Response:
        page = self.site.render(
            request,
            template,
            now=self._asker.now(),
            nav=self._nav(),
            status=status,
            token=visitor_of(request).form_token,
            **values,
        )
        page.headers.update(SAME_ORIGIN)
        return page

    def _nav(self) -> list[NavEntry]:
        try:
            models = self._asker.models()
        except CloisterError:  # not verified now: what was answered before is shown all the same
            models = ()
        entries = [NavEntry(path=f"/models/{name}", title=name) for name in models]
        return [*entries, NavEntry(path="/verified", title="What was verified", keys="g v")]

    async def _posted(self, request: Request) -> Form:
        return await take_form(request, self._bodies, self._door)

    def _own(self, request: Request) -> Question:
        return self._questions.find(visitor_of(request).id, str(request.path_params["id"]))

    def _to(self, request: Request, question: Question) -> Response:
        return RedirectResponse(f"{base_of(request)}/answers/{question.id}", status_code=303)


def _refilled(form: Form) -> dict[str, str]:
    """Return what was typed; browsers send lines with CR LF, and a page shows a bare CR as a mark that steers."""
    return {name: text.replace("\r\n", "\n") for name, text in form.texts.items()}


def _file_headers(name: str) -> dict[str, str]:
    return {
        "cache-control": "no-store",
        "content-disposition": f'attachment; filename="{name}"',
        "content-security-policy": "default-src 'none'; sandbox",
        "x-content-type-options": "nosniff",
    }


def _status(error: CloisterError) -> int:
    return status_of(error, STATUSES)
