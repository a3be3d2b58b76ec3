"""The door before an application: who is not let in never gets to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from cloister.errors import CloisterError, Rejected
from cloister.serving.door import COOKIE, FORM_TOKEN, Door, Visitor
from cloister.serving.forms import Form, parse_form

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from cloister.serving.bodies import Bodies

__all__ = ["SAME_ORIGIN", "DoorGuard", "take_form", "visitor_of"]

SAME_ORIGIN = {"referrer-policy": "same-origin"}
"""For every page with a form: without it a browser hides from us whose the form is."""

_ENTER = "/enter/"
_ASSETS = "/assets/"
_READS = frozenset({"GET", "HEAD"})


class DoorGuard:
    """Passes on what may come in, mounted at the door's prefix and with its visitor; the rest is refused.

    What lies below ``/assets/`` is for everybody, so that the page that refuses looks like one: it is no secret.
    """

    def __init__(self, app: ASGIApp, *, door: Door, secure: bool, refused: Callable[[CloisterError], Response]) -> None:
        """Stand before ``app``; ``secure`` where browsers come over TLS, ``refused`` makes the page that says no."""
        self._app, self._door, self._refused = app, door, refused
        self._attributes = f"; Path={door.prefix}/; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let in one request, or refuse it."""
        if scope["type"] != "http":
            return
        try:
            self._door.demand_host(Request(scope).headers.getlist("host"))
            if scope["path"].startswith(_ASSETS) and scope["method"] in _READS:
                await self._app(scope, receive, send)
                return
            inner = self._inner(scope)
            if inner.startswith(_ENTER) and not self._door.is_open:
                await self._entered(inner.removeprefix(_ENTER), scope["method"])(scope, receive, send)
                return
            cookie, visitor = self._visitor(scope)
        except CloisterError as error:
            await self._refused(error)(scope, receive, send)
            return
        state = {**scope.get("state", {}), "visitor": visitor}
        passed = {**scope, "root_path": self._door.prefix, "state": state}
        await self._app(passed, receive, send if cookie is None else self._with_cookie(send, cookie))

    def _inner(self, scope: Scope) -> str:
        """Return the path behind the door. Raises ``Rejected`` for every other."""
        path = str(scope["path"])
        if not path.startswith(f"{self._door.prefix}/"):
            raise Rejected.because("not_found", "path", hint="open the link that the terminal shows")
        return path[len(self._door.prefix) :]

    def _entered(self, secret: str, method: str) -> Response:
        if method != "GET":
            raise Rejected.because("method_not_allowed", "method", want="GET")
        cookie = self._door.enter(secret)
        answer = RedirectResponse(f"{self._door.prefix}/", status_code=303)
        answer.headers["set-cookie"] = f"{COOKIE}={cookie}{self._attributes}"
        return answer

    def _visitor(self, scope: Scope) -> tuple[str | None, Visitor]:
        """Return who comes, with the cookie of who is new. Raises ``Rejected`` (``signed_out``, ``form_foreign``)."""
        headers = Request(scope).headers
        if scope["method"] not in _READS:
            self._door.demand_own(
                host=headers.get("host", ""),
                origins=headers.getlist("origin"),
                site=headers.get("sec-fetch-site", ""),
            )
        try:
            return None, self._door.visitor("; ".join(headers.getlist("cookie")))
        except Rejected:
            if not self._door.is_open or scope["method"] not in _READS:
                raise
            return self._door.welcome()

    def _with_cookie(self, send: Send, cookie: str) -> Send:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                line = f"{COOKIE}={cookie}{self._attributes}".encode("ascii")
                message = {**message, "headers": [*message.get("headers", []), (b"set-cookie", line)]}
            await send(message)

        return sent


def visitor_of(request: Request) -> Visitor:
    """Return who came in."""
    found: Visitor = request.state.visitor
    return found


async def take_form(request: Request, bodies: Bodies, door: Door) -> Form:
    """Return a form that this visitor was given. Raises ``Rejected``, ``Malformed``."""
    form = parse_form(await bodies.read(request), request.headers.get("content-type", ""))
    door.demand_token(visitor_of(request), form.text(FORM_TOKEN))
    return form
