"""Which custodian a request is for: THE place where tenants are kept apart (T79).

    /t/NAME/...   the tenant of exactly that name, its application as it is, with the path behind the prefix
    all else      the operator's API, which knows no tenant's content

The path is read as it was sent. What is found here is all that the request will ever meet: its application holds one
``CustodianService``, that one database and one vault, and knows of no other.
"""

from __future__ import annotations

import hashlib
from types import SimpleNamespace
from typing import TYPE_CHECKING

from starlette.responses import Response

from cloister.custodian.problems import PROBLEM_TYPE, problem
from cloister.custodian.tenants.admission import Admission
from cloister.custodian.tenants.names import split_path
from cloister.custodian.tenants.roster import Roster
from cloister.custodian.tenants.running import Running
from cloister.custodian.threads import run_in_threadpool
from cloister.errors import CloisterError
from cloister.serving.armour import Armour

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

    from cloister.custodian.config import Config
    from cloister.custodian.service import CustodianService
    from cloister.custodian.tenants.ground import Ground
    from cloister.custodian.tenants.keeping import Keeping
    from cloister.telemetry.listener import MetricsListener

__all__ = ["Host"]

_LONGEST_NAME = 32  # bytes
_OPERATORS_THREADS = 4  # none of them a tenant's: who looks after all is not kept waiting by one


class Host:
    """The ASGI application over all tenants and the operator's API."""

    def __init__(self, ground: Ground, book: CustodianService, keeping: Keeping) -> None:
        """Serve nobody yet: tenants come up with the server. ``book`` is the host's own custodian."""
        self._ground, self._book, self._keeping = ground, book, keeping
        self._admission = Admission(ground.config, ground.clock)
        self._roster: Roster | None = None
        self._operator: Running | None = None
        self.state = SimpleNamespace(streams=self)
        self.metrics: MetricsListener | None = None
        """Shows the metrics of the host's own custodian, and no tenant's; set before the server is up."""

    @property
    def book(self) -> CustodianService:
        """The host's own custodian."""
        return self._book

    @property
    def watching(self) -> list[Callable[[], object]]:
        """Who is told when other authorities are believed: the listener."""
        return self._ground.watching

    def client_authorities(self) -> str:
        """Return, as PEM, the authorities whose certificates callers may show: every tenant's, each for its own."""
        tenants = () if self._roster is None else self._roster.services()
        return "".join(service.client_authorities() for service in (self._book, *tenants))

    @property
    def config(self) -> Config:
        """The settings of the listener."""
        return self._ground.listener

    @property
    def url(self) -> str:
        """The base URL of the host."""
        return self._ground.url

    @url.setter
    def url(self, url: str) -> None:
        self._ground.url = url

    def close(self) -> None:
        """Close the host's own custodian where no server did: it never came up."""
        if self._operator is None:
            self._book.close()

    @property
    def stopping(self) -> bool:
        """Tell whether event streams are to end."""
        return False

    @stopping.setter
    def stopping(self, _value: bool) -> None:
        if self._roster is not None:
            self._roster.end_streams()
        if self._operator is not None:
            self._operator.end_streams()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live as long as the server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            try:
                await self._answer(scope, receive, send)
            except CloisterError as error:
                status, body, headers = problem(error)
                refusal = Response(body, status_code=status, headers=headers, media_type=PROBLEM_TYPE)
                await Armour(refusal, tls=self._ground.listener.tls)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pick the custodian. Raises ``CloisterError`` before anything was answered, never afterwards."""
        raw: bytes = scope["raw_path"]
        named = split_path(raw)
        if named is None:
            await self._of_the_operator().answer(raw, scope, receive, send)
            return
        name, rest = named
        with self._admission.place(_counted(name)) as place:
            running, seen = await self._pick(name, scope)
            await running.answer(rest, seen, receive, place.watching(send))

    async def _pick(self, name: bytes, scope: Scope) -> tuple[Running, Scope]:
        """Return the one custodian that this request may meet, and the request as it may see it."""
        roster = self._of_tenants()
        tenant = roster.find(name)
        if tenant is None:
            return roster.nobody, _apart(scope, name)
        return await roster.running(tenant, self._ground.config.start_wait_s), scope

    def _of_the_operator(self) -> Running:
        if self._operator is None:
            raise AssertionError  # pragma: no cover - the server answers nothing before it is up
        return self._operator

    def _of_tenants(self) -> Roster:
        if self._roster is None:
            raise AssertionError  # pragma: no cover - the same
        return self._roster

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._start()
        except CloisterError as exc:
            await send({"type": "lifespan.startup.failed", "message": exc.message})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self) -> None:
        from cloister.custodian.tenants.operator_http import operator_routes  # noqa: PLC0415 - no circle

        self._roster = Roster(self._ground)
        self._keeping.attend(self._roster)
        await self._roster.open(await run_in_threadpool(self._keeping.take_stock))
        routes = operator_routes(self._keeping)
        self._operator = Running(self._book, routes, threads=_OPERATORS_THREADS, metrics=self.metrics, pages=False)
        await self._operator.start()

    async def _stop(self) -> None:
        if self._roster is not None:
            await self._roster.close()
        if self._operator is not None:
            await self._operator.stop(self._ground.listener.shutdown_grace_s)


def _counted(name: bytes) -> bytes:
    """Return what stands for a name where requests are counted: no more than the longest that somebody could have."""
    return name if len(name) <= _LONGEST_NAME else hashlib.sha256(name).digest()


def _apart(scope: Scope, name: bytes) -> Scope:
    """Return a stranger's request so that its failures are counted for this name alone, as a tenant's would be."""
    address, port = scope.get("client") or ("unknown", 0)
    mark = hashlib.sha256(name).hexdigest()[:16]
    return {**scope, "client": (f"{address.partition('%')[0]}/{mark}", port)}
