"""A custodian while a host serves it: its application, its threads, its requests under way, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from urllib.parse import unquote

from anyio import CapacityLimiter

from cloister.custodian.app import NO_MOUNTS, create_app
from cloister.custodian.dashboard.desk import BELOW
from cloister.custodian.logs import LOG, Event
from cloister.custodian.tenants.beside import veiled
from cloister.custodian.threads import run_in_threadpool, working_with

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

    from cloister.custodian.calls import Route
    from cloister.custodian.service import CustodianService
    from cloister.custodian.tenants.beside import Beside
    from cloister.telemetry.listener import MetricsListener

__all__ = ["Running"]


class Running:
    """One custodian and its application. Made on the event loop that serves it."""

    def __init__(
        self,
        service: CustodianService,
        routes: Sequence[Route],
        *,
        threads: int,
        metrics: MetricsListener | None = None,
        beside: Beside | None = None,
        pages: bool = True,
    ) -> None:
        """Serve nothing yet. ``stop`` closes the service and what is ``beside``; ``metrics`` are shown until then."""
        self.service = service
        self._beside = beside
        self._app = create_app(service, routes, mounts=_mounts(beside, hidden=service.discreet), pages=pages)
        self._app.state.metrics = metrics
        self._life = self._app.router.lifespan_context(self._app)
        self._share = CapacityLimiter(threads)
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> None:
        """Start what the application does by itself; it too works with this custodian's threads."""
        with working_with(self._share):
            await self._life.__aenter__()

    async def answer(self, path: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request for ``path``, which is spelled as it was sent. The application sees no other path."""
        raw: bytes = scope["raw_path"]
        below = raw[: len(raw) - len(path)].decode("latin-1")
        own = {**scope, "path": unquote(path.decode("latin-1")), "raw_path": path, "root_path": "", BELOW: below}
        self._under_way += 1
        self._idle.clear()
        try:
            with working_with(self._share):
                await self._app(own, receive, send)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    def end_streams(self) -> None:
        """Let event streams end: a stop must not wait for their readers."""
        self._app.state.streams.stopping = True

    async def stop(self, grace_s: float) -> None:
        """Let requests under way end, for so long; then log the stop and close the service.

        A request that is not done by then finds the database closed, and nothing is written for it.
        """
        self.end_streams()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), grace_s)
        if self._beside is not None:
            self._beside.close()
        with working_with(self._share):
            await self._life.__aexit__(None, None, None)
            try:
                await run_in_threadpool(self.service.close)
            except Exception as exc:  # noqa: BLE001 - an edge: its disk is full, say, and the others stop too
                LOG.write(Event.TENANT_STOP_UNLOGGED, tenant=self.service.home.name, error=type(exc).__name__)


def _mounts(beside: Beside | None, *, hidden: bool) -> Mapping[str, ASGIApp]:
    """Return what is below which path, for callers alone where the tenant is ``hidden``."""
    if beside is None:
        return NO_MOUNTS
    app = veiled(beside) if hidden else beside.app
    return NO_MOUNTS if app is None else {beside.path: app}
