"""A house whose custodian listens on a real socket and wants certificates everywhere, and enclaves that live in it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import ssl
from typing import TYPE_CHECKING, Any

import httpx2
from flow_house import CHEAP, House, Wires, brightest
from mtls_kit import Door, MovedClock, csr_text, new_key

from cloister.attest.verifier import Verifier
from cloister.custodian.setup import init_custodian, open_custodian
from cloister.custodian.vaults.encrypted_file import Passphrase
from cloister.enclave.clock import SystemClock
from cloister.enclave.logs import EventLog
from cloister.enclave.serve import Ending, Ready, Surroundings, serve_async
from cloister.live_context import load_identity
from cloister.testing.simulated import SimulatedRoot, SimulatedScheme
from cloister.wire import dump_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import ec

    from cloister.enclave.config import EnclaveConfig

STRICT = {"port": 0, "mtls": "require", "mtls_tokens": "require", "certificate_life_s": 60}


class _Bench:
    """What ``Door`` needs of a custodian."""

    def __init__(self, service: Any, home: Path, init: Any) -> None:
        self.service, self.home, self.init = service, home, init


def _pem(key: ec.EllipticCurvePrivateKey, certificate: str) -> bytes:
    from cryptography.hazmat.primitives import serialization as form  # noqa: PLC0415 - here only

    return certificate.encode() + key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())


async def with_certificate(url: str, ca_pem: str, token: str, kind: str) -> httpx2.AsyncClient:
    """Return a client with the token's own certificate, got by the token on a connection without one."""
    key, headers = new_key(), {"authorization": f"Bearer {token}"}
    plain = ssl.create_default_context(cadata=ca_pem)
    async with httpx2.AsyncClient(base_url=url, verify=plain, headers=headers) as asking:
        refused = await asking.get("/v1/loans")
        assert refused.is_success or refused.json()["code"] in {"certificate_wanted", "forbidden"}
        answer = await asking.post("/v1/certificates", json={"csr": csr_text(key), "kind": kind})
        assert answer.status_code == 201, answer.text
    knowing = ssl.create_default_context(cadata=ca_pem)
    load_identity(knowing, _pem(key, answer.json()["certificate"]))
    return httpx2.AsyncClient(base_url=url, verify=knowing, headers=headers)


@contextlib.asynccontextmanager
async def strict_house(
    folder: Path, *, kind: type[House] = House, **settings: Any
) -> AsyncIterator[tuple[House, Door]]:
    """Open a custodian on a socket that wants certificates everywhere, with a model lent; ``kind`` sets enclaves up."""
    clock, root, unlock = MovedClock(), SimulatedRoot.generate(), Passphrase(b"correct horse")
    made = init_custodian(folder / "home", unlock, settings=STRICT | settings, clock=clock, kdf=CHEAP)
    service = open_custodian(
        folder / "home", unlock, make_verifier=lambda _: Verifier([SimulatedScheme(root.public)]), clock=clock
    )
    door = Door(_Bench(service, folder / "home", made))  # type: ignore[arg-type] # as much as it needs
    with contextlib.closing(service), door.listening():
        url = f"https://localhost:{door.port}"
        service.url = url
        async with await with_certificate(url, made.ca_pem, made.admin_token, "operator") as admin:
            house = kind(
                folder=folder, clock=clock, wires=Wires(), root=root, service=service, key=made.key, admin=admin
            )  # type: ignore[arg-type] # a clock that goes by itself
            (folder / "loan.json").touch(mode=0o600)
            await house.publish("digits", brightest())
            await house.lend(100, ttl_s=600)
            (folder / "loan.json").write_bytes(dump_json({**house.loan_file, "custodian_url": url}))
            yield house, door


@contextlib.asynccontextmanager
async def enclave(house: House, config: EnclaveConfig) -> AsyncIterator[tuple[Ready, io.StringIO]]:
    """Run an enclave's whole life in this loop, over sockets."""
    ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
    stop, log, clock = asyncio.Event(), io.StringIO(), SystemClock()
    around = Surroundings(clock=clock, log=EventLog(clock.wall, log))
    life = asyncio.create_task(serve_async(config, house.source(), around=around, stop=stop, on_ready=ready.set_result))
    try:
        await asyncio.wait({ready, life}, return_when=asyncio.FIRST_COMPLETED)
        if life.done():
            life.result()
        yield ready.result(), log
    finally:
        stop.set()
        assert await life in {Ending.DRAINED, Ending.STOPPED}


def events(log: io.StringIO) -> list[str]:
    """Return what an enclave said, in its order."""
    return [json.loads(line)["event"] for line in log.getvalue().splitlines()]
