"""One request of somebody who is signed in: what they may, what they ask routes for, and the page they get."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from starlette.responses import RedirectResponse, Response

from cloister.custodian.admitting import demand_role
from cloister.custodian.calls import Call
from cloister.custodian.dashboard.words import DONE
from cloister.custodian.peer_certificate import peer_certificate
from cloister.custodian.peers import demand_peer
from cloister.custodian.proposals_http import carry_out
from cloister.custodian.routes import ROUTES
from cloister.custodian.store.sessions import find_session_by_id
from cloister.errors import Malformed
from cloister.pages import PAGE_HEADERS
from cloister.wire import MAX_INT, dump_b64u, dump_json, lp, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from starlette.requests import Request

    from cloister.custodian.calls import Route
    from cloister.custodian.dashboard.desk import Desk
    from cloister.custodian.tokens import Actor
    from cloister.wire import Json

__all__ = ["Visit", "Who", "routed"]

_TABLE = {f"{route.method} {route.path}": route for route in ROUTES}
_ACCEPTED = 202
_MAX_UNITS_CHARS = 20
_MAX_SKIP_CHARS = 8
_ONCE_BYTES = 12
_HALF = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Who is signed in, as every page says it. ``until`` are the seconds that the session has left."""

    name: str
    role: str
    person: str | None
    until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A request whose session was proven. Made and used in a thread: it waits for the database."""

    desk: Desk
    request: Request
    actor: Actor
    who: Who
    now: datetime
    form_token: str = field(repr=False)
    form: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def begin(cls, desk: Desk, request: Request, actor: Actor, form_token: str, *, stay: bool) -> Visit:
        """Return the visit; ``stay``: somebody is there, so a session that is half over goes on."""
        context, now = desk.service.context, desk.service.context.now()
        with context.reading() as connection:
            row = find_session_by_id(connection, actor.session or "")
        expires = now if row is None else row.expires_at
        who = Who(
            name=actor.name, role=actor.role.value, person=actor.person, until=int((expires - now).total_seconds())
        )
        visit = cls(desk=desk, request=request, actor=actor, who=who, now=now, form_token=form_token)
        if stay and row is not None and now < row.renew_until and who.until * _HALF < context.config.session_ttl_s:
            visit.ask("POST /v1/sessions/renew", body={})
            with context.reading() as connection:
                row = find_session_by_id(connection, row.id) or row
            return replace(visit, who=replace(who, until=int((row.expires_at - now).total_seconds())))
        return visit

    def with_form(self, form: Mapping[str, str], *, actor: Actor | None = None) -> Visit:
        """Return the visit with what was sent, in the name of ``actor`` where that is the token itself."""
        return replace(self, form=form, actor=actor or self.actor)

    # asking

    def may(self, route: str) -> bool:
        """Tell whether the role of who is signed in may ask a route, ``METHOD /path`` as in the table."""
        roles = _TABLE[route].roles
        return roles is None or self.actor.role in roles

    def demand(self, route: str, /, **parameters: str) -> None:
        """Prove that who is signed in may ask a route, by role and certificate. Raises ``Rejected``; it is logged."""
        _demand(self.desk, self.request, self.actor, _TABLE[route], parameters)

    def ask(
        self, route: str, /, *, body: Json | None = None, query: Mapping[str, str] | None = None, **parameters: str
    ) -> Any:
        """Return what a route answers to who is signed in, as the API would. Raises what it raises."""
        return self._asked(route, body, query or {}, parameters)[0]

    def act(
        self, route: str, back: str, done: str, /, *, body: Json | None = None,
        query: Mapping[str, str] | None = None, **parameters: str,
    ) -> Response:  # fmt: skip
        """Do something by a route, once for each form, and lead on to ``back``, which says that it is ``done``.

        What waits for a second person leads to its proposal instead.
        """
        answer, status = self._asked(route, body, query or {}, parameters)
        if status == _ACCEPTED and isinstance(answer, dict) and isinstance(answer.get("proposal"), str):
            return self.go(f"/proposals/{answer['proposal']}", "proposed")
        return self.go(back, done)

    def _asked(
        self, name: str, body: Json | None, query: Mapping[str, str], parameters: Mapping[str, str]
    ) -> tuple[Any, int]:
        return routed(
            self.desk, self.request, self.actor, name, body=body, query=query, once=self.form.get("once", ""),
            **parameters,
        )  # fmt: skip

    # the form

    def units(self, name: str = "units") -> int:
        """Return a field that is a number of units; commas and blanks between its digits are what people write."""
        text = self.form.get(name, "").replace(",", "").replace(" ", "")
        if not text.isascii() or not text.isdigit() or len(text) > _MAX_UNITS_CHARS or int(text) > MAX_INT:
            msg = f"{name}: want a whole number, at most {MAX_INT:,}"
            raise Malformed(msg)
        return int(text)

    def rows_before(self, name: str = "skip") -> int:
        """Return how many rows of a list come before this page's. Raises ``Malformed``."""
        text = self.request.query_params.get(name, "0")
        if not text.isascii() or not text.isdigit() or len(text) > _MAX_SKIP_CHARS:
            msg = f"query: {name}: want a number"
            raise Malformed(msg)
        return int(text)

    def text(self, name: str) -> str:
        """Return a field's text, empty where there is none."""
        return self.form.get(name, "")

    def optional(self, *names: str) -> dict[str, Json]:
        """Return the fields that have something in them."""
        return {name: self.form[name] for name in names if self.form.get(name)}

    # answering

    def page(self, template: str, /, *, here: str, status: int = 200, live: bool = True, **values: object) -> Response:
        """Return a page. ``here`` is its entry in the navigation; a ``live`` one is told of changes."""
        desk = self.desk
        return desk.site.render(
            self.request,
            template,
            now=self.now,
            status=status,
            base=desk.base(self.request),
            here=here,
            live=f"{desk.base(self.request)}/live" if live else "",
            nav=[tab.entry for tab in desk.tabs if self.may(tab.route)],
            token=self.form_token,
            once=dump_b64u(os.urandom(_ONCE_BYTES)),
            who=self.who,
            may=self.may,
            done=DONE.get(self.request.query_params.get("done", ""), ""),
            **values,
        )

    def go(self, path: str, done: str = "") -> Response:
        """Lead on to a page of ours."""
        told = f"?done={done}" if done else ""
        return RedirectResponse(f"{self.desk.base(self.request)}{path}{told}", status_code=303, headers=PAGE_HEADERS)


def routed(
    desk: Desk, request: Request, actor: Actor, name: str, /, *, body: Json | None = None,
    query: Mapping[str, str] | None = None, once: str = "", **parameters: str,
) -> tuple[Any, int]:  # fmt: skip
    """Return what a route answers to ``actor``, and the status: what the API does behind its HTTP, and nothing less.

    ``once`` names a form, which is carried out once for each thing that it asks for.
    """
    route = _TABLE[name]
    _demand(desk, request, actor, route, parameters)
    path, content = route.path.format_map(parameters), b"" if body is None else dump_json(body)
    call = Call(
        service=desk.service, actor=actor, method=route.method, path=path, parameters=dict(parameters),
        query=dict(query or {}), body=content,
    )  # fmt: skip
    if once and route.once:
        call = replace(call, once_key=f"ui-{hashlib.sha256(lp(once.encode(), call.digest)).hexdigest()}")
    reply = carry_out(route, call)
    return parse_json(reply.body, what="answer"), reply.status


def _demand(desk: Desk, request: Request, actor: Actor, route: Route, parameters: Mapping[str, str]) -> None:
    """Prove that somebody may ask a route, by role and by certificate. Raises ``Rejected``; it is logged."""
    demand_role(desk.service, actor, route)
    demand_peer(desk.service, route, actor, parameters, peer_certificate(request.scope))
