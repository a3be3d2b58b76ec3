"""Waiting for the engine: in fair order, in time, and without a trace of whoever leaves."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING

from enclave_engines import WatchedEngine
from enclave_models import doubler
from enclave_parties import ALICE, BOB, Answer, ConsumerSide, World, make_world

from cloister.lending.terms import LOAN_METER
from loops import asynchronous

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cloister.enclave.instance import EnclaveInstance

ROW = [1.0, 2.0, 3.0]


class Held:
    """An engine whose runs wait until they are let go; ``order`` says whose came when, by the number they sent."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.engine = WatchedEngine(before=lambda: self.go.wait(20) and None)

    async def started(self) -> None:
        while not self.engine.runs:  # noqa: ASYNC110 - the run starts in a thread
            await asyncio.sleep(0.005)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - a gauge has no event
        await asyncio.sleep(0.005)


def queued(enclave: EnclaveInstance) -> int:
    return int(enclave.metrics.value("cloister_queue_length"))


def refused(enclave: EnclaveInstance, reason: str) -> int:
    return int(enclave.metrics.value("cloister_queue_refused_total", reason))


def timed(consumer: ConsumerSide, microseconds: int) -> asyncio.Task[Answer]:
    document = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": ROW}],
        "parameters": {"timeout": microseconds},
    }
    return asyncio.create_task(
        consumer.send(consumer.request("POST", "/v2/models/m/infer", json.dumps(document).encode()))
    )


def world_of(folder: Path) -> World:
    return make_world(folder, {"m": doubler()}, allowance=100)


@asynchronous
async def test_a_consumer_who_floods_does_not_starve_another(tmp_path: Path) -> None:
    """T82."""
    world, held, done = world_of(tmp_path), Held(), list[str]()
    async with world.enclave(engine=held.engine) as enclave:
        alice, bob = (ConsumerSide(enclave, world.clock, token) for token in (ALICE, BOB))

        async def ask(consumer: ConsumerSide, name: str) -> None:
            assert (await consumer.infer([ROW])).status == 200
            done.append(name)

        tasks = [asyncio.create_task(ask(alice, "alice"))]
        await held.started()
        tasks += [asyncio.create_task(ask(alice, "alice")) for _ in range(8)]
        await until(lambda: queued(enclave) == 8)
        tasks += [asyncio.create_task(ask(bob, "bob")) for _ in range(2)]
        await until(lambda: queued(enclave) == 10)
        held.go.set()
        await asyncio.gather(*tasks)
        assert done[:5] == ["alice", "alice", "bob", "alice", "bob"]
        assert queued(enclave) == 0
        assert enclave.metrics.value("cloister_queue_seconds_total", "m") > 0


@asynchronous
async def test_a_full_queue_refuses_the_flood_and_takes_the_other_consumer(tmp_path: Path) -> None:
    """T82."""
    world, held = world_of(tmp_path), Held()
    async with world.enclave(engine=held.engine, limits={"max_queued": 3}) as enclave:
        alice, bob = (ConsumerSide(enclave, world.clock, token) for token in (ALICE, BOB))
        running = asyncio.create_task(alice.infer([ROW]))
        await held.started()
        waiting = [asyncio.create_task(alice.infer([ROW])) for _ in range(3)]
        await until(lambda: queued(enclave) == 3)
        over = await alice.infer([ROW])
        assert (over.status, over.json["code"], over.field("retry-after")) == (503, "unavailable", "1")
        other = asyncio.create_task(bob.infer([ROW]))
        await until(lambda: refused(enclave, "displaced") == 1)
        held.go.set()
        answers = await asyncio.gather(*waiting, running, other)
        assert sorted(answer.status for answer in answers) == [200, 200, 200, 200, 503]
        assert answers[-1].status == 200
        assert refused(enclave, "full") == 1
        assert enclave.metering.snapshot().used == {LOAN_METER: 4}


@asynchronous
async def test_a_request_whose_time_is_up_is_not_run_and_not_charged(tmp_path: Path) -> None:
    world, held = world_of(tmp_path), Held()
    async with world.enclave(engine=held.engine) as enclave:
        alice, bob = (ConsumerSide(enclave, world.clock, token) for token in (ALICE, BOB))
        running = asyncio.create_task(alice.infer([ROW]))
        await held.started()
        late = await timed(bob, 20_000)
        assert (late.status, late.json["code"], late.field("cloister-units")) == (504, "deadline_passed", "0")
        assert (queued(enclave), refused(enclave, "deadline")) == (0, 1)
        held.go.set()
        assert (await running).status == 200
        assert (await timed(bob, 60_000_000)).status == 200
        assert held.engine.runs == 2
        assert enclave.metering.snapshot().used == {LOAN_METER: 2}


@asynchronous
async def test_who_leaves_the_queue_leaves_nothing_behind(tmp_path: Path) -> None:
    world, held = world_of(tmp_path), Held()
    async with world.enclave(engine=held.engine) as enclave:
        alice, bob = (ConsumerSide(enclave, world.clock, token) for token in (ALICE, BOB))
        running = asyncio.create_task(alice.infer([ROW]))
        await held.started()
        gone = asyncio.create_task(bob.infer([ROW], idempotency_key="k"))
        await until(lambda: queued(enclave) == 1)
        gone.cancel()
        await asyncio.wait({gone})
        assert (queued(enclave), refused(enclave, "gone")) == (0, 1)
        held.go.set()
        assert (await running).status == 200
        assert (await bob.infer([ROW], idempotency_key="k")).status == 200
        assert held.engine.runs == 2
        assert enclave.metering.snapshot().used == {LOAN_METER: 2}
        assert enclave.metering.snapshot().reserved == {}


@asynchronous
async def test_a_turn_that_comes_as_its_owner_leaves_goes_to_the_next(tmp_path: Path) -> None:
    world, held = world_of(tmp_path), Held()
    async with world.enclave(engine=held.engine) as enclave:
        alice, bob = (ConsumerSide(enclave, world.clock, token) for token in (ALICE, BOB))
        running = asyncio.create_task(alice.infer([ROW]))
        await held.started()
        leaving = [asyncio.create_task(bob.infer([ROW])) for _ in range(3)]
        await until(lambda: queued(enclave) == 3)
        held.go.set()
        await until(lambda: queued(enclave) < 3)  # the first of them has just been given its turn
        for task in leaving:
            task.cancel()
        await asyncio.wait({running, *leaving})
        assert (await bob.infer([ROW])).status == 200
        assert enclave.metering.snapshot().reserved == {}


@asynchronous
async def test_who_waits_when_the_instance_ends_is_told_so(tmp_path: Path) -> None:
    world, held = world_of(tmp_path), Held()
    async with world.enclave(engine=held.engine) as enclave:
        alice, bob = (ConsumerSide(enclave, world.clock, token) for token in (ALICE, BOB))
        running = asyncio.create_task(alice.infer([ROW]))
        await held.started()
        waiting = asyncio.create_task(bob.infer([ROW]))
        await until(lambda: queued(enclave) == 1)
        held.go.set()
        enclave.wipe()
        answer = await waiting
        assert answer.inner is None or answer.status == 503
        assert (queued(enclave), refused(enclave, "ended")) == (0, 1)
        await asyncio.wait({running})
    assert held.engine.runs == 1
