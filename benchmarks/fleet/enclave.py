"""One enclave as it is shipped, in a process of its own, with a custodian in another and a simulated TEE.

``serve_process`` lends it the given models and serves, by the product's own ``serve_async``, until the other side of
the pipe hangs up; ``extend`` may add to the application what the product does not have.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx2
import uvloop

from cloister.attest.rules import NotChecked
from cloister.attest.verifier import Verifier
from cloister.client import Trust
from cloister.custodian.app import create_app as custodian_app
from cloister.custodian.setup import init_custodian, open_custodian, open_vault
from cloister.custodian.vaults.encrypted_file import KeyFile
from cloister.enclave.clock import SystemClock
from cloister.enclave.config import EnclaveConfig, Limits
from cloister.enclave.evidence import EvidenceSource
from cloister.enclave.logs import EventLog
from cloister.enclave.measure import measure_software
from cloister.enclave.outer import Outer
from cloister.enclave.serve import Surroundings, serve_async
from cloister.enclave.web.exchange import Answer
from cloister.heap import settle_heap
from cloister.telemetry.exposition import prometheus_text
from cloister.testing.ports import free_port
from cloister.testing.simulated import SimulatedAttester, SimulatedRoot, SimulatedScheme, simulated_policy
from cloister.wire import dump_json
from fleet.added import Added
from fleet.process import Custodian
from fleet.sealing import CHEAP, seal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from multiprocessing.connection import Connection

    from cloister.custodian.service import CustodianService
    from cloister.enclave.instance import EnclaveInstance
    from cloister.enclave.serve import Ready
    from cloister.enclave.web.exchange import Body, Head

    Extend: TypeAlias = Callable[[Added, EnclaveInstance], None]

METRICS_PATH = "/metrics"


@dataclass(frozen=True, slots=True)
class Metrics:
    """Shows an instance's counts beside what it serves, where the product has an address of their own for them."""

    instance: EnclaveInstance

    async def __call__(self, _head: Head, _body: Body) -> Answer:
        """Show them."""
        return Answer(status=200, body=prometheus_text(self.instance.metrics).encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Lent:
    """A custodian's files, and the way to it in this process."""

    home: Path
    key_file: Path
    root_file: Path
    service: CustodianService
    transport: httpx2.ASGITransport


async def lend(
    folder: Path,
    root: SimulatedRoot,
    config: EnclaveConfig,
    models: Mapping[str, bytes],
    clauses: Mapping[str, Any] = MappingProxyType({}),
    *,
    url: str = "https://localhost",
) -> Lent:
    """Make a custodian with one loan of all models, with these clauses; the loan's file says it is at ``url``."""
    home, key_file, root_file = folder / "home", folder / "vault.key", folder / "root.pub.json"
    key = KeyFile.create(key_file)
    root.save_public(root_file)
    made = init_custodian(home, key, kdf=CHEAP)
    service = open_custodian(home, key, make_verifier=lambda _: Verifier([SimulatedScheme(root.public)]))
    transport = httpx2.ASGITransport(app=custodian_app(service))
    headers = {"authorization": f"Bearer {made.admin_token}"}
    vault = open_vault(home, key)
    async with httpx2.AsyncClient(transport=transport, base_url="https://localhost", headers=headers) as admin:
        lent = []
        for name, data in models.items():
            source = folder / "model.onnx"
            source.write_bytes(data)
            digest, body = seal(vault, source, folder / "models" / name, name=name)
            (await admin.post("/v1/models", json=body)).raise_for_status()
            lent.append({"name": name, "digest": digest})
        terms = {
            "allowance": 10**9,
            "borrower": "benchmark",
            "clauses": dict(clauses),
            "consumers": None,
            "max_ceiling": 1_000_000,
            "models": lent,
            "policy": simulated_policy(measure_software(config)).to_json(),
        }
        answer = (await admin.post("/v1/loans", json=terms)).raise_for_status().json()
    config.loan.touch(mode=0o600)
    config.loan.write_bytes(dump_json(answer["loan_file"] | {"custodian_url": url}))
    return Lent(home=home, key_file=key_file, root_file=root_file, service=service, transport=transport)


async def _serve(
    folder: Path, pipe: Connection, models: Mapping[str, bytes], extend: Extend, settings: Mapping[str, Any]
) -> None:
    (folder / "models").mkdir()
    limits = Limits(**{"replay_capacity": 10_000_000, **settings.get("limits", {})})
    chosen = {**settings, "limits": limits}
    config = EnclaveConfig(loan=folder / "loan.json", models=(folder / "models",), port=0, **chosen)
    root = SimulatedRoot.generate()
    port = free_port()
    lent = await lend(folder, root, config, models, url=f"https://127.0.0.1:{port}")
    lent.service.close()
    _say_whom_to_trust(folder, root, config)
    software, clock = measure_software(config), SystemClock()
    source = EvidenceSource(attester=SimulatedAttester(root, software, os.urandom(32)))
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def create(instance: EnclaveInstance) -> Added:
        app = Added(Outer(instance))
        app.add(METRICS_PATH, Metrics(instance))
        extend(app, instance)
        return app

    def ready(found: Ready) -> None:
        settle_heap()
        pipe.send(int(found.url.rpartition(":")[2]))
        loop.run_in_executor(None, wait)

    def wait() -> None:
        with contextlib.suppress(EOFError):
            pipe.recv()
        loop.call_soon_threadsafe(stop.set)

    log = EventLog(clock.wall, StringIO())
    around = Surroundings(clock=clock, log=log, application=create)
    with Custodian(lent, port):
        await serve_async(config, source, around=around, stop=stop, on_ready=ready)


def _say_whom_to_trust(folder: Path, root: SimulatedRoot, config: EnclaveConfig) -> None:
    """Write what a consumer of this enclave needs, for who measures one."""
    unasked = NotChecked("a benchmark")
    trust = Trust(
        policy=simulated_policy(measure_software(config)),
        simulated_root=root.public,
        custodian=unasked,
        operators=unasked,
        models=unasked,
        tls=unasked,
    )
    (folder / "trust.json").write_bytes(trust.dump())


def serve_process(
    folder: str,
    pipe: Connection,
    models: Mapping[str, bytes],
    extend: Extend,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Serve in this process, under these settings; its port goes through ``pipe``, whatever comes back ends it."""
    uvloop.run(_serve(Path(folder), pipe, models, extend, settings))
