"""The HTTP face: bytes to calls, calls to use cases, errors to problem documents.

Every route comes from the table in ``routes``; a path, method or role that is not there does not exist.
A body is bounded before it is read, a token proven before anything is parsed, a stranger's failed
tries are counted in bounded memory. Not done here: TLS and sockets (``serve``).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Mount
from starlette.routing import Route as StarletteRoute

from cloister.custodian.admitting import ASK_AGAIN, Limits, admit, demand_role
from cloister.custodian.calls import NOBODY, Call, Wanted
from cloister.custodian.dashboard import UI, dashboard
from cloister.custodian.events import EventStream, follow, stream_parameters
from cloister.custodian.logs import LOG, Event
from cloister.custodian.openapi import openapi_document
from cloister.custodian.peer_certificate import certificates_of, peer_certificate
from cloister.custodian.peers import demand_peer, peer_mode
from cloister.custodian.presented import Presented
from cloister.custodian.problems import PROBLEM_TYPE, problem, problem_json
from cloister.custodian.proposals_http import carry_out
from cloister.custodian.routes import ROUTES
from cloister.custodian.threads import run_in_threadpool
from cloister.errors import CloisterError, Malformed, Rejected
from cloister.serving.armour import Armour
from cloister.telemetry.spans import spanned
from cloister.wire import dump_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from cloister.custodian.calls import Reply, Route
    from cloister.custodian.service import CustodianService
    from cloister.custodian.tokens import Actor
    from cloister.telemetry.listener import MetricsListener

__all__ = ["Armour", "create_app"]

_MAX_QUERY_BYTES = 4096
_READS = frozenset({"GET", "HEAD"})
_CONDITIONS = ("if-match", "if-unmodified-since")
NO_MOUNTS: Mapping[str, ASGIApp] = MappingProxyType({})
"""Nothing beside the custodian itself."""
_SERVER_ERROR = 500
_LOOK_EVERY_S = 0.5  # seconds between two looks at what others logged


def create_app(
    service: CustodianService,
    routes: Sequence[Route] = ROUTES,
    *,
    mounts: Mapping[str, ASGIApp] = NO_MOUNTS,
    pages: bool = True,
) -> Starlette:
    """Return the ASGI application over ``service``, with sweep and looks running while it is up.

    ``routes`` are the whole API; ``mounts`` are other applications by the path that they are below; ``pages``: the
    dashboard too, where the settings have it. The application does not close the service: whoever opened it does.
    """
    limits = Limits(service)
    beside: Mapping[str, ASGIApp] = {UI: dashboard(service, limits)} if service.config.dashboard and pages else {}
    service.context.metrics.grow("route", [f"{route.method} {route.path}" for route in routes])
    service.openapi = functools.cache(lambda: dump_json(openapi_document(routes)))  # made when it is first asked for

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        works = (_sweep(service), _look(service), _keep_up(service), _fetch(service))
        tasks = [asyncio.create_task(work) for work in works]
        shown: MetricsListener | None = app.state.metrics
        try:
            async with shown or contextlib.nullcontext():
                yield
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    app = Starlette(
        routes=[
            *(_starlette_route(service, limits, route) for route in routes),
            *(Mount(path, app) for path, app in {**beside, **mounts}.items()),
        ],
        middleware=[Middleware(Armour, tls=service.config.tls)],
        exception_handlers={HTTPException: _plain_problem},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.streams = limits.streams
    app.state.metrics = None
    return app


async def _sweep(service: CustodianService) -> None:
    """Write off dead instances, rotate keys that are due, look for alarms."""
    while True:
        await asyncio.sleep(service.config.sweep_interval_s)
        await _turn(service.sweep, Event.SWEEP_FAILED)
        await _turn(service.rotate_due, Event.ROTATION_FAILED)
        await _turn(service.watch.keep, Event.WATCH_FAILED)


async def _keep_up(service: CustodianService) -> None:
    """Do what keeps the server itself good, certificates first."""
    while True:
        for work in service.upkeep:
            await _turn(work, Event.UPKEEP_FAILED)
        await asyncio.sleep(service.config.sweep_interval_s)


async def _fetch(service: CustodianService) -> None:
    """Fetch issuers' keys that are due."""
    while True:
        await asyncio.sleep(service.config.sweep_interval_s)
        await _turn(service.identities.refresh, Event.KEYS_NOT_FETCHED)


async def _look(service: CustodianService) -> None:
    """Take in what other custodians over the same database log, so that who follows the log here sees it."""
    while service.context.store.shared:
        await asyncio.sleep(_LOOK_EVERY_S)
        await _turn(service.context.refresh, Event.LOG_NOT_FOLLOWED)


async def _turn(work: Callable[[], object], failed: Event) -> None:
    """Do one piece of what is done again and again; whatever goes wrong is told, and tried again at the next turn."""
    try:
        await run_in_threadpool(work)
    except Exception as exc:  # noqa: BLE001 - what nobody foresaw must not make this turn the last one
        LOG.write(failed, error=type(exc).__name__)


def _starlette_route(service: CustodianService, limits: Limits, route: Route) -> StarletteRoute:
    metrics, name = service.context.metrics, f"{route.method} {route.path}"
    about = {"http.request.method": route.method, "http.route": route.path}

    async def endpoint(request: Request) -> Response:
        begun = time.perf_counter()
        with spanned(service.context.spans, name, about) as span:
            response = await answered(request)
            span.note({"http.response.status_code": response.status_code})
            if response.status_code >= _SERVER_ERROR:
                span.note({"error.type": str(response.status_code)})
        if not route.stream:
            metrics.observe("cloister_custodian_request_seconds", time.perf_counter() - begun, name)
        metrics.add("cloister_custodian_requests_total", label=(name, f"{response.status_code // 100}xx"))
        return response

    async def answered(request: Request) -> Response:
        try:
            return await _answer(service, limits, route, request)
        except CloisterError as error:
            return _error_response(error, service)
        except Exception as error:  # noqa: BLE001 - the server's edge: a bug of ours must not become an answer
            LOG.write(Event.INTERNAL_ERROR, route=route.handler.__name__, error=type(error).__name__)
            return _problem_response(500, problem_json(500, "internal", "internal error"), {})

    path = route.path.removesuffix("}") + ":path}" if route.deep else route.path
    return StarletteRoute(path, endpoint, methods=[route.method], name=route.handler.__name__)


async def _answer(service: CustodianService, limits: Limits, route: Route, request: Request) -> Response:
    """Return the answer to one request: who, may they, by which certificate, how often, what, do it."""
    actor = NOBODY if route.roles is None else await admit(service, limits, request, _presented(request))
    await run_in_threadpool(demand_role, service, actor, route)
    await _demand_peer(service, route, actor, request)
    _demand_unconditional(request)
    once_key = _once_key(request, route)
    if route.limited:
        limits.demand(actor, request, service.context.now())
    call = Call(
        service=service,
        actor=actor,
        method=request.method,
        path=request.url.path,
        parameters={name: str(value) for name, value in request.path_params.items()},
        query=_query(request),
        body=await limits.bodies.read(request, route.body),
        once_key=once_key,
        accept=request.headers.get("accept", ""),
        certificate=peer_certificate(request.scope) if route.wanted is Wanted.HOST else None,
    )
    reply = await run_in_threadpool(carry_out, route, call)
    if route.stream:
        return _stream(service, limits, call, reply, lambda: _demand_again(service, route, request))
    return _response(reply)


async def _demand_peer(service: CustodianService, route: Route, actor: Actor, request: Request) -> None:
    """Hold the certificate of the connection against route, path and token, where one is wanted."""
    if peer_mode(service.config, route) != "off":
        parameters = {name: str(value) for name, value in request.path_params.items()}
        shown = peer_certificate(request.scope)
        await run_in_threadpool(demand_peer, service, route, actor, parameters, shown)


def _presented(request: Request) -> Presented:
    """Return what the request shows of its sender. A header that is there twice is not there."""
    proofs = request.headers.getlist("dpop")
    return Presented(
        authorization=request.headers.get("authorization"),
        proof=" ".join(proofs) if proofs else None,
        method=request.method,
        path=request.url.path,
        certificates=certificates_of(request.scope),
    )


def _demand_unconditional(request: Request) -> None:
    """Refuse a change that is to depend on an entity tag: nothing here has one (RFC 9110 section 13.1.1)."""
    if request.method not in _READS and any(header in request.headers for header in _CONDITIONS):
        raise Rejected.because("precondition_failed", "request", got="a condition", want="none: nothing has a tag here")


def _once_key(request: Request, route: Route) -> str | None:
    """Return the Idempotency-Key; two of them are none that is well formed. What only reads needs none.

    Raises ``Rejected`` (``idempotency_unsupported``) for a change that would not keep what the key asks for.
    """
    keys = request.headers.getlist("idempotency-key")
    if not keys or route.again is None:
        return None
    if not route.once:
        raise Rejected.because("idempotency_unsupported", "idempotency-key", hint="send it without the header")
    return " ".join(keys)


def _query(request: Request) -> dict[str, str]:
    """Return the query's parameters, each once."""
    if len(request.url.query) > _MAX_QUERY_BYTES:
        msg = f"query: {len(request.url.query)} characters, want at most {_MAX_QUERY_BYTES}"
        raise Malformed(msg)
    items = request.query_params.multi_items()
    if len({name for name, _ in items}) != len(items):
        msg = "query: a parameter twice"
        raise Malformed(msg)
    return dict(items)


def _demand_again(service: CustodianService, route: Route, request: Request) -> None:
    """Prove that who reads a stream still may: its token may have ended since, and its certificate."""
    actor = service.authenticate(_presented(request), again=True)
    demand_peer(service, route, actor, {}, peer_certificate(request.scope))


def _stream(
    service: CustodianService, limits: Limits, call: Call, reply: Reply, demand: Callable[[], object]
) -> Response:
    loan, after = stream_parameters(call)
    events = follow(service, limits.streams, loan, after, demand=demand)
    response = EventStream(events, media_type=reply.media_type)
    response.streams = limits.streams
    limits.streams.enter()
    return response


def _response(reply: Reply) -> Response:
    return Response(reply.body, status_code=reply.status, media_type=reply.media_type)


def _error_response(error: CloisterError, service: CustodianService) -> Response:
    status, body, headers = problem(error)
    if isinstance(error, Rejected) and error.code == ASK_AGAIN:
        headers["DPoP-Nonce"] = service.proofs.nonce(service.context.now())
    return _problem_response(status, body, headers)


def _problem_response(status: int, body: bytes, headers: dict[str, str]) -> Response:
    return Response(body, status_code=status, headers=headers, media_type=PROBLEM_TYPE)


async def _plain_problem(_request: Request, error: Exception) -> Response:
    """Answer what the router refuses: no such path, no such method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "refused")
    return _problem_response(status, problem_json(status, code, code.replace("_", " ")), {})
