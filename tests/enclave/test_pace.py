"""Which runs are computed in the event loop, and what stops a model whose time cannot be foreseen."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from enclave_engines import WatchedEngine
from enclave_models import FilesInMemory, doubler, dump, value
from enclave_parties import ConsumerSide, make_world
from onnx import TensorProto, helper

from cloister.enclave.engines.onnx import OnnxEngine
from cloister.enclave.pace import BRIEF_S, Pace
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path

ROW = [1.0, 2.0, 3.0]


def test_a_size_is_brief_once_a_thread_has_shown_it() -> None:
    pace = Pace(steady=True)
    assert not pace.is_brief(100)
    pace.note(100, 2 * BRIEF_S, aside=True)
    assert not pace.is_brief(100)
    pace.note(100, BRIEF_S / 2, aside=True)
    assert pace.is_brief(100)
    assert pace.is_brief(127)
    assert not pace.is_brief(128)
    assert not pace.is_brief(1 << 20)


def test_a_model_that_is_not_steady_never_runs_in_place() -> None:
    pace = Pace(steady=False)
    for _ in range(100):
        pace.note(100, 1e-6, aside=True)
    assert not pace.is_brief(100)


def test_long_runs_in_place_become_rarer_with_each() -> None:
    """T82: a consumer that finds a slow input holds up the others a few times, whatever it sends between."""
    pace = Pace(steady=True)
    apart = []
    for _ in range(5):
        runs = 0
        while not pace.is_brief(100):
            pace.note(100, 1e-6, aside=True)
            runs += 1
        apart.append(runs)
        pace.note(100, 0.5, aside=False)
        assert not pace.is_brief(100)
        pace.note(1000, 1e-6, aside=True)
        assert not pace.is_brief(1000)
    assert apart == [1, 9, 39, 159, 639]


def test_a_long_run_is_forgotten_after_a_thousand_brief_ones() -> None:
    pace = Pace(steady=True)
    for _ in range(3):
        while not pace.is_brief(100):
            pace.note(100, 1e-6, aside=True)
        for _ in range(1000):
            pace.note(100, 1e-6, aside=False)
        pace.note(100, 0.5, aside=False)
        for _ in range(10):
            assert not pace.is_brief(100)
            pace.note(100, 1e-6, aside=True)
        assert pace.is_brief(100)


def test_runs_that_become_longer_go_back_to_threads() -> None:
    pace = Pace(steady=True)
    pace.note(100, 1e-6, aside=True)
    for _ in range(100):
        if pace.is_brief(100):
            pace.note(100, 3e-3, aside=False)
    assert not pace.is_brief(100)


def test_a_model_with_a_loop_or_a_size_from_a_value_is_not_steady() -> None:
    def ranged() -> bytes:
        scalar = [value(name, TensorProto.INT64, []) for name in ("a", "b", "c")]
        return dump([helper.make_node("Range", ["a", "b", "c"], ["y"])], scalar, [value("y", TensorProto.INT64, ["n"])])

    for data, steady in ((doubler(), True), (ranged(), False)):
        files = FilesInMemory({"model.onnx": data})
        model = OnnxEngine(threads=1).load(files)
        model.warm_up()
        assert model.steady is steady
        model.close()
        files.close()


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every run for a brief one: how fast this machine is now must not decide a test."""
    for name in ("BRIEF_S", "_TOO_LONG_S", "_LONG_S"):
        monkeypatch.setattr(f"cloister.enclave.pace.{name}", 60.0)


@pytest.mark.usefixtures("_patient")
@asynchronous
async def test_brief_runs_leave_the_threads_and_are_counted_all_the_same(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, allowance=100)
    seen: list[bool] = []
    engine = WatchedEngine(
        before=lambda: seen.append(threading.current_thread() is threading.main_thread()), steady=True
    )
    async with world.enclave(engine=engine) as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        for at in range(3):
            answer = await consumer.infer([[float(at), 0.0, 1.0]])
            assert answer.json["outputs"][0]["data"] == [2.0 * at, 0.0, 2.0]
        assert seen == [False, True, True]
        assert enclave.metering.snapshot().served == len(seen)
        assert enclave.metering.snapshot().reserved == {}


@pytest.mark.usefixtures("_patient")
@asynchronous
async def test_a_failing_brief_run_is_not_charged(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, allowance=100)
    engine = WatchedEngine(steady=True)
    async with world.enclave(engine=engine) as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        (model,) = enclave.pool.models
        for _ in range(5):
            await consumer.infer([ROW])
        served = enclave.metering.snapshot().served
        answer = await consumer.infer([[3e38, 0.0, 0.0]])  # infinity has no JSON form
        assert (answer.status, answer.json["code"]) == (422, "output")
        assert enclave.metering.snapshot().served == served
        assert enclave.metering.snapshot().reserved == {}
        assert enclave.pool.is_loaded(model)


@asynchronous
async def test_a_turn_ends_with_the_run_and_not_with_who_waits_for_it(tmp_path: Path) -> None:
    """E4: who comes next starts at once when it has its turn, and so must not get it while a thread still computes."""
    world = make_world(tmp_path, {"m": doubler()}, allowance=10)
    hold = threading.Event()
    engine = WatchedEngine(before=lambda: hold.wait(10) and None)
    async with world.enclave(engine=engine) as enclave:
        first, second = (ConsumerSide(enclave, world.clock) for _ in range(2))
        gone = asyncio.create_task(first.infer([ROW]))
        while not engine.runs:  # noqa: ASYNC110 - the run starts in a thread
            await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.wait({gone})
        after = asyncio.create_task(second.infer([ROW]))
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert enclave.metering.snapshot().reserved == {}  # nothing is set aside for a run that cannot start
        hold.set()
        assert (await after).status == 200
        assert engine.runs == 2
        assert enclave.metering.snapshot().served == 1
