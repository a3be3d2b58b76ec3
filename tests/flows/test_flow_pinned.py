"""A consumer that pins, against the enclave as it is served: the same receipts, counts and chain over both ways in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from enclave_parties import ALICE
from test_enclave_direct import pinned_world, self_signed, serving

from cloister.attest.rules import NotChecked
from cloister.client import AsyncClient, Trust
from cloister.client.way import Way
from cloister.enclave.config import Tls
from cloister.enclave.measure import measure_software
from cloister.errors import Rejected
from cloister.testing.simulated import SimulatedScheme, simulated_policy
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path

    from enclave_parties import World

    from cloister.enclave.config import EnclaveConfig

ROW = np.array([[1.0, 2.0, 3.0]], dtype=np.float32)


async def consumer(world: World, config: EnclaveConfig, url: str, way: Way) -> AsyncClient:
    unchecked = NotChecked("not in this test")
    trust = Trust(
        policy=simulated_policy(measure_software(config)),
        simulated_root=world.custodian.root.public,
        custodian=unchecked,
        operators=unchecked,
        models=unchecked,
        tls=unchecked,
    )
    schemes = [SimulatedScheme(world.custodian.root.public)]
    return await AsyncClient.verify(url, trust, token=ALICE.decode(), schemes=schemes, way=way)


@asynchronous
async def test_both_ways_in_give_the_same_proven_answers_and_one_chain(tmp_path: Path) -> None:
    world, config = pinned_world(tmp_path)
    async with serving(world, config) as (instance, http):
        url = str(http.base_url).rstrip("/")
        answers = []
        for way in (Way.PINNED, Way.OHTTP, Way.AUTO, Way.PINNED):
            async with await consumer(world, config, url, way) as client:
                answers.append(await client.infer("m", ROW))
        assert [answer.receipt.receipt.index for answer in answers] == [1, 2, 3, 4]
        assert all(np.array_equal(next(iter(answer.outputs.values())), ROW * 2) for answer in answers)
        assert instance.metering.snapshot().served == 4


@asynchronous
async def test_t7_what_the_operator_could_read_is_not_pinned(tmp_path: Path) -> None:
    key, certificate = self_signed(tmp_path)
    world, config = pinned_world(tmp_path, tls=Tls.FILES, tls_key=key, tls_certificate=certificate)
    async with serving(world, config) as (_, http):
        url = str(http.base_url).rstrip("/")
        with pytest.raises(Rejected, match="not_pinned"):
            await consumer(world, config, url, Way.PINNED)
        async with await consumer(world, config, url, Way.AUTO) as client:
            assert (await client.infer("m", ROW)).units == 1
