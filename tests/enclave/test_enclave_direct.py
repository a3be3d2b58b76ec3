"""The way in over pinned TLS: the same answers, counts and receipts, and nothing for whoever could be overheard."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from enclave_models import doubler
from enclave_parties import ALICE, BOB, FakeClock, World, drive, infer_body, make_world

from cloister.channel.keyset import KEYSET_PATH, EvidenceDocument, Keyset
from cloister.crypto.sign import VerifyKey
from cloister.enclave.app import create_app
from cloister.enclave.clock import SystemClock
from cloister.enclave.config import Tls
from cloister.enclave.evidence import EvidenceSource
from cloister.enclave.logs import EventLog
from cloister.enclave.measure import measure_software
from cloister.enclave.serve import Surroundings, serve_async
from cloister.enclave.web.exchange import Answer, Head
from cloister.lending.receipt import verify_commitment, verify_receipt
from cloister.testing.simulated import simulated_policy
from cloister.wire import parse_b64u
from loops import asynchronous

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from cloister.enclave.config import EnclaveConfig
    from cloister.enclave.instance import EnclaveInstance
    from cloister.enclave.serve import Ready

ROW = [1.0, 2.0, 3.0]
INFER = "/v2/models/m/infer"


def bearer(token: bytes) -> dict[str, str]:
    return {"authorization": f"Bearer {token.decode()}"}


@contextlib.asynccontextmanager
async def serving(world: World, config: EnclaveConfig) -> AsyncIterator[tuple[EnclaveInstance, httpx2.AsyncClient]]:
    """Serve for real; the client takes any key, for what a consumer pins is the client's to test."""
    world.custodian.trust(simulated_policy(measure_software(config)))
    around = Surroundings(
        clock=world.clock,
        log=EventLog(world.clock.wall, world.log),
        transport=httpx2.ASGITransport(app=world.custodian.app()),
    )
    source = EvidenceSource(attester=world.attester(config))
    ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    task = asyncio.create_task(serve_async(config, source, around=around, stop=stop, on_ready=ready.set_result))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        found = await ready
        async with httpx2.AsyncClient(base_url=found.url, verify=context, trust_env=False) as client:
            yield found.instance, client
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


def pinned_world(tmp_path: Path, **settings: Any) -> tuple[World, EnclaveConfig]:
    world = make_world(tmp_path, {"m": doubler()}, clock=SystemClock())
    return world, world.config(**{"tls": Tls.GENERATED, "port": 0, **settings})


@asynchronous
async def test_an_inference_over_pinned_tls_is_counted_and_has_its_receipt(tmp_path: Path) -> None:
    world, config = pinned_world(tmp_path)
    async with serving(world, config) as (instance, client):
        keyset = Keyset.parse(EvidenceDocument.parse((await client.get(KEYSET_PATH)).content).keyset)
        assert len(keyset.tls_spki_sha256) == 1
        body = infer_body([ROW])
        answer = await client.post(INFER, content=body, headers=bearer(ALICE))
        assert answer.status_code == 200, answer.text
        assert answer.json()["outputs"][0]["data"] == [2.0, 4.0, 6.0]
        statement = parse_b64u(answer.headers["cloister-receipt"], what="receipt", cap=65_536)
        receipt = verify_receipt(statement, VerifyKey(keyset.receipt_keys[0].raw))
        for committed, name, data in (
            (receipt.request, "cloister-request-salt", body),
            (receipt.response, "cloister-response-salt", answer.content),
        ):
            verify_commitment(committed, parse_b64u(answer.headers[name], what="salt", size=32), data, what=name)
        assert (receipt.index, receipt.units, answer.headers["cloister-units"]) == (1, 1, "1")
        assert instance.metering.snapshot().served == 1


@asynchronous
async def test_the_rest_of_the_inner_api_answers_too(tmp_path: Path) -> None:
    world, config = pinned_world(tmp_path)
    async with serving(world, config) as (_, client):
        assert (await client.get("/v2/health/ready")).status_code == 200
        assert (await client.get("/v2", headers=bearer(ALICE))).json()["name"] == "cloister"
        assert (await client.get("/v2/models/m", headers=bearer(ALICE))).json()["name"] == "m"
        assert (await client.get("/v2/models/none", headers=bearer(ALICE))).status_code == 404
        assert (await client.post(INFER, content=b"{", headers=bearer(ALICE))).status_code == 400


@asynchronous
async def test_a_stranger_is_answered_401_and_costs_nothing(tmp_path: Path) -> None:
    world, config = pinned_world(tmp_path)
    async with serving(world, config) as (instance, client):
        for headers in ({}, bearer(b"stranger-token-0123456789")):
            answer = await client.post(INFER, content=infer_body([ROW]), headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert instance.metering.snapshot().served == 0


@asynchronous
async def test_an_idempotency_key_holds_over_both_ways_in(tmp_path: Path) -> None:
    world, config = pinned_world(tmp_path)
    async with serving(world, config) as (instance, client):
        headers = bearer(ALICE) | {"idempotency-key": "one"}
        first = await client.post(INFER, content=infer_body([ROW]), headers=headers)
        again = await client.post(INFER, content=infer_body([ROW]), headers=headers)
        assert first.content == again.content
        assert first.headers["cloister-receipt"] == again.headers["cloister-receipt"]
        other = await client.post(INFER, content=infer_body([[9.0, 9.0, 9.0]]), headers=headers)
        assert other.status_code == 422
        assert instance.metering.snapshot().served == 1


@asynchronous
async def test_t48_nothing_leaves_after_a_block(tmp_path: Path) -> None:
    world, config = pinned_world(tmp_path)
    async with serving(world, config) as (instance, client):
        world.custodian.block(consumer="alice")
        await instance.renewal.once()
        answer = await client.post(INFER, content=infer_body([ROW]), headers=bearer(ALICE))
        assert (answer.status_code, answer.json()["code"]) == (403, "blocked")
        assert (await client.post(INFER, content=infer_body([ROW]), headers=bearer(BOB))).status_code == 200


@asynchronous
async def test_t7_in_the_clear_nothing_is_taken_that_should_have_been_sealed(tmp_path: Path) -> None:
    """Bad input 37: neither without TLS nor behind somebody who ended it."""
    world = make_world(tmp_path, {"m": doubler()})
    async with world.enclave() as enclave:
        transport = httpx2.ASGITransport(app=create_app(enclave))
        async with httpx2.AsyncClient(transport=transport, base_url="https://enclave") as client:
            for path in (INFER, "/v2", "/v2/health/ready", "/v2/"):
                answer = await client.post(path, content=infer_body([ROW]), headers=bearer(ALICE))
                assert answer.status_code == 421
        assert enclave.metering.snapshot().served == 0


@asynchronous
async def test_t7_a_key_that_lies_in_the_operators_files_is_not_one_to_pin(tmp_path: Path) -> None:
    key, certificate = self_signed(tmp_path)
    world, config = pinned_world(tmp_path, tls=Tls.FILES, tls_key=key, tls_certificate=certificate)
    async with serving(world, config) as (_, client):
        keyset = Keyset.parse(EvidenceDocument.parse((await client.get(KEYSET_PATH)).content).keyset)
        assert keyset.tls_spki_sha256 == ()
        answer = await client.post(INFER, content=infer_body([ROW]), headers=bearer(ALICE))
        assert answer.status_code == 421


def self_signed(folder: Path) -> tuple[Path, Path]:
    from cryptography import x509  # noqa: PLC0415 - for this attack only
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    made = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "operator")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(made.public_key())
    signed = (
        builder.serial_number(1)
        .not_valid_before(now.replace(year=now.year - 1))
        .not_valid_after(now.replace(year=now.year + 1, day=1))
        .sign(made, SHA256())
    )
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    key.touch(mode=0o600)
    key.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    certificate.write_bytes(signed.public_bytes(Encoding.PEM))
    return key, certificate


@asynchronous
async def test_t82_both_ways_in_share_their_bounds(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, clock=FakeClock())
    async with world.enclave(limits={"max_exchanges": 1}) as enclave:
        holding = asyncio.create_task(drive(create_app(enclave), [b"x"], endless=True))
        await asyncio.sleep(0.05)
        refused = enclave.direct.begin(Head(method="POST", target=INFER, headers=(), pinned=True))
        assert isinstance(refused, Answer)
        assert refused.status == 429
        holding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holding
        enclave.admission.draining = True
        refused = enclave.direct.begin(Head(method="POST", target=INFER, headers=(), pinned=True))
        assert isinstance(refused, Answer)
        assert refused.status == 503
        assert json.loads(bytes(refused.body))["status"] == 503
