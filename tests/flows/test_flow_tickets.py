"""Ticket mode through the real parties: one signature per answer, proven by the consumer, stopped at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from flow_house import asynchronous, open_house, row

from cloister.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from flow_house import House


async def _lend(house: House, allowance: int) -> None:
    models = [{"digest": digest, "name": name, "ticketed": True} for name, digest in house.digests.items()]
    await house.lend(allowance, models=models)


@asynchronous
async def test_each_answer_takes_one_ticket_and_the_count_is_exact(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await _lend(house, 3)
        async with house.enclave(), await house.client() as client:
            assert await house.meter() == {
                "balance": 3, "granted": 3, "held": 0, "owed": 0, "spent": 0, "written_off": 0,
            }  # fmt: skip
            answers = await asyncio.gather(*(client.infer("digits", row(index)) for index in range(3)))
            assert [answer.label for answer in answers] == ["class-0", "class-1", "class-2"]
            assert sorted(answer.receipt.receipt.index for answer in answers) == [1, 2, 3]
            with pytest.raises(Rejected) as caught:
                await client.infer("digits", row(0))
            assert caught.value.code == "allowance_exhausted"
            meter = await house.meter()
            assert (meter["balance"], meter["spent"]) == (0, 3)


@asynchronous
async def test_a_cut_network_and_a_block_stop_at_once_and_nothing_is_served(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await _lend(house, 9)
        async with house.enclave() as enclave, await house.client() as client:
            await client.infer("digits", row(0))
            house.wires.cut.add(8443)
            with pytest.raises(Unavailable):
                await client.infer("digits", row(1))
            house.wires.cut.clear()
            await client.infer("digits", row(1))  # what was pending is sent again first
            bound = (await house.post("/v1/blocks", {"kind": "loan", "reason": "drill", "subject": house.loan}))[
                "bound"
            ]
            assert bound["units"] == 0
            with pytest.raises(Rejected) as caught:
                await client.infer("digits", row(2))
            assert caught.value.code == "blocked"
            assert enclave.metering.must_end()
