"""Boot, serve, end: the life of an enclave process.

``serve`` returns when the instance has ended, for one of three reasons: asked to (SIGTERM, after draining),
stopped by the custodian, or without renewal for 2T. In each the models are unloaded and the keys dropped before
it returns, and the last count is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import uvloop

from cloister import __version__
from cloister.enclave.boot import boot
from cloister.enclave.clock import SystemClock
from cloister.enclave.custodian_link import CustodianLink
from cloister.enclave.engines.onnx import OnnxEngine
from cloister.enclave.file_link import FileLink
from cloister.enclave.hardening import demand_unswappable, harden
from cloister.enclave.instance import EnclaveInstance
from cloister.enclave.listener_tls import ListenerTls
from cloister.enclave.loanfile import read_loan_file
from cloister.enclave.logs import Event, EventLog
from cloister.enclave.measure import measure_software
from cloister.enclave.media import MediaFolder
from cloister.enclave.modes import Relays
from cloister.enclave.outer import Outer
from cloister.enclave.renew import Ending
from cloister.enclave.tls import prepare_tls
from cloister.enclave.web.listener import Listener
from cloister.errors import CloisterError, Rejected, UsageError
from cloister.heap import settle_heap
from cloister.journal import libraries_to
from cloister.lending.messages import Lease
from cloister.sealed.huge import memory_pages
from cloister.stopping import stop_signals
from cloister.telemetry.listener import MetricsListener, parse_metrics_place, read_metrics_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    import httpx2

    from cloister.enclave.clock import Clock
    from cloister.enclave.config import EnclaveConfig
    from cloister.enclave.custodian_link import Link
    from cloister.enclave.engines import Engine
    from cloister.enclave.evidence import EvidenceSource
    from cloister.enclave.loanfile import LoanFile
    from cloister.enclave.web.exchange import Application
    from cloister.telemetry.listener import MetricsPlace
    from cloister.telemetry.spans import Spans

__all__ = ["Ending", "Ready", "Surroundings", "serve", "serve_async"]

_LAST_ANSWERS_S = 1  # seconds that answers get which are being sent when all ends
_TICK_S = 0.5  # seconds between looks at the keyset
_BACKLOG = 512  # connections that wait to be accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What ``on_ready`` gets: where the enclave listens, who it is, and where its metrics are, None for nowhere."""

    url: str
    instance: EnclaveInstance
    metrics: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What an enclave finds around it, replaceable for tests and simulators."""

    clock: Clock
    log: EventLog
    transport: httpx2.AsyncBaseTransport | None = None
    engine: Engine | None = None
    application: Callable[[EnclaveInstance], Application] = Outer

    @classmethod
    def of_this_machine(cls) -> Surroundings:
        """Return the machine's clock, standard error and network."""
        clock = SystemClock()
        return cls(clock=clock, log=EventLog(clock.wall))


def serve(
    config: EnclaveConfig,
    source: EvidenceSource,
    *,
    on_ready: Callable[[Ready], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Ending:
    """Harden this process, boot, serve until the end.

    Raises ``UsageError``, ``Malformed``, ``Rejected``, ``Unavailable`` where it does not come to serving.
    """
    around = Surroundings.of_this_machine()
    measures = harden()
    for measure in measures:
        state = "achieved" if measure.achieved else "not_achieved"
        around.log.write(Event.HARDENED, step=measure.name, state=state)
    around.log.write(Event.MEMORY_PAGES, state=memory_pages())
    if config.require_unswappable:
        demand_unswappable(measures)

    def ready(found: Ready) -> None:
        settle_heap()
        if on_ready is not None:
            on_ready(found)

    with libraries_to(around.log):
        return uvloop.run(serve_async(config, source, around=around, on_ready=ready, progress=progress))


async def serve_async(
    config: EnclaveConfig,
    source: EvidenceSource,
    *,
    around: Surroundings,
    stop: asyncio.Event | None = None,
    on_ready: Callable[[Ready], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Ending:
    """Boot and serve until the end, or until ``stop`` is set. Raises as ``serve``; does not harden the process."""
    loan = read_loan_file(config.loan)
    software = measure_software(config)
    engine = around.engine or OnnxEngine(threads=config.engine_threads)
    tls = _listener_tls(config, around)
    shown, spans = _metrics_place(config), _spans(config)
    within = timedelta(seconds=config.limits.custodian_timeout_s)
    async with contextlib.AsyncExitStack() as stack:
        if spans is not None:
            stack.callback(spans.close)
        link = await stack.enter_async_context(_linked(config, loan, around))
        booted = await boot(
            config,
            loan,
            source=source,
            software=software,
            engine=engine,
            link=link,
            log=around.log,
            progress=progress,
            spans=spans,
        )
        instance = EnclaveInstance(
            booted,
            config,
            loan,
            source=source,
            engine=engine,
            link=link,
            clock=around.clock,
            log=around.log,
            spans=spans,
            tls=tls,
        )
        del booted  # the instance owns keys and models now, and drops them in ``wipe``
        run = _Run(instance=instance, config=config, tls=tls, around=around)
        try:
            if shown is not None:
                listener = MetricsListener(shown, instance.metrics, instance.measured)
                run.metrics = await stack.enter_async_context(listener)
            if link.is_online:
                await _begin(instance)
            if instance.listener is not None:
                await instance.listener.keep(within=within)
            await instance.publisher.tick()
            with _listening(config) as place:
                return await run.until_end(place, stop or asyncio.Event(), on_ready)
        finally:
            await _end(instance, around.log)


@contextlib.asynccontextmanager
async def _linked(config: EnclaveConfig, loan: LoanFile, around: Surroundings) -> AsyncIterator[Link]:
    """Yield the way to the custodian: by courier, or over the network."""
    if config.airgapped and config.media is not None:
        yield FileLink(MediaFolder(config.media))
        return
    within = timedelta(seconds=config.limits.custodian_timeout_s)
    async with CustodianLink(loan, timeout=within, transport=around.transport) as link:
        yield link


def _listener_tls(config: EnclaveConfig, around: Surroundings) -> ListenerTls | None:
    """Return what the listener shows at first, None for no TLS. Raises ``UsageError``."""
    outer = prepare_tls(config, around.clock.wall())
    asks = config.client_certificates or config.relays is not Relays.OFF
    return None if outer is None else ListenerTls(outer, asks_certificates=asks)


def _metrics_place(config: EnclaveConfig) -> MetricsPlace | None:
    """Return where metrics are shown, None for nowhere. Raises ``UsageError``."""
    if config.metrics is None:
        return None
    path = config.metrics_token_file
    return parse_metrics_place(config.metrics, None if path is None else read_metrics_token(path))


def _spans(config: EnclaveConfig) -> Spans | None:
    """Return where spans go, None for nowhere. Raises ``UsageError``, also where the extra is not there."""
    if config.traces is None:
        return None
    from cloister.telemetry.otlp import OtlpSpans, parse_traces_place  # noqa: PLC0415 - of an extra

    place = parse_traces_place(config.traces, config.traces_percent)
    return OtlpSpans(place, service="cloister-enclave", version=__version__)


async def _begin(instance: EnclaveInstance) -> None:
    """Get the first lease. Raises ``Rejected`` where the custodian says stop."""
    answer = await instance.renewal.once()
    if not isinstance(answer, Lease) and answer.stop:
        raise Rejected("; ".join(map(str, answer.reasons)), reasons=answer.reasons)


@dataclass(slots=True, kw_only=True)
class _Run:
    """From the first lease to the end."""

    instance: EnclaveInstance
    config: EnclaveConfig
    tls: ListenerTls | None
    around: Surroundings
    metrics: MetricsListener | None = None

    async def until_end(
        self, listener: socket.socket, stop: asyncio.Event, on_ready: Callable[[Ready], None] | None
    ) -> Ending:
        """Serve, renew and publish until one of the three endings; then wipe and stop the server."""
        server = self._server()
        await server.start(listener)
        async with asyncio.TaskGroup() as tasks:
            renewing = tasks.create_task(self.instance.renewal.until_end())
            publishing = tasks.create_task(self._keep_published())
            carrying = tasks.create_task(self._carry())
            changing = tasks.create_task(self._change_over())
            certifying = tasks.create_task(self._keep_certified())
            dropping = tasks.create_task(self._drop_ended())
            stopping = tasks.create_task(stop.wait())
            with stop_signals(stop):
                self.around.log.write(
                    Event.READY, instance=self.instance.metering.instance, port=listener.getsockname()[1]
                )
                if on_ready is not None:
                    metrics = None if self.metrics is None else self.metrics.url
                    on_ready(Ready(url=_url(self.config, listener), instance=self.instance, metrics=metrics))
                await asyncio.wait({renewing, stopping}, return_when=asyncio.FIRST_COMPLETED)
                ending = renewing.result() if renewing.done() else await self._drained()
            self.instance.wipe()
            self.around.log.write(Event.ENDING, state=ending.value)
            await server.stop(_LAST_ANSWERS_S)
            for task in (renewing, publishing, carrying, changing, certifying, dropping, stopping):
                task.cancel()
        return ending

    def _server(self) -> Listener:
        limits, tls, application = self.config.limits, self.tls, self.around.application(self.instance)
        if tls is None:
            return Listener(application, limits)
        if self.config.client_certificates:
            self.instance.introductions.show_roots_to(tls.believe)
        return Listener(
            application, limits,
            context=tls.context, pinned=bool(tls.pinned), asks_certificates=tls.asks_certificates,
        )  # fmt: skip

    async def _keep_published(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                await self.instance.publisher.tick()
            except CloisterError as exc:  # tried again at the next tick, until the keys come to their end
                self.around.log.write(Event.ROTATION_FAILED, error=type(exc).__name__)

    async def _keep_certified(self) -> None:
        """Renew the listener's certificate again and again, where it has one."""
        within = timedelta(seconds=self.config.limits.custodian_timeout_s)
        while self.instance.listener is not None:
            await self.instance.listener.keep(within=within)
            await asyncio.sleep(_TICK_S)

    async def _drop_ended(self) -> None:
        """Show no certificate that has ended, however long the custodian takes to answer."""
        while self.instance.listener is not None:
            self.instance.listener.drop_ended()
            await asyncio.sleep(_TICK_S)

    async def _change_over(self) -> None:
        """Look for newer versions of models again and again."""
        while True:
            await self.instance.rollout.tick()
            await asyncio.sleep(_TICK_S)

    async def _carry(self) -> None:
        """Look into the folder of removable media again and again, where there is one."""
        folder = [part for part in (self.instance.revocations, self.instance.vouchers) if part is not None]
        while folder:
            for part in folder:
                await asyncio.to_thread(part.tick)
            await asyncio.sleep(_TICK_S)

    async def _drained(self) -> Ending:
        self.around.log.write(Event.DRAINING)
        await self.instance.admission.drain(self.config.limits.drain_timeout_s)
        return Ending.DRAINED


async def _end(instance: EnclaveInstance, log: EventLog) -> None:
    """Wipe whatever happened, then send the last count."""
    instance.wipe()
    try:
        await instance.send_close()
    except CloisterError:
        log.write(Event.CLOSE_FAILED)  # the custodian writes the rest off at its own bound (C8)


@contextlib.contextmanager
def _listening(config: EnclaveConfig) -> Iterator[socket.socket]:
    """Yield a listening socket. Raises ``UsageError`` where the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:  # so named, asyncio sends at once
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((config.host, config.port))
            listener.listen(_BACKLOG)  # from here on: who is told that we are ready must not be refused
        except OSError as exc:
            msg = f"listen: {config.host}:{config.port}: {exc.strerror or exc}"
            raise UsageError(msg) from exc
        yield listener


def _url(config: EnclaveConfig, listener: socket.socket) -> str:
    scheme = "http" if config.tls.value == "off" else "https"
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"{scheme}://{host}:{listener.getsockname()[1]}"
