"""An enclave: real boot, gateway, metering and renewal on a simulated chip, in a process that can end."""

from __future__ import annotations

import asyncio
import contextlib
import io
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cloister.enclave.app import create_app
from cloister.enclave.boot import boot
from cloister.enclave.config import EnclaveConfig
from cloister.enclave.custodian_link import CustodianLink
from cloister.enclave.evidence import EvidenceSource
from cloister.enclave.instance import EnclaveInstance
from cloister.enclave.loanfile import read_loan_file
from cloister.enclave.logs import EventLog
from cloister.enclave.renew import Ending
from cloister.errors import CloisterError, Rejected, Unavailable
from cloister.lending.messages import Lease
from cloister.testing.simulated import SimulatedAttester
from cloister.testing.simulator.clock import PartyClock
from cloister.testing.simulator.custodian import CUSTODIAN
from cloister.testing.simulator.wire import DOMAIN, Server

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cloister.attest.software import SoftwareManifest
    from cloister.enclave.engines import Engine
    from cloister.lending.lease import LeaseSnapshot
    from cloister.lending.messages import Refusal
    from cloister.lending.terms import InstanceId
    from cloister.testing.simulator.loan import SimulatedLoan
    from cloister.testing.simulator.network import Link
    from cloister.testing.simulator.world import World

__all__ = ["Machine", "SimulatedEnclave"]

_PUBLISH_EVERY_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the borrower starts an enclave on and with.

    ``software`` is what is really measured, ``claims`` are changes to the chip's evidence (``debug=True``),
    ``models`` the folders of sealed models, ``skew`` and ``pace`` those of its clock, ``workers`` how many
    inferences run at once. ``renews`` False leaves renewing to the test.
    """

    name: str
    loan: SimulatedLoan
    software: SoftwareManifest
    engine: Engine
    models: tuple[Path, ...]
    claims: Mapping[str, bool | int] = field(default_factory=dict)
    skew: float = 0.0
    pace: float = 1.0
    renews: bool = True
    workers: int = 4


class SimulatedEnclave:
    """One enclave process. ``launch`` returns when it serves, as ``enclave.serve`` would."""

    def __init__(self, world: World, machine: Machine) -> None:
        """Prepare; nothing runs yet."""
        self.name = machine.name
        self.url = f"https://{machine.name}{DOMAIN}"
        self.machine = machine
        self.loan = machine.loan
        self.engine = machine.engine
        self.clock = PartyClock(world.time, skew=machine.skew, pace=machine.pace)
        self.ending: Ending | None = None
        """How it ended; None while it runs, and after a crash."""
        self._world = world
        self._log = io.StringIO()
        self._events = EventLog(self.clock.wall, self._log)
        self._instance: EnclaveInstance | None = None
        self._life: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def instance(self) -> EnclaveInstance:
        """The product's own object, for whoever wants to look inside. Raises ``Unavailable`` before boot."""
        if self._instance is None:
            msg = f"{self.name}: not booted"
            raise Unavailable(msg)
        return self._instance

    @property
    def id(self) -> InstanceId:
        """The instance's id."""
        return self.instance.metering.instance

    @property
    def snapshot(self) -> LeaseSnapshot:
        """What the lease says now."""
        return self.instance.metering.snapshot()

    @property
    def is_up(self) -> bool:
        """Tell whether the process runs."""
        return self._life is not None and not self._life.done()

    @property
    def log(self) -> str:
        """What it said aloud, one event a line."""
        return self._log.getvalue()

    @property
    def link(self) -> Link:
        """The link to the custodian."""
        return self._world.network.link(self.name, CUSTODIAN)

    async def launch(self) -> None:
        """Boot, get the first lease, publish the keyset, serve. Raises as ``enclave.serve``."""
        machine, loan = self.machine, read_loan_file(self.loan.file)
        config = EnclaveConfig(loan=self.loan.file, models=machine.models, engine_workers=machine.workers)
        claims: Mapping[str, Any] = machine.claims
        chip = SimulatedAttester(self._world.root, machine.software, self._world.chance.randbytes(32), **claims)
        within = timedelta(seconds=config.limits.custodian_timeout_s)
        link = CustodianLink(loan, timeout=within, transport=self._world.network.transport(self.name))
        try:
            source = EvidenceSource(attester=chip)
            booted = await boot(
                config, loan, source=source, software=machine.software, engine=self.engine, link=link, log=self._events
            )
            self._instance = EnclaveInstance(
                booted, config, loan, source=source, engine=self.engine, link=link, clock=self.clock, log=self._events
            )
            del booted
            await self._begin(self._instance)
        except BaseException:
            if self._instance is not None:
                self._instance.wipe()
            await link.__aexit__()
            raise
        self._world.network.register(self.name, Server(create_app(self._instance)))
        self._life = self._world.spawn(self._live(self._instance, link))

    async def _begin(self, instance: EnclaveInstance) -> None:
        answer = await instance.renewal.once()
        if not isinstance(answer, Lease) and answer.stop:
            raise Rejected("; ".join(map(str, answer.reasons)), reasons=answer.reasons)
        await instance.publisher.tick()

    async def _live(self, instance: EnclaveInstance, link: CustodianLink) -> None:
        """Renew and publish until the end; then wipe, and send the last count: as ``enclave.serve`` does."""
        draw = self._world.chance.random
        work = instance.renewal.until_end(draw) if self.machine.renews else _until_over(instance)
        renewing = asyncio.ensure_future(work)
        publishing = asyncio.ensure_future(_keep_published(instance))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({renewing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if renewing.done():
                ending = renewing.result()
            else:
                await instance.admission.drain(10)
                ending = Ending.DRAINED
            instance.wipe()
            self._world.network.forget(self.name)
            with contextlib.suppress(CloisterError):
                await instance.send_close()
            self.ending = ending
        finally:
            for task in (renewing, publishing, stopping):
                task.cancel()
            self._world.network.forget(self.name)
            instance.wipe()
            await link.__aexit__()

    def renew(self) -> Lease | Refusal:
        """Renew once, now. Raises as ``Renewal.once``; then the same bytes are sent again next time."""
        return self._world.run(self.instance.renewal.once())

    def stop(self) -> None:
        """End it in good order: drain, wipe, send the last count."""
        self._stopping.set()
        if self._life is not None:
            self._world.run(_wait(self._life))

    def crash(self) -> None:
        """End the process at once: what was in its memory is gone, and nobody is told."""
        if self._life is not None:
            self._life.cancel()
            self._world.run(_wait(self._life))


async def _until_over(instance: EnclaveInstance) -> Ending:
    """Wait until the instance must end, renewing nothing: the test does."""
    while not instance.metering.must_end():  # noqa: ASYNC110 - time itself is waited for
        await asyncio.sleep(_PUBLISH_EVERY_S)
    return Ending.EXPIRED


async def _keep_published(instance: EnclaveInstance) -> None:
    while True:
        await asyncio.sleep(_PUBLISH_EVERY_S)
        with contextlib.suppress(Unavailable):
            await instance.publisher.tick()


async def _wait(task: asyncio.Task[None]) -> None:
    await asyncio.wait({task})
