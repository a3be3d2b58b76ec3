"""One enclave as it is shipped, in a process of its own, with a custodian in memory and a simulated TEE.

``serve_process`` lends it the given models and serves until the other side of the pipe hangs up; ``extend`` may
add to the application what the product does not have.
"""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import httpx2
import uvicorn

from cloister.attest.verifier import Verifier
from cloister.custodian.app import create_app as custodian_app
from cloister.custodian.setup import init_custodian, open_custodian, open_vault
from cloister.custodian.vaults import wrap_dek
from cloister.custodian.vaults.encrypted_file import Kdf, Passphrase
from cloister.enclave.app import create_app
from cloister.enclave.boot import boot
from cloister.enclave.clock import SystemClock
from cloister.enclave.config import EnclaveConfig, Limits
from cloister.enclave.custodian_link import CustodianLink
from cloister.enclave.engines.onnx import OnnxEngine
from cloister.enclave.evidence import EvidenceSource
from cloister.enclave.instance import EnclaveInstance
from cloister.enclave.loanfile import read_loan_file
from cloister.enclave.logs import EventLog
from cloister.enclave.measure import measure_software
from cloister.sealed.envelope import Envelope
from cloister.sealed.seal import seal_model
from cloister.testing.simulated import SimulatedAttester, SimulatedRoot, SimulatedScheme, simulated_policy
from cloister.wire import dump_b64u, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from multiprocessing.connection import Connection

    from starlette.applications import Starlette

    from cloister.custodian.vaults.encrypted_file import EncryptedFileVault
    from cloister.enclave.boot import Booted

    Extend: TypeAlias = Callable[[Starlette, EnclaveInstance, Booted], None]

UNLOCK = Passphrase(b"benchmark")
CHEAP = Kdf(memory_kib=64, passes=1, lanes=1)


async def lend(
    folder: Path, root: SimulatedRoot, config: EnclaveConfig, models: Mapping[str, bytes]
) -> httpx2.ASGITransport:
    """Make a custodian with one loan of all models; return the way to it."""
    made = init_custodian(folder / "home", UNLOCK, kdf=CHEAP)
    service = open_custodian(folder / "home", UNLOCK, make_verifier=lambda _: Verifier([SimulatedScheme(root.public)]))
    transport = httpx2.ASGITransport(app=custodian_app(service))
    headers = {"authorization": f"Bearer {made.admin_token}"}
    vault = open_vault(folder / "home", UNLOCK)
    async with httpx2.AsyncClient(transport=transport, base_url="https://localhost", headers=headers) as admin:
        lent = []
        for name, data in models.items():
            digest, publication = _seal(folder, vault, name, data, config.models[0] / name)
            (await admin.post("/v1/models", json=publication)).raise_for_status()
            lent.append({"name": name, "digest": digest})
        terms = {
            "allowance": 10**9,
            "borrower": "benchmark",
            "consumers": None,
            "max_ceiling": 1_000_000,
            "models": lent,
            "policy": simulated_policy(measure_software(config)).to_json(),
        }
        answer = (await admin.post("/v1/loans", json=terms)).raise_for_status().json()
    config.loan.touch(mode=0o600)
    config.loan.write_bytes(dump_json(answer["loan_file"] | {"custodian_url": "https://localhost"}))
    return transport


def _seal(folder: Path, vault: EncryptedFileVault, name: str, data: bytes, out: Path) -> tuple[str, dict[str, object]]:
    """Seal one model into ``out``; return its digest and the body of its publication."""
    source, dek = folder / "model.onnx", os.urandom(32)
    source.write_bytes(data)
    sealed = seal_model(source, out, name=name, dek=dek, signer=vault.publisher_key, card={}, created=datetime.now(UTC))
    envelope = Envelope(
        manifest_digest=sealed.digest, recipients=(wrap_dek(vault, dek, manifest_digest=sealed.digest),)
    )
    return sealed.digest, {
        "envelope": json.loads(envelope.dump()),
        "manifest": dump_b64u(sealed.manifest_bytes),
        "signature": dump_b64u((out / "manifest.sig").read_bytes()),
    }


async def _serve(folder: Path, pipe: Connection, models: Mapping[str, bytes], extend: Extend) -> None:
    (folder / "models").mkdir()
    limits = Limits(replay_capacity=10_000_000)
    config = EnclaveConfig(loan=folder / "loan.json", models=(folder / "models",), limits=limits)
    root = SimulatedRoot.generate()
    transport = await lend(folder, root, config, models)
    loan, software, clock = read_loan_file(config.loan), measure_software(config), SystemClock()
    source = EvidenceSource(attester=SimulatedAttester(root, software, os.urandom(32)))
    engine, log = OnnxEngine(threads=1), EventLog(clock.wall, StringIO())
    async with CustodianLink(loan, timeout=timedelta(seconds=5), transport=transport) as link:
        booted = await boot(config, loan, source=source, software=software, engine=engine, link=link, log=log)
        instance = EnclaveInstance(booted, config, loan, source=source, engine=engine, link=link, clock=clock, log=log)
        await instance.renewal.once()
        await instance.publisher.tick()
        app = create_app(instance)
        extend(app, instance, booted)
        server = uvicorn.Server(
            uvicorn.Config(app, port=0, log_config=None, access_log=False, lifespan="off", http="h11")
        )
        serving = asyncio.create_task(server.serve())
        renewing = asyncio.create_task(instance.renewal.until_end())
        while not server.started:  # noqa: ASYNC110 - the library has no event for it
            await asyncio.sleep(0.01)
        pipe.send(server.servers[0].sockets[0].getsockname()[1])
        await asyncio.to_thread(pipe.recv)
        server.should_exit = True
        renewing.cancel()
        await serving
        instance.wipe()


def serve_process(folder: str, pipe: Connection, models: Mapping[str, bytes], extend: Extend) -> None:
    """Serve in this process; its port goes through ``pipe``, and whatever comes back ends it."""
    asyncio.run(_serve(Path(folder), pipe, models, extend))
