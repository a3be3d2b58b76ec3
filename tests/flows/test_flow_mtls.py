"""The whole story with certificates required on every hop there is: real sockets, real processes' code, TLS 1.3."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import ssl
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from flow_house import CHEAP, House, Wires, asynchronous, brightest, row
from mtls_kit import Door, MovedClock, csr_text, new_key, now

from cloister.attest.verifier import Verifier
from cloister.client import AsyncClient, CustodianPin
from cloister.custodian.setup import init_custodian, open_custodian
from cloister.custodian.vaults.encrypted_file import Passphrase
from cloister.enclave.certificate import load_identity
from cloister.enclave.clock import SystemClock
from cloister.enclave.logs import EventLog
from cloister.enclave.serve import Ending, Ready, Surroundings, serve_async
from cloister.errors import Rejected
from cloister.lending.messages import Lease
from cloister.testing.simulated import SimulatedRoot, SimulatedScheme
from cloister.wire import dump_json, parse_time

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


async def _with_certificate(url: str, ca_pem: str, token: str, kind: str) -> httpx2.AsyncClient:
    """Return a client with the token's own certificate, got by the token on a connection without one."""
    key, headers = new_key(), {"authorization": f"Bearer {token}"}
    plain = ssl.create_default_context(cadata=ca_pem)
    async with httpx2.AsyncClient(base_url=url, verify=plain, headers=headers) as asking:
        refused = await asking.get("/v1/loans")
        assert refused.json()["code"] in {"certificate_wanted", "forbidden"}
        answer = await asking.post("/v1/certificates", json={"csr": csr_text(key), "kind": kind})
        assert answer.status_code == 201, answer.text
    knowing = ssl.create_default_context(cadata=ca_pem)
    load_identity(knowing, _pem(key, answer.json()["certificate"]))
    return httpx2.AsyncClient(base_url=url, verify=knowing, headers=headers)


@contextlib.asynccontextmanager
async def _strict_house(folder: Path) -> AsyncIterator[tuple[House, Door]]:
    clock, root, unlock = MovedClock(), SimulatedRoot.generate(), Passphrase(b"correct horse")
    made = init_custodian(folder / "home", unlock, settings=STRICT, clock=clock, kdf=CHEAP)
    service = open_custodian(
        folder / "home", unlock, make_verifier=lambda _: Verifier([SimulatedScheme(root.public)]), clock=clock
    )
    door = Door(_Bench(service, folder / "home", made))  # type: ignore[arg-type] # as much as it needs
    with contextlib.closing(service), door.listening():
        url = f"https://localhost:{door.port}"
        service.url = url
        async with await _with_certificate(url, made.ca_pem, made.admin_token, "operator") as admin:
            house = House(
                folder=folder, clock=clock, wires=Wires(), root=root, service=service, key=made.key, admin=admin
            )  # type: ignore[arg-type] # a clock that goes by itself
            (folder / "loan.json").touch(mode=0o600)
            await house.publish("digits", brightest())
            await house.lend(100, ttl_s=600)
            (folder / "loan.json").write_bytes(dump_json({**house.loan_file, "custodian_url": url}))
            yield house, door


@contextlib.asynccontextmanager
async def _enclave(house: House, config: EnclaveConfig) -> AsyncIterator[tuple[Ready, io.StringIO]]:
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


def _events(log: io.StringIO) -> list[str]:
    return [json.loads(line)["event"] for line in log.getvalue().splitlines()]


@pytest.mark.timeout(180)
@asynchronous
async def test_lend_ask_count_and_end_with_certificates_required_everywhere(tmp_path: Path) -> None:
    async with _strict_house(tmp_path) as (house, door):
        config = replace(house.config(), port=0)
        async with _enclave(house, config) as (ready, log):
            pin = CustodianPin(key=house.key, url=house.service.url, ca_pem=house.loan_file["ca_pem"])
            async with await AsyncClient.verify(
                ready.url, house.trust(custodian=pin), token=house.tokens["clinic"], schemes=house.schemes()
            ) as client:
                answer = await client.infer("digits", {"image": row(2)})
                assert answer.outputs["label"].tolist() == [2]
            issued = (await house.get("/v1/certificates"))["certificates"]
            assert sorted(item["name"].split("/")[0] for item in issued) == ["enclave", "operator"]
            assert _events(log).count("certificate_renewed") == 1
            # Half a life later, by the enclave's own clock, the renew loop gets another one.
            ready.instance.identity._next = ready.instance.identity._clock.monotonic()
            await ready.instance.renewal.once()
            assert _events(log).count("certificate_renewed") == 2
            # A borrower's token alone does not get near its own loan; with its certificate it does.
            token = house.loan_file["token"]
            async with await _with_certificate(house.service.url, door.ca_pem, token, "borrower") as borrower:
                summary = await borrower.get(f"/v1/loans/{house.loan}/summary")
                assert summary.status_code == 200, summary.text
                stolen = await borrower.get(
                    "/v1/loans", headers={"authorization": house.admin.headers["authorization"]}
                )
                assert stolen.json()["code"] == "wrong_peer"  # an admin's token behind a borrower's certificate
            # Its certificate ends while a connection is open: refused there, it gets another and comes back by itself.
            names = (await house.get("/v1/certificates"))["certificates"]
            ends = max(parse_time(item["ends_at"], what="end") for item in names if item["name"].startswith("enclave"))
            house.clock.ahead = ends - now() + timedelta(milliseconds=100)  # type: ignore[attr-defined] # is moved
            assert isinstance(await ready.instance.renewal.once(), Lease)
            assert _events(log).count("certificate_renewed") == 3
        kinds = [entry["kind"] for entry in (await house.get("/v1/audit?limit=1000"))["entries"]]
        assert kinds.count("instance_closed") == 1, "the last count came through, by certificate"
        assert "access_denied" in kinds
        assert kinds.count("certificate_issued") == 5


@pytest.mark.timeout(180)
@asynchronous
async def test_a_block_leaves_a_running_enclave_without_a_certificate_and_it_ends(tmp_path: Path) -> None:
    async with _strict_house(tmp_path) as (house, _door):
        config = replace(house.config(), port=0)
        async with _enclave(house, config) as (ready, log):
            instance = ready.instance
            await house.post("/v1/blocks", {"kind": "instance", "subject": instance.metering.instance, "reason": ""})
            with pytest.raises(Rejected, match="blocked"):
                await instance.identity.ask(within=instance.metering.terms.ttl)
            assert "certificate_failed" in _events(log)
            answer = await instance.renewal.once()  # while the old certificate lasts, the stop is heard at once
            assert answer.stop  # type: ignore[union-attr] # a refusal
