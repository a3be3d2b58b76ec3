"""The HTTP face: bytes to requests, results to answers, errors to problem documents.

Every route comes from the table in ``routes``. In this order: 1. who asks, 2. how often, 3. the body, bounded before it
is read, 4. what it says, 5. a place to verify it.

The application keeps no state of its own and has no task beside requests, so that another server may mount it below a
path. Not done here: TLS and sockets (``serve``).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

from cloister.errors import CloisterError, Rejected
from cloister.serving.armour import Armour
from cloister.serving.bodies import Bodies, demand_media
from cloister.serving.problems import PROBLEM_TYPE, problem, problem_json
from cloister.verifier.logs import LOG, Event
from cloister.verifier.metrics import outcome_of
from cloister.verifier.openapi import openapi_document
from cloister.verifier.page import Pages
from cloister.verifier.problems import STATUSES
from cloister.verifier.requests import MAX_BODY_BYTES, parse_attest, parse_verify
from cloister.verifier.routes import FORM_TYPE, JSON_TYPE, ROUTES, TOKEN_TYPE
from cloister.wire import dump_b64u, dump_json, dump_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from cloister.verifier.callers import Callers
    from cloister.verifier.limits import Limits
    from cloister.verifier.metrics import VerifierMetrics
    from cloister.verifier.routes import Route
    from cloister.verifier.service import AttestationService
    from cloister.verifier.tokens import Issued
    from cloister.wire import Json

__all__ = ["create_app"]

_KEYS_FRESH = {"cache-control": "public, max-age=300"}  # shorter than the shortest time a key is published ahead


def create_app(
    service: AttestationService,
    *,
    callers: Callers,
    limits: Limits,
    metrics: VerifierMetrics,
    request_timeout_s: int,
    waiting_bytes: int,
    tls: bool,
) -> Starlette:
    """Return the ASGI application over ``service``; bodies that are not whole yet have ``waiting_bytes`` in all."""
    bodies = Bodies(within_s=request_timeout_s, cap=MAX_BODY_BYTES, waiting_bytes=waiting_bytes)
    handlers = _Handlers(service, callers, limits, metrics, bodies)
    app = Starlette(
        routes=[_starlette_route(handlers, route) for route in ROUTES],
        middleware=[Middleware(Armour, tls=tls)],
        exception_handlers={HTTPException: _plain_problem},
    )
    app.router.redirect_slashes = False
    return app


def _starlette_route(handlers: _Handlers, route: Route) -> StarletteRoute:
    handler = getattr(handlers, route.name)

    async def endpoint(request: Request) -> Response:
        answer = await answered(request)
        label = (route.name, f"{answer.status_code // 100}xx")
        handlers.metrics.add("cloister_attestation_requests_total", label=label)
        return answer

    async def answered(request: Request) -> Response:
        try:
            caller = await handlers.known(request) if route.known else ""
            return await handler(request, caller)  # type: ignore[no-any-return]  # every handler returns one
        except CloisterError as error:
            return _problem_response(*problem(error, STATUSES))
        except Exception as error:  # noqa: BLE001 - the server's edge: a bug of ours must not become an answer
            LOG.write(Event.INTERNAL_ERROR, route=route.path, error=type(error).__name__)
            return _problem_response(500, problem_json(500, "internal", "internal error"), {})

    return StarletteRoute(route.path, endpoint, methods=[route.method], name=route.name)


class _Handlers:
    """One coroutine for each route, by its name."""

    def __init__(
        self,
        service: AttestationService,
        callers: Callers,
        limits: Limits,
        metrics: VerifierMetrics,
        bodies: Bodies,
    ) -> None:
        self._service, self._callers, self._limits, self.metrics = service, callers, limits, metrics
        self._bodies = bodies
        self._openapi = dump_json(openapi_document(service.issuer, is_open=callers.is_open))
        self._discovery = dump_json(service.discovery())
        self._pages = Pages(service)

    async def known(self, request: Request) -> str:
        """Return who asks. A stranger's failures are counted by address."""
        address, now = _address(request), self._service.now()
        shown = request.headers.get("authorization")
        self._limits.failures.demand(address, now)
        try:
            return await self._limits.lookups.run(lambda: self._callers.known(shown, address))
        except Rejected as refusal:
            if refusal.code == "unauthenticated":
                self._limits.failures.spend(address, now)
            raise

    async def front(self, _request: Request, _caller: str) -> Response:
        """Return the form."""
        return self._pages.front()

    async def explain(self, request: Request, _caller: str) -> Response:
        """Explain what somebody pasted."""
        self._limits.pages.take(_address(request), self._service.now())
        demand_media(request, FORM_TYPE)
        body = await self._bodies.read(request)
        return await self._limits.page_places.run(lambda: self._pages.explain(body))

    async def result(self, request: Request, _caller: str) -> Response:
        """Explain a result that is kept."""
        self._limits.pages.take(_address(request), self._service.now())
        return self._pages.result(str(request.path_params["id"]))

    async def healthz(self, _request: Request, _caller: str) -> Response:
        """Say that the process answers."""
        return _json({"status": "ok"})

    async def readyz(self, _request: Request, _caller: str) -> Response:
        """Say whether it can sign and has a policy."""
        await self._limits.lookups.run(self._service.demand_ready)
        return _json({"status": "ready"})

    async def openapi(self, _request: Request, _caller: str) -> Response:
        """Return the API's document."""
        return Response(self._openapi, media_type=JSON_TYPE)

    async def discovery(self, _request: Request, _caller: str) -> Response:
        """Return the issuer's metadata."""
        return Response(self._discovery, media_type=JSON_TYPE, headers=_KEYS_FRESH)

    async def jwks(self, _request: Request, _caller: str) -> Response:
        """Return the issuer's keys."""
        keys = await self._limits.lookups.run(lambda: self._service.keys.jwks(self._service.now()))
        return Response(dump_json(keys), media_type="application/jwk-set+json", headers=_KEYS_FRESH)

    async def challenge(self, request: Request, caller: str) -> Response:
        """Return a nonce."""
        self._limits.take_challenge(caller, self._service.now())
        await self._bodies.read(request)
        nonce, end = self._service.challenge()
        return _json({"expires_at": dump_time(end), "nonce": dump_b64u(nonce)})

    async def attest(self, request: Request, caller: str) -> Response:
        """Return a result by the passport model."""
        return await self._answer(request, caller, "attest", lambda body: self._service.attest(parse_attest(body)))

    async def verify(self, request: Request, caller: str) -> Response:
        """Return a result by the background-check model."""
        return await self._answer(request, caller, "verify", lambda body: self._service.verify(parse_verify(body)))

    async def _answer(self, request: Request, caller: str, model: str, work: Callable[[bytes], Issued]) -> Response:
        self._limits.take_verification(caller, self._service.now())
        body = await self._bodies.read(request)
        demand_media(request, JSON_TYPE)
        issued = await self._counted(model, lambda: work(body))
        if TOKEN_TYPE in request.headers.get("accept", ""):
            return Response(issued.token, media_type=TOKEN_TYPE)
        return _json(
            {
                "expires_at": dump_time(issued.expires_at),
                "id": issued.id,
                "status": issued.tier.value,
                "token": issued.token,
            }
        )

    async def _counted(self, model: str, work: Callable[[], Issued]) -> Issued:
        """Verify in a place of its own, and count how it went and how long it took."""
        began, outcome = time.monotonic(), "failed"
        self.metrics.add("cloister_attestation_running")
        try:
            issued = await self._limits.places.run(work)
            outcome = issued.tier.value
        except Exception as error:
            outcome = outcome_of(error)
            raise
        else:
            return issued
        finally:
            self.metrics.add("cloister_attestation_running", -1)
            self.metrics.add("cloister_attestation_results_total", label=(model, outcome))
            self.metrics.observe("cloister_attestation_seconds", time.monotonic() - began, label=model)


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def _json(value: Json) -> Response:
    return Response(dump_json(value), media_type=JSON_TYPE)


def _problem_response(status: int, body: bytes, headers: dict[str, str]) -> Response:
    return Response(body, status_code=status, headers=headers, media_type=PROBLEM_TYPE)


async def _plain_problem(_request: Request, error: Exception) -> Response:
    """Answer what the router refuses: no such path, no such method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "refused")
    return _problem_response(status, problem_json(status, code, code.replace("_", " ")), {})
