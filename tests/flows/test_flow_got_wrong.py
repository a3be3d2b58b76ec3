"""What an earlier proof of concept of this idea got wrong, each as a test over all three real parties."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx2
import numpy as np
import pytest
from flow_house import CUSTODIAN, ENCLAVE, TTL_S, asynchronous, brightest, open_house, picky, row

from cloister.channel.bhttp import BinaryRequest
from cloister.channel.keyset import CHUNKED_REQUEST_TYPE, KEYSET_PATH
from cloister.client.plan import drive_async
from cloister.errors import Rejected, Unavailable
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from pathlib import Path

STAFF_ROUTES = (
    ("GET", "/v1/models"),
    ("POST", "/v1/models"),
    ("POST", "/v1/loans"),
    ("GET", "/v1/loans"),
    ("POST", "/v1/blocks"),
    ("DELETE", "/v1/blocks/loan/loan-abcdefghijklmnop"),
    ("GET", "/v1/audit"),
    ("POST", "/v1/tokens"),
    ("GET", "/v1/instances"),
)


@asynchronous
async def test_the_enclave_itself_refuses_at_zero_whatever_client_asks(tmp_path: Path) -> None:
    """It ran the model when the budget was zero; only the demo client refused."""
    async with open_house(tmp_path) as house:
        await house.lend(1)
        async with house.enclave() as enclave, await house.client() as client:
            await client.infer("digits", row(0))
            raw = BinaryRequest(
                method="POST",
                path="/v2/models/digits/infer",
                headers=(("authorization", f"Bearer {house.tokens['clinic']}"),),
                body=b'{"inputs":[{"name":"image","datatype":"FP32","shape":[1,4],"data":[1,0,0,0]}]}',
            )
            for _ in range(3):
                answer, _enclave = await drive_async(client._session.ask(raw), client._wire.take)
                assert answer.status == 402
                assert b"allowance_exhausted" in answer.body
            assert enclave.metering.snapshot().used["loan"] == 1


@asynchronous
async def test_twenty_at_once_share_seven_units_and_no_more(tmp_path: Path) -> None:
    """Check and charge were two calls on an unlocked file; concurrent calls passed together."""
    async with open_house(tmp_path) as house:
        await house.lend(7)
        async with house.enclave(), await house.client() as client:
            await client.model("digits")
            tasks = [client.infer("digits", row(index % 4)) for index in range(20)]
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            served = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
            refused = [outcome for outcome in outcomes if isinstance(outcome, Rejected)]
            assert len(served) == 7
            assert {error.code for error in refused} == {"allowance_exhausted"}
            assert len(refused) == 13
            assert sorted(answer.receipt.receipt.index for answer in served) == list(range(1, 8))


@asynchronous
async def test_a_batch_counts_every_item(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.lend(5)
        async with house.enclave(), await house.client() as client:
            answer = await client.infer("digits", np.concatenate([row(index) for index in range(4)]))
            assert (answer.units, answer.remaining) == (4, 1)
            with pytest.raises(Rejected, match="allowance_exhausted"):
                await client.infer("digits", np.concatenate([row(0), row(1)]))


@asynchronous
async def test_a_failed_run_is_not_charged(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"picky": picky()}) as house:
        await house.lend(3)
        async with house.enclave() as enclave, await house.client() as client:
            with pytest.raises(Unavailable, match="engine_failed"):
                await client.infer("picky", np.array([99], dtype=np.int64))
            assert enclave.metering.snapshot().used.get("loan", 0) == 0
            assert (await client.infer("picky", np.array([1], dtype=np.int64))).outputs["found"].tolist() == [2.0]


@asynchronous
async def test_a_top_up_adds(tmp_path: Path) -> None:
    """Top-up replaced the budget instead of adding."""
    async with open_house(tmp_path) as house:
        await house.lend(10)
        made = await house.post(f"/v1/loans/{house.loan}/top-up", {"units": 5})
        assert made["balance"] == 15
        assert (await house.post(f"/v1/loans/{house.loan}/set", {"units": 4}))["balance"] == 4


@asynchronous
async def test_a_request_for_more_is_read_and_answered(tmp_path: Path) -> None:
    """A request for more was written down and read by nobody."""
    async with open_house(tmp_path) as house:
        await house.lend(1)
        borrower = {"authorization": f"Bearer {house.loan_file['token']}"}
        path = f"/v1/loans/{house.loan}/requests"
        for units in (5, 7):
            answer = await house.admin.post(path, json={"units": units, "reason": "queue"}, headers=borrower)
            assert answer.is_success, answer.text
        asked = {item["units"]: item["id"] for item in (await house.get(f"/v1/loans/{house.loan}"))["requests"]}
        await house.post(f"{path}/{asked[5]}/approve", {})
        await house.post(f"{path}/{asked[7]}/deny", {"reason": "not this month"})
        summary = (await house.admin.get(f"/v1/loans/{house.loan}/summary", headers=borrower)).json()
        assert {item["state"] for item in summary["requests"]} == {"approved", "denied"}
        assert (await house.meter())["granted"] == 6


@asynchronous
async def test_nobody_without_a_token_does_anything_at_the_custodian(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.lend(1)
        for token in (None, house.tokens["clinic"]):
            headers = {"authorization": "" if token is None else f"Bearer {token}"}
            for method, path in STAFF_ROUTES:
                answer = await house.admin.request(method, CUSTODIAN + path, headers=headers)
                assert answer.status_code == 401, (method, path)
        borrower = {"authorization": f"Bearer {house.loan_file['token']}"}
        for method, path in STAFF_ROUTES:
            answer = await house.admin.request(method, CUSTODIAN + path, headers=borrower)
            assert answer.status_code in {401, 403, 404}, (method, path)


@asynchronous
async def test_a_quote_is_worth_one_nonce(tmp_path: Path) -> None:
    """The quote was taken once at boot without a nonce, so it could be replayed."""
    async with open_house(tmp_path) as house:
        await house.lend(1)
        async with house.enclave():
            nonces = [dump_b64u(bytes((index,)) * 32) for index in (1, 2)]
            enclave = house.wires.apps[8440]
            async with httpx2.AsyncClient(transport=enclave, base_url=ENCLAVE) as http:
                first, second = [(await http.get(KEYSET_PATH, params={"nonce": nonce})).json() for nonce in nonces]
            assert first["evidence"] != second["evidence"]
            assert first["keyset"] == second["keyset"]


@asynchronous
async def test_the_model_is_ciphertext_wherever_the_borrower_can_look(tmp_path: Path) -> None:
    """The model travelled in plain form and was never encrypted at rest; no key was released."""
    plain = brightest("a-distinctive-input-name-of-the-model")
    async with open_house(tmp_path, models={"secret": plain}) as house:
        await house.lend(1)
        async with house.enclave():
            sealed = b"".join(path.read_bytes() for path in house.packages["secret"].rglob("*") if path.is_file())
            assert b"a-distinctive-input-name" not in sealed
            for seen in house.wires.seen.values():
                assert b"a-distinctive-input-name" not in seen
            assert "key_released" in [entry["kind"] for entry in (await house.get("/v1/audit?limit=1000"))["entries"]]


@asynchronous
async def test_counts_are_per_loan_model_and_consumer(tmp_path: Path) -> None:
    """One global counter: not per model, consumer or loan."""
    async with open_house(tmp_path, models={"digits": brightest(), "scans": brightest()}) as house:
        await house.lend(
            10,
            consumers=({"id": "clinic", "allowance": 3}, {"id": "ward"}),
            models=[
                {"digest": house.digests["digits"], "name": "digits"},
                {"digest": house.digests["scans"], "name": "scans", "allowance": 2},
            ],
        )
        async with house.enclave(), await house.client() as clinic, await house.client("ward") as ward:
            for _ in range(2):
                await ward.infer("scans", row(1))
            with pytest.raises(Rejected, match="allowance_exhausted"):
                await ward.infer("scans", row(1))
            for _ in range(3):
                await clinic.infer("digits", row(1))
            with pytest.raises(Rejected, match="allowance_exhausted"):
                await clinic.infer("digits", row(1))
            assert (await ward.infer("digits", row(1))).remaining == 4


@asynchronous
async def test_a_blocked_consumer_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.lend(10, consumers=("clinic", "ward"))
        async with house.enclave() as enclave, await house.client() as clinic, await house.client("ward") as ward:
            await clinic.infer("digits", row(1))
            body = {"kind": "consumer", "loan": house.loan, "reason": "leaked token", "subject": "clinic"}
            await house.post("/v1/blocks", body)
            house.clock.advance(TTL_S / 3)
            await enclave.renewal.once()
            with pytest.raises(Rejected) as caught:
                await clinic.infer("digits", row(1))
            assert caught.value.code == "blocked"
            assert (await ward.infer("digits", row(2))).label == "class-2"


@asynchronous
async def test_strangers_without_a_consumer_token_are_refused_inside(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.lend(10)
        async with house.enclave(), await house.client("nobody") as stranger:
            with pytest.raises(Rejected) as caught:
                await stranger.infer("digits", row(1))
            assert caught.value.code == "unauthorized"


@asynchronous
async def test_the_plain_way_to_ask_does_not_exist(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.lend(10)
        async with (
            house.enclave(),
            httpx2.AsyncClient(transport=house.wires.apps[8440], base_url=ENCLAVE) as http,
        ):
            assert (await http.post("/v2/models/digits/infer", json={})).status_code == 404
            answer = await http.post("/.well-known/ohttp-gateway", json={"inputs": []})
            assert answer.status_code == 415
            noise = {"content-type": CHUNKED_REQUEST_TYPE}
            assert (await http.post("/.well-known/ohttp-gateway", content=b"x", headers=noise)).status_code == 400
