"""Which tenants there are, which of them run, and how each comes up: behind the listener, who is asked for first.

Everything here happens on the event loop of the server; what waits for disks runs in threads. A tenant whose vault
does not open, or whose database is damaged, is noted as such and keeps no other back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from cloister.custodian.logs import LOG, Event
from cloister.custodian.setup import open_custodian, open_vault
from cloister.custodian.store.tenants import TenantState
from cloister.custodian.tenants.running import Running
from cloister.custodian.tenants.stranger import forget_nobody, make_nobody, routes_for
from cloister.custodian.tenants.unlocking import Unlocking
from cloister.custodian.threads import run_in_threadpool
from cloister.errors import CloisterError, Rejected, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cloister.custodian.service import CustodianService
    from cloister.custodian.store.tenants import TenantRow
    from cloister.custodian.tenants.ground import Ground
    from cloister.custodian.tenants.names import TenantName

__all__ = ["Health", "Roster", "Tenant", "cause_of"]

_NOBODYS_ENTRIES = 10_000  # entries of the log of tenants that are not there, before it starts anew
_LOOK_EVERY_S = 5.0


class Health(Enum):
    """How a tenant is. Only one that is ``READY`` is served."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    LOCKED = "locked"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(slots=True, kw_only=True)
class Tenant:
    """One tenant: what the operator said of it, and how it is. ``cause`` is a code, never a message."""

    row: TenantRow
    home: Path
    health: Health = Health.STOPPED
    cause: str = ""
    running: Running | None = None
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Roster:
    """The tenants of a host. ``find`` is the one way from a name to a custodian."""

    def __init__(self, ground: Ground) -> None:
        """Know nobody yet."""
        self._ground = ground
        self._tenants: dict[bytes, Tenant] = {}
        self._waiting: deque[Tenant] = deque()
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._nobody: Running | None = None

    def find(self, name: bytes) -> Tenant | None:
        """Return the tenant of exactly this name where it is to be served: not one that is suspended, or gone."""
        tenant = self._tenants.get(name)
        return tenant if tenant is not None and tenant.row.state is TenantState.ACTIVE else None

    @property
    def nobody(self) -> Running:
        """Who answers for tenants that are not there."""
        if self._nobody is None:
            msg = "host: not up yet"
            raise Unavailable(msg)
        return self._nobody

    def services(self) -> tuple[CustodianService, ...]:
        """Return the custodians that run now. May be called from any thread."""
        return tuple(tenant.running.service for tenant in [*self._tenants.values()] if tenant.running is not None)

    def tenant(self, name: TenantName) -> Tenant | None:
        """Return a tenant in whatever state, for the operator."""
        return self._tenants.get(name.encode())

    async def open(self, rows: Iterable[TenantRow]) -> None:
        """Take up the tenants there are; those that are active come up behind this."""
        await run_in_threadpool(forget_nobody, self._ground.home)
        self._nobody = await self._make_nobody()
        for row in rows:
            self.enter(row)
        workers = (self._bring_up_in_turn() for _ in range(self._ground.config.start_together))
        self._tasks = [asyncio.create_task(work) for work in (*workers, self._renew_nobody())]

    def enter(self, row: TenantRow) -> Tenant:
        """Know a tenant, or what was said of it anew; one that is active is brought up in its turn."""
        tenant = self._tenants.setdefault(row.name.encode(), Tenant(row=row, home=self._ground.home_of(row.name)))
        tenant.row = row
        if row.state is TenantState.ACTIVE and tenant.running is None and tenant not in self._waiting:
            tenant.health, tenant.cause = Health.WAITING, ""
            tenant.settled.clear()
            self._waiting.append(tenant)
            self._news.set()
        return tenant

    def forget(self, name: TenantName) -> None:
        """Know a tenant no more."""
        self._tenants.pop(name.encode(), None)

    async def running(self, tenant: Tenant, within_s: float) -> Running:
        """Return the tenant as it runs, once it is up. Raises ``Unavailable`` where it is not, or not in time."""
        if tenant.running is None and tenant in self._waiting:  # who is asked for comes first
            self._waiting.remove(tenant)
            self._waiting.appendleft(tenant)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(tenant.settled.wait(), within_s)
        if tenant.running is None:
            msg = "custodian: not ready"
            raise Unavailable(msg, retry_after_s=5)
        return tenant.running

    async def _bring_up_in_turn(self) -> None:
        while True:
            while not self._waiting:
                self._news.clear()
                await self._news.wait()
            await self.bring_up(self._waiting.popleft())

    async def bring_up(self, tenant: Tenant) -> None:
        """Open a tenant and serve it, or note why not."""
        async with tenant.turn:
            if tenant.running is not None or tenant.row.state is not TenantState.ACTIVE:
                tenant.settled.set()
                return
            tenant.health = Health.STARTING
            try:
                tenant.running = await self._opened(tenant)
                tenant.health, tenant.cause = Health.READY, ""
                for look in self._ground.watching:  # its peers are let in from now on
                    await run_in_threadpool(look)
            except Exception as exc:  # noqa: BLE001 - an edge: what is wrong with one must not reach the others
                if tenant.health is Health.STARTING:
                    tenant.health = Health.FAILED
                tenant.cause = cause_of(exc)
                LOG.write(Event.TENANT_NOT_UP, tenant=tenant.row.name, state=tenant.health.value, code=tenant.cause)
            finally:
                tenant.settled.set()

    async def _opened(self, tenant: Tenant) -> Running:
        try:
            plan = await run_in_threadpool(Unlocking.read, tenant.home)
            vault = await run_in_threadpool(lambda: open_vault(tenant.home, plan.unlock(tenant.home)))
        except CloisterError:
            tenant.health = Health.LOCKED
            raise
        service = await run_in_threadpool(
            open_custodian,
            tenant.home,
            vault,
            make_verifier=self._ground.make_verifier,
            clock=self._ground.clock,
            endorsements=self._ground.endorsements,
            bounds=self._ground.bounds(tenant.row.name),
        )
        try:
            service.ca_pem = self._ground.ca_pem
            service.certificates.watching = self._ground.watching
            return await self._started(service, discoverable=tenant.row.discoverable)
        except BaseException:
            service.abandon()
            raise

    async def _started(self, service: CustodianService, *, discoverable: bool) -> Running:
        config = self._ground.config
        service.discreet = not discoverable
        service.watch.leave_to_host()
        beside = await run_in_threadpool(self._ground.beside, service, config)
        running = Running(service, routes_for(discoverable=discoverable), threads=config.threads, beside=beside)
        await running.start()
        return running

    async def take_down(self, tenant: Tenant) -> None:
        """Serve a tenant no more; returns once its requests have ended and its home is let go."""
        async with tenant.turn:
            running, tenant.running, tenant.health = tenant.running, None, Health.STOPPED
            tenant.settled.set()
            if running is not None:
                await running.stop(self._ground.listener.shutdown_grace_s)

    def end_streams(self) -> None:
        """Let all event streams end."""
        for running in self._everybody():
            running.end_streams()

    def _everybody(self) -> list[Running]:
        found = [tenant.running for tenant in self._tenants.values()] + [self._nobody]
        return [running for running in found if running is not None]

    async def close(self) -> None:
        """Stop everybody, at the same time."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await asyncio.gather(*(self.take_down(tenant) for tenant in list(self._tenants.values())))
        if self._nobody is not None:
            await self._nobody.stop(0)
            await run_in_threadpool(forget_nobody, self._ground.home)

    async def _make_nobody(self) -> Running:
        ground = self._ground
        service = await run_in_threadpool(make_nobody, ground.home, ground.bounds(""), ground.clock)
        return await self._started(service, discoverable=False)

    async def _renew_nobody(self) -> None:
        """Start anew with an empty log where strangers have filled it."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if self.nobody.service.context.size < _NOBODYS_ENTRIES:
                continue
            try:
                old, self._nobody = self.nobody, await self._make_nobody()
            except CloisterError as exc:
                LOG.write(Event.STRANGERS_NOT_RENEWED, error=type(exc).__name__)
                continue
            await old.stop(self._ground.listener.shutdown_grace_s)
            await run_in_threadpool(forget_nobody, self._ground.home, self._nobody.service.home)


def cause_of(error: Exception) -> str:
    """Return what an operator is told of a fault: its kind, and nothing that a message may hold."""
    if isinstance(error, Rejected):
        return error.code
    return error.fault if isinstance(error, CloisterError) else "internal"
