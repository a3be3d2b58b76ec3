"""Who is refused, and what does not exist, over all three real parties."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2
import pytest
from flow_house import ENCLAVE, TTL_S, open_house, row

from cloister.channel.keyset import CHUNKED_REQUEST_TYPE
from cloister.errors import Rejected
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path


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
            assert (await http.post("/v2/models/digits/infer", json={})).status_code == 421
            answer = await http.post("/.well-known/ohttp-gateway", json={"inputs": []})
            assert answer.status_code == 415
            noise = {"content-type": CHUNKED_REQUEST_TYPE}
            assert (await http.post("/.well-known/ohttp-gateway", content=b"x", headers=noise)).status_code == 400
