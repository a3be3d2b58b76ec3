"""Running a custodian: socket, TLS, signals, and an orderly end.

TLS 1.3 (or 1.2) from the home's own certificate or another's, changed without a restart when its files change, and at
once on SIGHUP; no access log, for paths name loans and instances;
no header that says which software this is. A client that does not get its request out is dropped, for
places are few and the stop of a loan must find one (T82). On SIGINT and SIGTERM event streams end, running requests
get ``shutdown_grace_s`` seconds, then the stop is logged and the lock let go.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn

from cloister import __version__
from cloister.custodian.acme import Acme
from cloister.custodian.app import NO_MOUNTS, create_app
from cloister.custodian.config import is_address
from cloister.custodian.footprint import fit_process
from cloister.custodian.live_tls import LiveTls, ServerFiles
from cloister.custodian.logs import LOG
from cloister.custodian.threads import run_in_threadpool
from cloister.custodian.tls import write_server_certificate
from cloister.errors import Unavailable
from cloister.heap import settle_heap
from cloister.journal import libraries_to
from cloister.listener import impatient
from cloister.telemetry.listener import MetricsListener, parse_metrics_place, read_metrics_token

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from types import FrameType

    from starlette.applications import Starlette
    from starlette.types import ASGIApp

    from cloister.custodian.config import Config
    from cloister.custodian.service import CustodianService
    from cloister.custodian.tenants.host import Host

__all__ = ["bind", "prepare_tls", "serve_custodian", "serve_host"]

_MAX_HEADER_BYTES = 32 * 1024  # bytes of a request's line and headers
_KEEP_ALIVE_S = 75  # longer than an enclave keeps its own (custodian_link), which asks every T/3
_BACKLOG = 512


class _Server(uvicorn.Server):
    """Ends event streams as soon as a stop signal comes, so that the graceful shutdown can finish."""

    def __init__(self, config: uvicorn.Config, app: Starlette | Host) -> None:
        super().__init__(config)
        self._streams = app.state.streams

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal."""
        self._streams.stopping = True
        super().handle_exit(sig, frame)


def bind(config: Config) -> socket.socket:
    """Return the listening socket. Raises ``Unavailable`` when the port is taken."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # so named, asyncio sends at once
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host, config.port))
        listener.listen(_BACKLOG)  # who connects from now on waits for us instead of being refused
    except OSError as exc:
        listener.close()
        msg = f"listen: {config.host} port {config.port}: {exc.strerror}"
        raise Unavailable(msg, hint="choose another port, or stop what listens there") from exc
    return listener


def serve_custodian(
    service: CustodianService,
    *,
    home: Path,
    mounts: Mapping[str, ASGIApp] = NO_MOUNTS,
    on_listening: Callable[[str], None] | None = None,
) -> None:
    """Serve until a stop signal; closes the service. ``on_listening`` is told the URL once the port is ours.

    ``mounts`` are applications beside the custodian's own, by the path that they are below.
    """

    def application(url: str) -> Starlette:
        service.url = url
        app = create_app(service, mounts=mounts)
        app.state.metrics = _metrics(service, home)
        return app

    with libraries_to(LOG), _signals_end_here() as stop, contextlib.closing(service), _tracing(service):
        tls = prepare_tls(service, home, service.client_authorities)
        _listen(service.config, application, tls, stop, on_listening)


def serve_host(host: Host, *, home: Path, on_listening: Callable[[str], None] | None = None) -> None:
    """Serve a host and its tenants until a stop signal; closes all of them."""

    def application(url: str) -> Host:
        host.url = url
        host.metrics = _metrics(host.book, home)
        return host

    with libraries_to(LOG), _signals_end_here() as stop, contextlib.closing(host), _tracing(host.book):
        tls = prepare_tls(host.book, home, host.client_authorities)
        if tls is not None:
            host.watching.append(tls.refresh)
        _listen(host.config, application, tls, stop, on_listening)


def _listen(
    config: Config,
    application: Callable[[str], Starlette | Host],
    tls: LiveTls | None,
    stop: _Stop,
    on_listening: Callable[[str], None] | None,
) -> None:
    """Serve the application that is made for our URL once the port is ours."""
    fit_process(config.connections)
    with contextlib.closing(bind(config)) as listener:
        url = config.public_url(listener.getsockname()[1])
        app = application(url)
        stop.tls = tls
        stop.server = _Server(_uvicorn_config(config, app, tls), app)
        if on_listening is not None:
            on_listening(url)
        settle_heap()
        if not stop.asked:
            stop.server.run(sockets=[listener])


@contextlib.contextmanager
def _tracing(service: CustodianService) -> Iterator[None]:
    """Send spans while the block runs, where the settings name a collector. Raises ``UsageError``."""
    config = service.config
    if not config.traces:
        yield
        return
    from cloister.telemetry.otlp import OtlpSpans, parse_traces_place  # noqa: PLC0415 - of an extra

    place = parse_traces_place(config.traces, config.traces_percent)
    service.context.spans = OtlpSpans(place, service="cloister-custodian", version=__version__)
    try:
        yield
    finally:
        service.context.spans.close()
        service.context.spans = None


def _metrics(service: CustodianService, home: Path) -> MetricsListener | None:
    """Return what shows metrics, None where the settings name no place. Raises ``UsageError``."""
    config = service.config
    if not config.metrics:
        return None
    token = read_metrics_token(home / config.metrics_token_file) if config.metrics_token_file else None

    async def measure() -> None:
        await run_in_threadpool(service.watch.measure)

    return MetricsListener(parse_metrics_place(config.metrics, token), service.metrics, measure)


@dataclass(slots=True)
class _Stop:
    """Whether somebody asked for the end, and the server to tell of it; and whose certificate to look at anew."""

    asked: bool = False
    server: _Server | None = None
    tls: LiveTls | None = None

    def reload(self, _signal: int, _frame: FrameType | None) -> None:
        """Look at the certificate now: in a thread, for a signal may come while somebody looks already."""
        if self.tls is not None:
            threading.Thread(target=self.tls.refresh, daemon=True).start()

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        """Note a signal that came before the server listens for its own, or that it raises again behind its end."""
        self.asked = True
        if self.server is not None:
            self.server.should_exit = True


@contextlib.contextmanager
def _signals_end_here() -> Iterator[_Stop]:
    """Let a stop signal end the server, not the process: the stop is still to be logged, from the first moment on."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals are the main thread's; elsewhere nobody raises one
        return
    before = {sig: signal.signal(sig, stop) for sig in (signal.SIGINT, signal.SIGTERM)}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, stop.reload)
    try:
        yield stop
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)


def prepare_tls(service: CustodianService, home: Path, authorities: Callable[[], str]) -> LiveTls | None:
    """Return what the listener shows and believes, None where it serves no TLS; ``upkeep`` keeps it good from now on.

    ``authorities`` says, as PEM, whose certificates callers may show. Raises ``UsageError`` and ``Rejected`` where
    there is no certificate that can be used.
    """
    config = service.config
    if not config.tls:
        return None
    if config.tls_certificate:
        own = ServerFiles(certificate=home / config.tls_certificate, key=home / config.tls_key)
    else:
        own = ServerFiles(certificate=home / "tls" / "server.pem", key=home / "tls" / "server.key")
        authority = service.context.vault.tls_authority_key

        def renew() -> None:
            write_server_certificate(home / "tls", authority, names=config.names, now=service.context.now())

        service.upkeep.append(renew)
    acme = _acme(service, home)
    if acme is not None:
        service.upkeep.append(acme.keep)

    def files() -> ServerFiles:
        if acme is not None and acme.is_good:
            return ServerFiles(certificate=acme.place, key=acme.place)
        return own

    service.keep_certificates()
    tls = LiveTls(files=files, minimum=config.tls_minimum, clock=service.context.now, authorities=authorities)
    service.upkeep.append(tls.refresh)
    service.certificates.watching.append(tls.refresh)
    return tls


def _acme(service: CustodianService, home: Path) -> Acme | None:
    """Return what gets certificates by ACME, where the settings name whom from."""
    config = service.config
    if not config.acme_directory:
        return None
    host, _, port = config.acme_http.rpartition(":")
    return Acme(
        directory=config.acme_directory,
        names=tuple(name for name in config.names if not is_address(name)),
        folder=home / "tls",
        answer_at=(host, int(port)),
        contact=config.acme_contact,
        clock=service.context.now,
        ca=home / config.acme_ca if config.acme_ca else None,
    )


def _uvicorn_config(config: Config, app: Starlette | Host, tls: LiveTls | None) -> uvicorn.Config:
    def context(_config: uvicorn.Config, _default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        return tls.context if tls is not None else _default()

    return uvicorn.Config(
        app,
        access_log=False,
        date_header=True,
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        http=impatient(config.request_timeout_s, places=config.connections),
        limit_concurrency=config.connections,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        ssl_context_factory=context if tls is not None else None,
        timeout_graceful_shutdown=config.shutdown_grace_s,
        timeout_keep_alive=_KEEP_ALIVE_S,
        ws="none",
    )
