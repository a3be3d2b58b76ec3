"""All three parties in one process, without sockets, on simulated time (docs/reference/simulator.md).

    with Simulator(seed=1) as sim:
        loan = sim.lend(allowance=3, consumers={"alice": None})
        enclave = sim.launch(loan)
        alice = sim.consumer(enclave, "alice")
        alice.infer([[1.0, 2.0]])
        enclave.link.cut()
        sim.advance(61)

What runs is the product: custodian's service and HTTP face, enclave's boot, gateway, metering and renewal, the
consumer's client. Simulated are time, the network, the TEE, chance where the product takes it from outside, and
the ends of processes. Not simulated: TLS, sockets, memory that a host copies.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from cloister.attest.rules import NotChecked
from cloister.client import AsyncClient, CustodianPin, Retry, Trust
from cloister.enclave.config import EnclaveConfig
from cloister.enclave.measure import measure_software
from cloister.testing.simulated import SimulatedScheme, simulated_policy
from cloister.testing.simulator.clock import START, PartyClock, SimulatedTime
from cloister.testing.simulator.consumer import SimulatedConsumer
from cloister.testing.simulator.custodian import Backup, Reply, SimulatedCustodian
from cloister.testing.simulator.enclave import Machine, SimulatedEnclave
from cloister.testing.simulator.engine import ToyEngine, toy_model
from cloister.testing.simulator.fragile_store import CrashPoint
from cloister.testing.simulator.loan import SealedToy, SimulatedLoan, publish, seal, take_loan
from cloister.testing.simulator.messages import Answer, Chunk, Request
from cloister.testing.simulator.network import Link, Way
from cloister.testing.simulator.world import World

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from datetime import datetime

    from cloister.attest.policy import Policy
    from cloister.attest.software import SoftwareManifest
    from cloister.enclave.engines import Engine
    from cloister.testing.simulator.wire import Network

__all__ = [
    "START",
    "Answer",
    "Backup",
    "Chunk",
    "CrashPoint",
    "Link",
    "Machine",
    "PartyClock",
    "Reply",
    "Request",
    "SealedToy",
    "SimulatedConsumer",
    "SimulatedCustodian",
    "SimulatedEnclave",
    "SimulatedLoan",
    "Simulator",
    "ToyEngine",
    "Way",
    "toy_model",
]

T = TypeVar("T")
OPERATOR = "General Hospital"
ANYBODY = "anybody"
_TERMS = {"ttl_s": 60, "max_ceiling": 1000}  # not the custodian's defaults: a test can count on these
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of a fresh random name is made in it


class Simulator:
    """One custodian, any number of loans, enclaves and consumers. Use it in a ``with`` block, from one thread.

    The same ``seed`` gives the same order of events. ``settings`` are the custodian's.
    """

    def __init__(self, *, seed: int = 0, start: datetime = START, settings: Mapping[str, Any] | None = None) -> None:
        """Make a custodian and start it, in a folder of its own that is gone afterwards."""
        self._stack = ExitStack()
        place = _MEMORY if _MEMORY.is_dir() else None  # commits are durable, which takes time on a disk
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="cloister-", dir=place)))
        self.world = World(SimulatedTime(start), random.Random(seed), self.folder)  # noqa: S311 - repeatable
        self._stack.callback(self.world.close)
        self._names = itertools.count(1)
        self._clients: list[AsyncClient] = []
        self._stack.callback(self._close_parties)
        self._enclaves: list[SimulatedEnclave] = []
        self._toy: SealedToy | None = None
        try:
            self.software = measure_software(EnclaveConfig(loan=self.folder, models=()))
            self.custodian = SimulatedCustodian(self.world, settings or {})
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _close_parties(self) -> None:
        for client in self._clients:
            self.run(client.close())
        for enclave in self._enclaves:
            enclave.crash()
        self.custodian.crash()

    # time and chance

    @property
    def now(self) -> datetime:
        """The true time."""
        return self.world.time.now

    @property
    def network(self) -> Network:
        """Every link and address."""
        return self.world.network

    def advance(self, seconds: float) -> None:
        """Let time pass, and everything that happens in it happen."""
        self.run(asyncio.sleep(seconds))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on simulated time; returns or raises what it does."""
        return self.world.run(work)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a coroutine that goes on whenever time passes."""
        return self.world.spawn(work)

    def together(self, *work: Coroutine[Any, Any, T]) -> list[T | BaseException]:
        """Run coroutines at the same time; returns what each returned or raised, in order."""
        return self.run(_gathered(*work))

    # the custodian's side

    def seal(self, name: str = "toy", files: Mapping[str, bytes] | None = None) -> SealedToy:
        """Seal and publish a model; a toy model unless ``files`` are given."""
        model = seal(self.world, self.custodian, name, files or toy_model())
        publish(self.custodian, model)
        return model

    def lend(
        self,
        *,
        allowance: int = 10,
        models: Mapping[SealedToy, int | None] | None = None,
        consumers: Mapping[str, int | None] | None = None,
        policy: Policy | None = None,
        operator: str = OPERATOR,
        **terms: int,
    ) -> SimulatedLoan:
        """Make a loan: of the toy model, for anybody, to this very software, unless said otherwise.

        ``models`` and ``consumers`` map to allowances of their own, None for none. ``terms`` are ``ttl_s``,
        ``max_ceiling``, ``max_instances`` and ``rate_cap``; one instance may hold all units of a loan, unless
        they say otherwise.
        """
        if models is None:
            self._toy = self._toy or self.seal()
            models = {self._toy: None}
        named = {model.name: model for model in models}
        body: dict[str, Any] = {
            "allowance": allowance,
            "borrower": operator,
            "consumers": None
            if consumers is None
            else [_metered({"id": name}, units) for name, units in consumers.items()],
            "models": [
                _metered({"digest": model.digest, "name": model.name}, units) for model, units in models.items()
            ],
            "policy": (policy or self.policy()).to_json(),
            **_TERMS | terms,
        }
        return take_loan(self.world, self.custodian, body, named, operator)

    def policy(self, software: SoftwareManifest | None = None, version: int = 1) -> Policy:
        """Return the policy for exactly this software, or another's."""
        return simulated_policy(software or self.software, version=version)

    # the borrower's side

    def launch(self, loan: SimulatedLoan, **options: Any) -> SimulatedEnclave:
        """Start an enclave and return it serving; ``options`` are those of ``machine``.

        Raises what boot or the first lease raise.
        """
        enclave = self.machine(loan, **options)
        self.run(enclave.launch())
        return enclave

    def machine(
        self,
        loan: SimulatedLoan,
        *,
        name: str | None = None,
        software: SoftwareManifest | None = None,
        engine: Engine | None = None,
        models: tuple[Path, ...] | None = None,
        **rest: Any,
    ) -> SimulatedEnclave:
        """Return an enclave that is not started: set faults on its link first, then run ``launch``.

        ``rest`` are further fields of ``Machine``: ``claims``, ``skew``, ``pace``, ``renews``, ``workers``.
        """
        machine = Machine(
            name=name or f"enclave-{next(self._names)}",
            loan=loan,
            software=software or self.software,
            engine=engine or ToyEngine(self.world.loop.work),
            models=models or tuple(model.folder for model in loan.models.values()),
            **rest,
        )
        enclave = SimulatedEnclave(self.world, machine)
        self._enclaves.append(enclave)
        return enclave

    # the consumer's side

    def trust(self, loan: SimulatedLoan, **changes: Any) -> Trust:
        """Return a trust in this software, this custodian, this operator and these models, with ``changes``."""
        values: dict[str, Any] = {
            "policy": self.policy(),
            "simulated_root": self.world.root.public,
            "custodian": CustodianPin(key=self.custodian.key, url=self.custodian.url, ca_pem=self.custodian.ca_pem),
            "operators": (loan.operator,),
            "models": {name: model.digest for name, model in loan.models.items()},
            "tls": NotChecked("no TLS in a simulation"),
        }
        return Trust(**values | changes)

    def consumer(
        self,
        enclave: SimulatedEnclave,
        name: str = ANYBODY,
        *,
        token: str | None = None,
        trust: Trust | None = None,
        skew: float = 0.0,
    ) -> SimulatedConsumer:
        """Return a consumer who has verified ``enclave``, with its token of the loan. Raises as ``Client.verify``."""
        clock = PartyClock(self.world.time, skew=skew)
        client = self.run(
            AsyncClient.verify(
                enclave.url,
                trust or self.trust(enclave.loan),
                token=token or enclave.loan.tokens.get(name),
                schemes=[SimulatedScheme(self.world.root.public)],
                transport=self.network.transport(name),
                clock=clock,
                rng=self.world.chance.randbytes,
                retry=Retry.never(),  # a scenario says itself when it asks again
            )
        )
        self._clients.append(client)
        return SimulatedConsumer(self.world, client, name=name, target=enclave.name, clock=clock)


def _metered(entry: dict[str, Any], units: int | None) -> dict[str, Any]:
    return entry if units is None else {**entry, "allowance": units}


async def _gathered(*work: Coroutine[Any, Any, T]) -> list[T | BaseException]:
    return await asyncio.gather(*work, return_exceptions=True)
