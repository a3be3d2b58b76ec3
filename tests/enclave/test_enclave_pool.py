"""Several models in one memory budget: who goes, who stays, what consumers see, what is left of keys."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from typing import TYPE_CHECKING

import pytest
from enclave_engines import WatchedEngine
from enclave_models import dump, value
from enclave_parties import ConsumerSide, World, make_world
from onnx import TensorProto, helper, numpy_helper

from cloister.errors import UsageError
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.enclave.instance import EnclaveInstance

ROW = [1.0, 2.0, 3.0]
NAMES = ("a", "b", "c")


def times(factor: float) -> bytes:
    """Return ``y = factor x``."""
    import numpy as np  # noqa: PLC0415

    constant = numpy_helper.from_array(np.array(factor, dtype=np.float32), "k")
    shape: list[int | str | None] = ["n", 3]
    node = helper.make_node("Mul", ["x", "k"], ["y"])
    return dump([node], [value("x", TensorProto.FLOAT, shape)], [value("y", TensorProto.FLOAT, shape)], (constant,))


MODELS = {name: times(factor) for factor, name in enumerate(NAMES, start=2)}
SIZE = len(MODELS["a"])
TWO = 2 * SIZE  # bytes: room for two of the three


def world_of(tmp_path: Path) -> World:
    assert {len(data) for data in MODELS.values()} == {SIZE}
    return make_world(tmp_path, MODELS)


def loaded(enclave: EnclaveInstance) -> set[str]:
    return {model.terms.name for model in enclave.pool.models if enclave.pool.is_loaded(model)}


def events(world: World, kind: str) -> list[str]:
    lines = [json.loads(line) for line in world.log.getvalue().splitlines()]
    return [line["model"] for line in lines if line["event"] == kind]


async def ask(enclave: EnclaveInstance, world: World, name: str) -> float:
    answer = await ConsumerSide(enclave, world.clock).infer([ROW], name)
    assert answer.status == 200, answer.json
    assert answer.json["model_version"] == next(
        lent.terms.digest for lent in world.custodian.lent if lent.terms.name == name
    )
    return float(answer.json["outputs"][0]["data"][0])


def holding() -> tuple[WatchedEngine, threading.Event, threading.Event]:
    """Return an engine whose next run says that it runs, and goes on when it is told."""
    running, go = threading.Event(), threading.Event()

    def wait() -> None:
        running.set()
        go.wait(30)

    return WatchedEngine(before=wait), running, go


@asynchronous
async def test_the_least_recently_used_model_goes_and_comes_back_at_the_next_request(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    async with world.enclave(memory_budget=TWO) as enclave:
        assert loaded(enclave) == {"b", "c"}  # each was opened and proven at boot
        assert await ask(enclave, world, "b") == 3
        assert await ask(enclave, world, "a") == 2
        assert loaded(enclave) == {"a", "b"}
        assert await ask(enclave, world, "b") == 3
        assert await ask(enclave, world, "c") == 4
        assert loaded(enclave) == {"b", "c"}
        assert enclave.pool.resident_bytes == TWO
        assert enclave.metrics.value("cloister_model_evictions_total", "a") == 1  # at boot nobody counts yet
        assert enclave.metrics.value("cloister_model_loads_total", "a") == 1
        assert enclave.metrics.value("cloister_model_loaded", "a") == 0
        assert enclave.metrics.value("cloister_models_bytes") == TWO
        assert enclave.metrics.value("cloister_memory_budget_bytes") == TWO
    assert events(world, "model_evicted") == ["a", "c", "a"]


@asynchronous
async def test_without_a_budget_everything_stays(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    async with world.enclave() as enclave:
        assert [await ask(enclave, world, name) for name in NAMES] == [2, 3, 4]
        assert loaded(enclave) == set(NAMES)
    assert not events(world, "model_evicted")


@asynchronous
async def test_many_consumers_of_more_models_than_fit_all_get_their_answers(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    engine = WatchedEngine()
    async with world.enclave(engine=engine, memory_budget=SIZE, engine_workers=4) as enclave:
        answers = await asyncio.gather(*(ask(enclave, world, NAMES[turn % 3]) for turn in range(24)))
        assert answers == [float(turn % 3 + 2) for turn in range(24)]
        assert enclave.pool.resident_bytes <= SIZE
        assert len(loaded(enclave)) == 1
    assert engine.runs == 24


@asynchronous
async def test_a_model_with_requests_in_flight_is_never_evicted(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    engine, running, go = holding()
    limits = {"model_wait_s": 1}
    async with world.enclave(engine=engine, memory_budget=SIZE, engine_workers=2, limits=limits) as enclave:
        busy = asyncio.create_task(ask(enclave, world, "c"))
        await asyncio.to_thread(running.wait, 30)
        refused = await ConsumerSide(enclave, world.clock).infer([ROW], "a")
        assert (refused.status, refused.json["code"], refused.field("retry-after")) == (503, "unavailable", "5")
        assert refused.field("cloister-units") == "0"
        assert loaded(enclave) == {"c"}
        engine.before = None
        go.set()
        assert await busy == 4
        assert await ask(enclave, world, "a") == 2
    assert events(world, "model_not_opened") == ["a"]


@asynchronous
async def test_who_waits_for_room_gets_it_when_the_last_run_ends(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    engine, running, go = holding()
    async with world.enclave(engine=engine, memory_budget=SIZE, engine_workers=2) as enclave:
        busy = asyncio.create_task(ask(enclave, world, "c"))
        await asyncio.to_thread(running.wait, 30)
        waiting = [asyncio.create_task(ask(enclave, world, "a")) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in waiting)
        engine.before = None
        go.set()
        assert await busy == 4
        assert await asyncio.gather(*waiting) == [2, 2, 2]
        assert enclave.metrics.value("cloister_model_loads_total", "a") == 1  # opened once for all three


@asynchronous
async def test_a_package_that_is_gone_or_changed_is_503_and_never_a_model(tmp_path: Path) -> None:
    """T23: what was proven at boot is proven again at each opening."""
    world = world_of(tmp_path)
    async with world.enclave(memory_budget=TWO) as enclave:
        root = next(lent.root for lent in world.custodian.lent if lent.terms.name == "a")
        (blob,) = [path for path in (root / "blobs").iterdir() if not path.name.endswith(".leaves")]
        was = blob.read_bytes()
        blob.chmod(0o600)
        for damaged in (bytes(len(was)), was[:-1], None):
            if damaged is None:
                shutil.move(root, tmp_path / "away")
            else:
                blob.write_bytes(damaged)
            answer = await ConsumerSide(enclave, world.clock).infer([ROW], "a")
            assert (answer.status, answer.field("retry-after")) == (503, "5")
            assert root.name not in answer.json["detail"]
        shutil.move(tmp_path / "away", root)
        blob.write_bytes(was)
        assert await ask(enclave, world, "a") == 2  # nothing is broken for good


@asynchronous
async def test_a_model_larger_than_the_whole_budget_is_refused_at_start(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    with pytest.raises(UsageError, match="memory budget"):
        async with world.enclave(memory_budget=SIZE - 1):
            pass
    with pytest.raises(UsageError, match="memory budget"):  # prepacked it takes twice as much
        async with world.enclave(memory_budget=TWO - 1, prepack=("b",)):
            pass


@asynchronous
async def test_a_blocked_consumer_or_model_makes_nobody_open_anything(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    async with world.enclave(memory_budget=TWO) as enclave:
        digest = next(lent.terms.digest for lent in world.custodian.lent if lent.terms.name == "a")
        world.custodian.block(model=digest)
        await enclave.renewal.once()
        answer = await ConsumerSide(enclave, world.clock).infer([ROW], "a")
        assert (answer.status, answer.json["code"]) == (403, "blocked")
        assert loaded(enclave) == {"b", "c"}


@asynchronous
async def test_a_wiped_instance_has_no_key_left_to_open_an_evicted_model(tmp_path: Path) -> None:
    """T26, ADR 0026: what could open it again goes with the models in memory."""
    world = world_of(tmp_path)
    async with world.enclave(memory_budget=TWO) as enclave:
        model = enclave.pool.model("a")
        assert model is not None
        assert not enclave.pool.is_loaded(model)
        enclave.wipe()
        assert not loaded(enclave)
        loader = enclave.pool._loader
        assert loader._kem is None
        assert loader._grant is None
        answer = await ConsumerSide(enclave, world.clock).post(b"")
        assert answer.status_code == 503


@asynchronous
async def test_what_is_opened_too_late_for_the_end_is_closed_at_once(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    engine = WatchedEngine()
    opening, go = threading.Event(), threading.Event()
    async with world.enclave(engine=engine, memory_budget=TWO) as enclave:
        load = engine.load

        def slow(files: object, *, prepack: bool = False) -> object:
            opening.set()
            go.wait(30)
            return load(files, prepack=prepack)  # type: ignore[arg-type]  # passed on

        engine.load = slow  # type: ignore[method-assign,assignment]  # holds the opening up
        asked = asyncio.create_task(ConsumerSide(enclave, world.clock).infer([ROW], "a"))
        await asyncio.to_thread(opening.wait, 30)
        enclave.wipe()
        go.set()
        answer = await asked
        assert answer.inner is None or answer.status in (409, 503)
        assert not loaded(enclave)
    assert engine.closed == 4  # evicted at boot, two at the end, and the late one


@asynchronous
async def test_memory_stays_while_a_thread_computes_with_it_though_nobody_waits_for_the_answer(tmp_path: Path) -> None:
    """What is cancelled is the waiting: unmapped under a run, the model would take the whole process with it."""
    world = world_of(tmp_path)
    engine, running, go = holding()
    async with world.enclave(engine=engine, memory_budget=SIZE, engine_workers=2) as enclave:
        gone = asyncio.create_task(ask(enclave, world, "c"))
        await asyncio.to_thread(running.wait, 30)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        engine.before = None
        other = asyncio.create_task(ask(enclave, world, "a"))
        await asyncio.sleep(0.05)
        assert loaded(enclave) == {"c"}
        assert not other.done()
        go.set()
        assert await other == 2
        assert loaded(enclave) == {"a"}
