"""What a ticket costs: the time for one answer of a model that takes tickets, and of one that does not.

    python benchmarks/tickets.py --count 200

Custodian and enclave are as shipped, in one process without sockets, the database on this machine's disk: what
stands here is signing, verifying, one durable commit with its audit entry and checkpoint, and nothing of a network.
Add one round trip to the custodian, and mind that one instance asks for one ticket at a time. Medians are shown.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import statistics
import tempfile
import time
from contextlib import asynccontextmanager
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
from fleet.sealing import CHEAP, seal

from cloister.attest.verifier import Verifier
from cloister.custodian.app import create_app
from cloister.custodian.setup import init_custodian, open_custodian, open_vault
from cloister.custodian.vaults.encrypted_file import Passphrase
from cloister.enclave.boot import boot
from cloister.enclave.clock import SystemClock
from cloister.enclave.config import EnclaveConfig
from cloister.enclave.custodian_link import CustodianLink
from cloister.enclave.evidence import EvidenceSource
from cloister.enclave.instance import EnclaveInstance
from cloister.enclave.loanfile import read_loan_file
from cloister.enclave.logs import EventLog
from cloister.enclave.measure import measure_software
from cloister.enclave.tickets import Tickets
from cloister.lending.receipt import commit
from cloister.testing.simulated import SimulatedAttester, SimulatedRoot, SimulatedScheme, simulated_policy
from cloister.testing.simulator.engine import ToyEngine, toy_model
from cloister.wire import dump_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

UNLOCK = Passphrase(b"benchmark")
MILLISECONDS = 1000


async def lend(folder: Path, root: SimulatedRoot, config: EnclaveConfig) -> httpx2.ASGITransport:
    """Make a custodian with one loan of a plain and a ticketed model; return the way to it."""
    made = init_custodian(folder / "home", UNLOCK, kdf=CHEAP)
    service = open_custodian(folder / "home", UNLOCK, make_verifier=lambda _: Verifier([SimulatedScheme(root.public)]))
    transport = httpx2.ASGITransport(app=create_app(service))
    headers = {"authorization": f"Bearer {made.admin_token}"}
    vault, models = open_vault(folder / "home", UNLOCK), []
    async with httpx2.AsyncClient(transport=transport, base_url="https://localhost", headers=headers) as admin:
        for name in ("plain", "ticketed"):
            source = folder / name
            source.mkdir()
            for file, data in toy_model().items():
                (source / file).write_bytes(data)
            digest, body = seal(vault, source, config.models[0] / name, name=name)
            (await admin.post("/v1/models", json=body)).raise_for_status()
            models.append({"name": name, "digest": digest, "ticketed": name == "ticketed"})
        terms = {
            "allowance": 10**9, "borrower": "benchmark", "consumers": None, "max_ceiling": 1_000_000, "models": models,
            "policy": simulated_policy(measure_software(config)).to_json(), "ttl_s": 3600,
        }  # fmt: skip
        answer = (await admin.post("/v1/loans", json=terms)).raise_for_status().json()
    config.loan.touch(mode=0o600)
    config.loan.write_bytes(dump_json(answer["loan_file"] | {"custodian_url": "https://localhost"}))
    return transport


@asynccontextmanager
async def launched(folder: Path) -> AsyncIterator[tuple[EnclaveInstance, Tickets]]:
    """Yield an enclave with a lease, and where it gets its tickets."""
    (folder / "models").mkdir()
    config = EnclaveConfig(loan=folder / "loan.json", models=(folder / "models",))
    root = SimulatedRoot.generate()
    transport = await lend(folder, root, config)
    loan, software, clock = read_loan_file(config.loan), measure_software(config), SystemClock()
    source = EvidenceSource(attester=SimulatedAttester(root, software, os.urandom(32)))
    engine, log = ToyEngine(lambda _: None), EventLog(clock.wall, StringIO())
    async with CustodianLink(loan, timeout=timedelta(seconds=5), transport=transport) as link:
        booted = await boot(config, loan, source=source, software=software, engine=engine, link=link, log=log)
        instance = EnclaveInstance(booted, config, loan, source=source, engine=engine, link=link, clock=clock, log=log)
        await instance.renewal.once()
        yield instance, Tickets(instance.metering, link)
        instance.wipe()


async def timed(count: int, one: Callable[[], Any]) -> list[float]:
    """Return how long each of ``count`` calls took, in milliseconds."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        await one()
        times.append((time.perf_counter() - started) * MILLISECONDS)
    return times


async def measure(folder: Path, count: int) -> None:
    """Print both medians and what stands between them."""
    async with launched(folder) as (instance, tickets):
        metering = instance.metering

        async def plain() -> None:
            reservation = metering.reserve("plain", None, 1)
            metering.charge(reservation, 1, secrets.token_bytes(32), secrets.token_bytes(32))

        async def ticketed() -> None:
            reservation = metering.reserve("ticketed", None, 1)
            request = commit(secrets.token_bytes(32), b"a request")
            await tickets.take(reservation, request)
            metering.charge(reservation, 1, request, secrets.token_bytes(32))

        await timed(5, ticketed)
        rows = {"lease alone": await timed(count, plain), "with a ticket": await timed(count, ticketed)}
        for name, times in rows.items():
            ordered = sorted(times)
            print(f"{name:<14} median {statistics.median(times):8.3f} ms   p95 {ordered[int(count * 0.95)]:8.3f} ms")
        added = statistics.median(rows["with a ticket"]) - statistics.median(rows["lease alone"])
        print(
            f"a ticket adds {added:.1f} ms before one answer, so one instance gives at most {1000 / added:.0f} a second"
        )


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="answers of each kind")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), parser.parse_args().count))


if __name__ == "__main__":
    main()
