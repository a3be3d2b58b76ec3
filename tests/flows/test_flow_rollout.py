"""A newer version of a model under a running loan: through all three parties, with requests all the time."""

from __future__ import annotations

import asyncio
import shutil
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from flow_house import House, open_house, row
from onnx import TensorProto, helper
from test_flow_contract import KEY, sign

from cloister.attest.rules import NotChecked
from cloister.errors import CloisterError, Rejected
from cloister.lending.contract import Contract
from loops import asynchronous

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from cloister.client import AsyncClient
    from cloister.enclave.engines.tensor import Tensor
    from cloister.enclave.instance import EnclaveInstance


ANY = NotChecked("follows the owner's versions")


def says(number: int) -> bytes:
    """Return a model that answers every row with ``number``: its version."""
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["k"], value_float=float(number)),
            helper.make_node("Constant", [], ["zero"], value_float=0.0),
            helper.make_node("Mul", ["image", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "k"], ["version"]),
        ],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("version", TensorProto.FLOAT, ["batch", 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())


TIGHT = {"engine_workers": 2, "memory_budget": len(says(1))}
"""Settings under which one version fits and two do not."""


async def publish(house: House, number: int) -> str:
    """Seal and publish another version of ``digits`` and put it where the enclave looks; return its digest."""
    await house.publish(f"digits-{number}", says(number))
    digest = house.digests.pop(f"digits-{number}")
    house.packages.pop(f"digits-{number}").rename(house.packages["shelf"] / f"v{number}")
    return digest


async def roll_out(house: House, digest: str) -> Any:
    house.clock.advance(1)  # what changes the contract in any other way ends who attested before
    return await house.post(f"/v1/loans/{house.loan}/models", {"digest": digest, "name": "digits"})


@asynccontextmanager
async def lent_house(tmp_path: Path, **more: Any) -> AsyncIterator[House]:
    """Open a house that lends ``digits``, with a shelf for newer packages."""
    async with open_house(tmp_path, models={"digits": says(1)}) as house:
        shelf = tmp_path / "shelf"
        shelf.mkdir()
        house.packages["digits"].rename(shelf / "v1")
        house.packages = {"shelf": shelf}
        models = [{"allowance": 9000, "digest": house.digests["digits"], "name": "digits"}]
        await house.lend(9000, max_ceiling=4000, models=models, **more)
        yield house


@asynccontextmanager
async def two_askers(
    tmp_path: Path, settings: dict[str, Any]
) -> AsyncIterator[tuple[House, EnclaveInstance, AsyncClient, AsyncClient]]:
    """Open a house with one enclave and two consumers."""
    async with (
        lent_house(tmp_path) as house,
        house.enclave(settings=settings) as enclave,
        await house.client(models=ANY) as client,
        await house.client(models=ANY) as other,
    ):
        yield house, enclave, client, other


async def version(client: AsyncClient) -> tuple[int, str]:
    """Return which version answered, and the digest that its proven receipt names."""
    answer = await client.infer("digits", row(1))
    return int(np.asarray(answer.outputs["version"])[0, 0]), answer.digest


@asynchronous
async def test_a_newer_version_is_served_without_a_restart_and_receipts_name_it(tmp_path: Path) -> None:
    async with lent_house(tmp_path) as house:
        first = house.digests["digits"]
        async with house.enclave() as enclave, await house.client(models=ANY) as client:
            assert await version(client) == (1, first)
            held = await house.meter()
            second = await publish(house, 2)
            assert (await roll_out(house, second))["in_force"] is True
            assert await version(client) == (1, first)  # nobody has told the enclave yet
            await enclave.renewal.once()
            assert await version(client) == (1, first)
            before = {config.key_id for config in enclave.publisher.keys.configs}
            assert await enclave.rollout.tick() is True
            # An id that is used again would make a request of before undecipherable, which nobody asks again for.
            assert not before & {config.key_id for config in enclave.publisher.keys.configs}
            assert await version(client) == (2, second)
            assert await enclave.rollout.tick() is False
            await enclave.renewal.once()
            assert await version(client) == (2, second)
            after = await house.meter()
            assert sum(after.values()) == sum(held.values())  # the allowance is what it was
        assert house.log.getvalue().count('"model_rolled_out"') == 1
        async with house.enclave() as _, await house.client(models=ANY) as client:
            assert await version(client) == (2, second)  # who boots now is released the newer one alone


@asynchronous
@pytest.mark.parametrize("tight", [False, True], ids=["both fit", "one fits"])
async def test_no_request_is_lost_while_versions_change(tmp_path: Path, *, tight: bool) -> None:
    async with lent_house(tmp_path) as house:
        settings = {"memory_budget": len(says(1)), "engine_workers": 4} if tight else {"engine_workers": 4}
        async with house.enclave(settings=settings) as enclave:
            seen: list[tuple[int, str]] = []
            over = asyncio.Event()

            async def ask() -> None:
                async with await house.client(models=ANY) as client:
                    while not over.is_set():
                        seen.append(await version(client))
                        await asyncio.sleep(0.02)
                    seen.append(await version(client))

            askers = [asyncio.create_task(ask()) for _ in range(4)]
            digests = {1: house.digests["digits"]}
            for number in (2, 3):
                digests[number] = await publish(house, number)
                await roll_out(house, digests[number])
                await enclave.renewal.once()
                assert await enclave.rollout.tick() is True
                while seen.count((number, digests[number])) < 8:
                    assert not any(asker.done() for asker in askers)
                    await asyncio.sleep(0.01)
            over.set()
            await asyncio.gather(*askers)
            assert {number for number, _ in seen} == {1, 2, 3}
            assert all(digests[number] == digest for number, digest in seen)  # each receipt names what answered
            assert enclave.pool.models[0].terms.digest == digests[3]
            await enclave.renewal.once()
            used = enclave.metering.snapshot().used
            assert used == {"loan": len(seen), "model:digits": len(seen)}  # what was asked twice was charged once
            assert {model.terms.name for model in enclave.pool.models} == {"digits"}
            await enclave.renewal.once()  # usage reports with records of all three versions were taken
            assert enclave.metering.snapshot().unreported == 0
            shown = await house.get(f"/v1/loans/{house.loan}")
            assert [item["state"] for item in shown["instances"]] == ["active"]


@asynchronous
async def test_a_countersigned_contract_rolls_nothing_out_before_the_borrower_has_signed(tmp_path: Path) -> None:
    async with lent_house(tmp_path, clauses=KEY) as house:
        await sign(house)
        async with house.enclave() as enclave, await house.client(models=ANY) as client:
            second = await publish(house, 2)
            offered = await roll_out(house, second)
            assert offered["in_force"] is False
            await enclave.renewal.once()
            assert await enclave.rollout.tick() is False
            assert (await version(client))[0] == 1
            signed = await sign(house)
            await enclave.renewal.once()  # a changed contract would end this instance; a newer version does not
            assert await enclave.rollout.tick() is True
            assert await version(client) == (2, second)
            assert (await client.contract()).contract.digest == Contract.parse(signed.payload).digest


@asynchronous
async def test_a_consumer_who_pinned_the_older_version_is_refused_and_not_answered_by_another(tmp_path: Path) -> None:
    async with lent_house(tmp_path) as house, house.enclave() as enclave, await house.client() as client:
        assert (await version(client))[0] == 1
        await roll_out(house, await publish(house, 2))
        await enclave.renewal.once()
        await enclave.rollout.tick()
        with pytest.raises(Rejected) as refused:
            await version(client)
        assert refused.value.code == "model_mismatch"


@asynchronous
async def test_without_the_newer_package_the_older_version_goes_on_and_it_is_tried_again(tmp_path: Path) -> None:
    async with (
        lent_house(tmp_path) as house,
        house.enclave() as enclave,
        await house.client(models=ANY) as client,
    ):
        second = await publish(house, 2)
        shelf = house.packages["shelf"]
        shutil.move(shelf / "v2", tmp_path / "late")
        await roll_out(house, second)
        await enclave.renewal.once()
        before = len(house.log.getvalue().split('"attested"'))
        assert await enclave.rollout.tick() is False
        assert len(house.log.getvalue().split('"attested"')) == before  # the custodian was not bothered
        assert '"code": "model_missing"' in house.log.getvalue()
        assert (await version(client))[0] == 1
        shutil.move(tmp_path / "late", shelf / "v2")
        assert await enclave.rollout.tick() is False  # once for each renewal
        await enclave.renewal.once()
        assert await enclave.rollout.tick() is True
        assert await version(client) == (2, second)


@asynchronous
async def test_a_damaged_newer_package_leaves_the_older_version_serving(tmp_path: Path) -> None:
    async with (
        lent_house(tmp_path) as house,
        house.enclave() as enclave,
        await house.client(models=ANY) as client,
    ):
        second = await publish(house, 2)
        (blob,) = [item for item in (house.packages["shelf"] / "v2" / "blobs").iterdir() if not item.suffix]
        blob.chmod(0o600)
        was = blob.read_bytes()
        blob.write_bytes(bytes(len(was)))
        await roll_out(house, second)
        await enclave.renewal.once()
        assert await enclave.rollout.tick() is False
        assert (await version(client))[0] == 1
        assert enclave.pool.resident_bytes == len(says(1))
        blob.write_bytes(was)
        await enclave.renewal.once()
        assert await enclave.rollout.tick() is True
        assert await version(client) == (2, second)
        assert house.log.getvalue().count('"event": "attested"') == 2  # at boot, and once for the newer version


@asynchronous
async def test_a_blocked_older_version_stops_at_the_next_renewal_of_who_still_has_it(tmp_path: Path) -> None:
    """T24: while versions change both are in the lease; the owner ends the older one at any time."""
    async with lent_house(tmp_path) as house:
        first = house.digests["digits"]
        async with house.enclave() as enclave, await house.client(models=ANY) as client:
            second = await publish(house, 2)
            await roll_out(house, second)
            bound = await house.post("/v1/blocks", {"kind": "model", "subject": first, "reason": "old"})
            assert bound["bound"]["units"] > 0
            await enclave.renewal.once()
            with pytest.raises(CloisterError):
                await version(client)
            assert await enclave.rollout.tick() is True
            assert await version(client) == (2, second)


@asynchronous
async def test_no_older_version_comes_back(tmp_path: Path) -> None:
    """T24."""
    async with lent_house(tmp_path) as house:
        first = house.digests["digits"]
        await roll_out(house, await publish(house, 2))
        for digest, status in ((first, 409), ("0" * 64, 404)):
            answer = await house.admin.post(f"/v1/loans/{house.loan}/models", json={"digest": digest, "name": "digits"})
            assert answer.status_code == status
        answer = await house.admin.post(f"/v1/loans/{house.loan}/models", json={"digest": first, "name": "other"})
        assert answer.status_code == 404


@asynchronous
async def test_changed_clauses_still_end_running_instances(tmp_path: Path) -> None:
    """A rollout changes versions alone: what comes with it is an amendment, and must be attested under anew."""
    async with lent_house(tmp_path) as house, house.enclave() as enclave:
        await roll_out(house, await publish(house, 2))
        house.clock.advance(1)
        await house.post(f"/v1/loans/{house.loan}/amend", {"clauses": {"purpose": "triage"}})
        answer = await enclave.renewal.once()
        assert answer.stop  # type: ignore[union-attr]  # a refusal
        assert await enclave.rollout.tick() is False


async def closed_to_new_requests(enclave: EnclaveInstance) -> None:
    while enclave.pool._current["digits"].leaving is None:  # noqa: ASYNC110 - the pool tells nobody
        await asyncio.sleep(0.01)


def hold(enclave: EnclaveInstance) -> tuple[threading.Event, threading.Event]:
    """Let the next run of the version that is served now wait; return what says that it runs, and what lets it go."""
    running, go = threading.Event(), threading.Event()
    loaded = enclave.pool._current["digits"].loaded
    assert loaded is not None
    run = loaded.running.run

    def held(inputs: Sequence[Tensor], outputs: Sequence[str]) -> tuple[Tensor, ...]:
        running.set()
        go.wait(30)
        return run(inputs, outputs)

    loaded.running.run = held  # type: ignore[method-assign]  # holds the real one up
    return running, go


@asynchronous
async def test_what_runs_in_the_older_version_finishes_there_while_the_newer_one_answers(tmp_path: Path) -> None:
    async with two_askers(tmp_path, {"engine_workers": 2}) as (house, enclave, client, other):
        first, second = house.digests["digits"], await publish(house, 2)
        running, go = hold(enclave)
        early = asyncio.create_task(version(client))
        await asyncio.to_thread(running.wait, 30)
        await roll_out(house, second)
        await enclave.renewal.once()
        assert await enclave.rollout.tick() is True
        assert await version(other) == (2, second)
        assert enclave.pool.resident_bytes == 2 * len(says(1))  # nothing is taken from under a run
        go.set()
        assert await early == (1, first)
        assert await version(client) == (2, second)
        await asyncio.gather(*enclave.pool._retiring)
        assert enclave.pool.resident_bytes == len(says(1))
        assert enclave.pool._loader._released.keys() == {second}  # its key went with it
        assert enclave.metrics.value("cloister_model_loaded", "digits") == 1
        assert enclave.metrics.value("cloister_models_bytes") == len(says(1))


@asynchronous
async def test_where_one_fits_the_older_version_drains_and_nobody_new_enters_it(tmp_path: Path) -> None:
    async with two_askers(tmp_path, TIGHT) as (house, enclave, client, other):
        first, second = house.digests["digits"], await publish(house, 2)
        running, go = hold(enclave)
        early = asyncio.create_task(version(client))
        await asyncio.to_thread(running.wait, 30)
        await roll_out(house, second)
        await enclave.renewal.once()
        changing = asyncio.create_task(enclave.rollout.tick())
        await closed_to_new_requests(enclave)
        late = asyncio.create_task(version(other))
        await asyncio.sleep(0.05)
        assert not changing.done()
        assert not late.done()
        go.set()
        assert await early == (1, first)
        assert await changing is True
        assert await late == (2, second)
        assert enclave.pool.resident_bytes == len(says(1))


@asynchronous
async def test_a_version_that_does_not_drain_in_time_goes_on_and_answers_who_waited(tmp_path: Path) -> None:
    async with two_askers(tmp_path, TIGHT) as (house, enclave, client, other):
        first, second = house.digests["digits"], await publish(house, 2)
        enclave.pool._patience_s = 0.2  # seconds; limits are measured, and would be another enclave
        running, go = hold(enclave)
        early = asyncio.create_task(version(client))
        await asyncio.to_thread(running.wait, 30)
        await roll_out(house, second)
        await enclave.renewal.once()
        changing = asyncio.create_task(enclave.rollout.tick())
        await closed_to_new_requests(enclave)
        late = asyncio.create_task(version(other))
        assert await changing is False
        go.set()
        assert await early == (1, first)
        assert await late == (1, first)
        await enclave.renewal.once()
        assert await enclave.rollout.tick() is True
        assert await version(other) == (2, second)
