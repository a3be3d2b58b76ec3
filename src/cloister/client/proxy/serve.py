"""Running a proxy: HTTP, and gRPC where that is wished, until a signal comes, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import uvicorn

from cloister.client.proxy.address import Address, listening
from cloister.client.proxy.app import ProxyApp
from cloister.client.proxy.gate import Gate
from cloister.client.proxy.metrics import ProxyMetrics
from cloister.errors import UsageError
from cloister.journal import EventLog, libraries_to
from cloister.listener import Server, impatient
from cloister.stopping import stop_signals
from cloister.telemetry.listener import MetricsListener

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from cloister.client.proxy.limits import Limits
    from cloister.client.proxy.upstream import Upstream
    from cloister.telemetry.listener import MetricsPlace

__all__ = ["demand_grpc", "serve_proxy"]

_GRACE_S = 5
_LOG = EventLog(lambda: datetime.now(UTC))


async def serve_proxy(
    upstream: Upstream,
    where: Address | Path,
    *,
    token: str | None,
    limits: Limits,
    on_listening: Callable[[str, str | None], None],
    grpc: Address | Path | None = None,
    metrics: MetricsPlace | None = None,
) -> None:
    """Serve a verified ``upstream`` until a stop signal, over gRPC too where that is given a place.

    ``token`` is demanded at addresses, which everybody on this machine can reach, and not at sockets.
    ``on_listening`` is told the URL and the gRPC target, once both places are ours. ``metrics`` is where those are
    shown, None for nowhere. Raises ``Unavailable`` and ``UsageError`` where a place is not ours.
    """
    stop = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(libraries_to(_LOG))  # their lines name what a program sent
        listener = stack.enter_context(listening(where))
        stack.enter_context(stop_signals(stop))
        target = await stack.enter_async_context(_calls(upstream, grpc, token, limits))
        hosts = (str(where).rpartition(":")[0],) if isinstance(where, Address) else ()
        counts = await stack.enter_async_context(_shown(upstream, metrics))
        app = ProxyApp(upstream, _gate(where, token, hosts), limits, counts)
        server = Server(_uvicorn_config(app, limits))
        verifying = asyncio.create_task(upstream.keep_verified())
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        on_listening(_url(where, listener), target)
        ended = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((serving, verifying, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            server.should_exit = True
            verifying.cancel()
            ended.cancel()
            await serving


def demand_grpc() -> None:
    """Raise ``UsageError`` where the libraries of the extra are not there."""
    try:
        for name in ("grpc", "google.protobuf"):
            importlib.import_module(name)
    except ImportError as exc:
        msg = "grpc: grpcio and protobuf are not installed"
        raise UsageError(msg, hint="pip install 'cloister[grpc]'") from exc


def _gate(where: Address | Path, token: str | None, hosts: tuple[str, ...] = ()) -> Gate:
    """Return the gate of one place. Raises ``UsageError`` for an address without a token."""
    if not isinstance(where, Address):
        return Gate(None)
    if token is None:
        msg = "proxy: an address wants a local token"
        raise UsageError(msg)
    return Gate(token, hosts=hosts)


@contextlib.asynccontextmanager
async def _shown(upstream: Upstream, place: MetricsPlace | None) -> AsyncIterator[ProxyMetrics | None]:
    """Show metrics while the block runs, where a place is given for them."""
    if place is None:
        yield None
        return
    counts = ProxyMetrics()

    async def measure() -> None:
        counts.measure(upstream)

    async with MetricsListener(place, counts, measure):
        yield counts


@contextlib.asynccontextmanager
async def _calls(
    upstream: Upstream, where: Address | Path | None, token: str | None, limits: Limits
) -> AsyncIterator[str | None]:
    """Serve gRPC while the block runs, where a place is given for it."""
    if where is None:
        yield None
        return
    demand_grpc()
    from cloister.client.proxy.grpc.listen import grpc_listening  # noqa: PLC0415 - of an extra

    async with grpc_listening(upstream, where, gate=_gate(where, token), limits=limits) as target:
        yield target


def _uvicorn_config(app: ProxyApp, limits: Limits) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        access_log=False,
        h11_max_incomplete_event_size=limits.max_head_bytes,
        http=impatient(limits.patience_s, places=limits.max_connections),
        lifespan="off",
        limit_concurrency=limits.max_connections,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        ws="none",
    )


def _url(where: Address | Path, listener: socket.socket) -> str:
    if not isinstance(where, Address):
        return f"unix:{where}"
    return f"http://{Address(where.host, listener.getsockname()[1])}"
