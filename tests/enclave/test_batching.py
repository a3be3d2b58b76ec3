"""Requests that share a run: who gets what, and what one of them can do to the others."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from enclave_engines import WatchedEngine
from enclave_models import FilesInMemory, adder, doubler, dump, fragile, identity, value
from enclave_parties import ALICE, BOB, Answer, ConsumerSide, World, infer_body, make_world, receipt_of
from onnx import TensorProto, helper, numpy_helper

from cloister.enclave.batches import Batches
from cloister.enclave.batching import joined, parts_of, rows_are_apart, rows_of
from cloister.enclave.config import Batching, Limits
from cloister.enclave.engines.onnx import OnnxEngine
from cloister.enclave.engines.tensor import Datatype, Tensor
from cloister.enclave.job import Job
from cloister.enclave.oip import fit, parse_request
from cloister.enclave.turns import Turns
from cloister.enclave.withholding import Withholding
from cloister.errors import Unavailable
from cloister.lending.terms import LOAN_METER, ModelDigest
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.enclave.instance import EnclaveInstance

ON = {"m": Batching(rows=16, window_us=0)}


def mixing(op: str) -> bytes:
    """Return a model whose rows see each other: a softmax or a sum over the batch."""
    if op == "Softmax":
        node = helper.make_node("Softmax", ["x"], ["y"], axis=0)
        return dump([node], [value("x", 1, ["n", 3])], [value("y", 1, ["n", 3])])
    axis = numpy_helper.from_array(np.array(0, dtype=np.int64), "axis")
    node = helper.make_node("CumSum", ["x", "axis"], ["y"])
    return dump([node], [value("x", 1, ["n", 3])], [value("y", 1, ["n", 3])], (axis,))


@pytest.mark.parametrize(
    ("model", "apart"),
    [
        pytest.param(doubler(), True, id="every row by itself"),
        pytest.param(adder(), True, id="two inputs of one symbol"),
        pytest.param(fragile(), True, id="rows that are numbers of a table"),
        pytest.param(identity(TensorProto.STRING, ["n", 2]), True, id="strings"),
        pytest.param(identity(TensorProto.FLOAT16, ["n", "m"]), True, id="another open dimension"),
        pytest.param(mixing("Softmax"), False, id="a softmax over the batch"),
        pytest.param(mixing("CumSum"), False, id="a running sum over the batch"),
        pytest.param(identity(TensorProto.FLOAT, [4, 3]), False, id="a fixed first dimension"),
        pytest.param(identity(TensorProto.FLOAT, ["n", "n"]), False, id="the batch twice"),
        pytest.param(identity(TensorProto.FLOAT, None), False, id="no shape at all"),
    ],
)
def test_only_models_whose_rows_are_apart_are_batched(model: bytes, *, apart: bool) -> None:
    files = FilesInMemory({"model.onnx": model})
    running = OnnxEngine(threads=1).load(files)
    assert rows_are_apart(running) is apart
    running.close()
    files.close()


def test_outputs_with_other_rows_than_the_inputs_are_nobodys() -> None:
    def tensor(rows: int) -> Tensor:
        return Tensor(name="x", datatype=Datatype.FP32, array=np.arange(rows, dtype=np.float32))

    assert rows_of([tensor(2), tensor(3)]) == 0
    assert [part[0].array.tolist() for part in parts_of(joined([[tensor(1)], [tensor(2)]]), [1, 2])] == [[0], [0, 1]]
    with pytest.raises(Unavailable):
        parts_of([tensor(4)], [1, 2])


class Held:
    """An engine of which the first run waits, so that others gather meanwhile."""

    def __init__(self, runs: int = 1) -> None:
        self.go = threading.Event()
        self._left = runs
        self.engine = WatchedEngine()

    def arm(self) -> None:
        """Begin: what ran so far was the probe of the model's rows."""
        self.engine.runs, self.engine.before = 0, self._before

    def _before(self) -> None:
        self._left -= 1
        if self._left >= 0:
            self.go.wait(20)

    async def started(self) -> None:
        while not self.engine.runs:  # noqa: ASYNC110 - the run starts in a thread
            await asyncio.sleep(0.005)


def world_of(folder: Path, model: bytes | None = None, **settings: Any) -> World:
    return make_world(folder, {"m": model or doubler()}, **{"allowance": 100, **settings})


async def gathered(enclave: EnclaveInstance, count: int) -> None:
    while enclave.metrics.value("cloister_queue_length") < count:  # noqa: ASYNC110 - a gauge has no event
        await asyncio.sleep(0.005)


def batches(enclave: EnclaveInstance) -> tuple[int, int]:
    names = ("cloister_batches_total", "cloister_batched_inferences_total")
    runs, inferences = (int(enclave.metrics.value(name, "m")) for name in names)
    return runs, inferences


@asynchronous
async def test_each_consumer_gets_its_own_rows_and_a_receipt_for_them_alone(tmp_path: Path) -> None:
    """A batch mixes requests of several consumers; nobody sees a row of another."""
    world, held = world_of(tmp_path), Held()
    async with world.enclave(engine=held.engine, batching=ON) as enclave:
        held.arm()
        sides = [ConsumerSide(enclave, world.clock, (ALICE, BOB)[at % 2]) for at in range(8)]
        keyset = await sides[0].keyset()
        rows = [[[float(100 * at + row), float(at), -float(row)] for row in range(1 + at % 3)] for at in range(8)]
        first = asyncio.create_task(sides[0].infer(rows[0]))
        await held.started()
        others = [asyncio.create_task(side.infer(mine)) for side, mine in zip(sides[1:], rows[1:], strict=True)]
        await gathered(enclave, 7)
        held.go.set()
        answers = [await first, *await asyncio.gather(*others)]
        for answer, mine in zip(answers, rows, strict=True):
            assert answer.status == 200
            (output,) = answer.json["outputs"]
            assert output["shape"] == [len(mine), 3]
            assert output["data"] == [2 * number for row in mine for number in row]
            receipt = receipt_of(answer, keyset, infer_body(mine))
            assert receipt.units == len(mine)
        assert held.engine.runs == 2
        assert batches(enclave) == (2, 8)
        assert enclave.metering.snapshot().used == {LOAN_METER: sum(map(len, rows))}


@asynchronous
async def test_a_batch_takes_no_more_rows_than_it_may_and_takes_them_from_consumers_in_turn(tmp_path: Path) -> None:
    """T82."""
    world, held, done = world_of(tmp_path), Held(), list[str]()
    async with world.enclave(engine=held.engine, batching={"m": Batching(rows=4)}) as enclave:
        held.arm()
        alice, bob = (ConsumerSide(enclave, world.clock, token) for token in (ALICE, BOB))

        async def ask(side: ConsumerSide, name: str) -> None:
            assert (await side.infer([[1.0, 2.0, 3.0]])).status == 200
            done.append(name)

        tasks = [asyncio.create_task(ask(alice, "first"))]
        await held.started()
        tasks += [asyncio.create_task(ask(alice, "alice")) for _ in range(6)]
        await gathered(enclave, 6)
        tasks += [asyncio.create_task(ask(bob, "bob")) for _ in range(2)]
        await gathered(enclave, 8)
        held.go.set()
        await asyncio.gather(*tasks)
        assert sorted(done[1:5]) == ["alice", "alice", "bob", "bob"]
        assert batches(enclave) == (3, 9)


@asynchronous
async def test_one_bad_request_fails_alone(tmp_path: Path) -> None:
    world, held = world_of(tmp_path, fragile()), Held()
    async with world.enclave(engine=held.engine, batching=ON) as enclave:
        held.arm()
        side = ConsumerSide(enclave, world.clock)

        def ask(index: int) -> asyncio.Task[Answer]:
            entry = {"name": "i", "datatype": "INT64", "shape": [1], "data": [index]}
            body = json.dumps({"inputs": [entry]}).encode()
            return asyncio.create_task(side.send(side.request("POST", "/v2/models/m/infer", body)))

        tasks = [ask(0)]
        await held.started()
        tasks += [ask(index) for index in (1, 99, 0)]
        await gathered(enclave, 3)
        held.go.set()
        answers = await asyncio.gather(*tasks)
        assert [answer.status for answer in answers] == [200, 200, 500, 200]
        assert [answer.json["outputs"][0]["data"] for answer in answers if answer.status == 200] == [[10], [20], [10]]
        assert held.engine.runs == 1 + 1 + 3
        assert enclave.metering.snapshot().used == {LOAN_METER: 3}
        assert enclave.metering.snapshot().reserved == {}


@asynchronous
async def test_units_are_set_aside_for_each_and_refused_to_each(tmp_path: Path) -> None:
    world, held = world_of(tmp_path, allowance=3), Held()
    async with world.enclave(engine=held.engine, batching=ON) as enclave:
        held.arm()
        side = ConsumerSide(enclave, world.clock)
        tasks = [asyncio.create_task(side.infer([[1.0, 2.0, 3.0]]))]
        await held.started()
        tasks += [asyncio.create_task(side.infer([[1.0, 2.0, 3.0]])) for _ in range(4)]
        await gathered(enclave, 4)
        held.go.set()
        answers = await asyncio.gather(*tasks)
        assert sorted(answer.status for answer in answers) == [200, 200, 200, 402, 402]
        assert enclave.metering.snapshot().used == {LOAN_METER: 3}
        assert enclave.metering.snapshot().reserved == {}


@asynchronous
async def test_an_answer_that_cannot_be_written_is_its_own_consumers_affair(tmp_path: Path) -> None:
    world, held = world_of(tmp_path), Held()
    async with world.enclave(engine=held.engine, batching=ON) as enclave:
        held.arm()
        side = ConsumerSide(enclave, world.clock)
        tasks = [asyncio.create_task(side.infer([[1.0, 2.0, 3.0]]))]
        await held.started()
        tasks += [asyncio.create_task(side.infer([row])) for row in ([3e38, 0.0, 0.0], [1.0, 1.0, 1.0])]
        await gathered(enclave, 2)
        held.go.set()
        answers = await asyncio.gather(*tasks)
        assert [answer.status for answer in answers] == [200, 422, 200]
        assert enclave.metering.snapshot().used == {LOAN_METER: 2}
        assert batches(enclave) == (2, 3)


@pytest.mark.parametrize("when", ["waiting", "running"])
def test_who_leaves_a_batch_costs_and_stops_nobody(tmp_path: Path, when: str) -> None:
    @asynchronous
    async def body() -> None:
        world, held = world_of(tmp_path), Held(1 if when == "waiting" else 2)
        async with world.enclave(
            engine=held.engine, batching=ON, engine_workers=1 if when == "waiting" else 2
        ) as enclave:
            held.arm()
            alice, bob = (ConsumerSide(enclave, world.clock, token) for token in (ALICE, BOB))
            first = asyncio.create_task(alice.infer([[1.0, 2.0, 3.0]]))
            await held.started()
            tasks = [asyncio.create_task(side.infer([[1.0, 2.0, 3.0]])) for side in (alice, bob, alice)]
            if when == "waiting":
                await gathered(enclave, 3)
            else:
                while held.engine.runs < 2:  # noqa: ASYNC110 - the run starts in a thread
                    await asyncio.sleep(0.005)
            tasks[1].cancel()
            await asyncio.wait({tasks[1]})
            held.go.set()
            assert [(await task).status for task in (first, tasks[0], tasks[2])] == [200, 200, 200]
            assert enclave.metering.snapshot().used == {LOAN_METER: 3}
            assert enclave.metering.snapshot().reserved == {}
            assert (await bob.infer([[1.0, 2.0, 3.0]])).status == 200

    body()


@asynchronous
async def test_a_window_fills_a_batch_where_requests_come_together(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    engine = WatchedEngine()
    setting = {"m": Batching(rows=8, window_us=1_000_000)}
    async with world.enclave(engine=engine, batching=setting) as enclave:
        engine.runs = 0  # those of the probe
        side = ConsumerSide(enclave, world.clock)
        for _ in range(4):
            answers = await asyncio.gather(*(side.infer([[float(at), 0.0, 0.0]]) for at in range(8)))
            assert [answer.json["outputs"][0]["data"][0] for answer in answers] == [2.0 * at for at in range(8)]
        runs, inferences = batches(enclave)
        assert inferences == 32
        assert runs == engine.runs < 32


@asynchronous
async def test_requests_of_other_sizes_types_or_outputs_never_share_a_run(tmp_path: Path) -> None:
    world, held = world_of(tmp_path, adder()), Held()
    async with world.enclave(engine=held.engine, batching=ON) as enclave:
        held.arm()
        side = ConsumerSide(enclave, world.clock)

        def ask(a: list[list[int]], outputs: list[str]) -> asyncio.Task[Answer]:
            entries = [{"name": name, "datatype": "INT64", "shape": [len(a), 2], "data": a} for name in ("a", "b")]
            document = {"inputs": entries, "outputs": [{"name": name} for name in outputs]}
            body = json.dumps(document).encode()
            return asyncio.create_task(side.send(side.request("POST", "/v2/models/m/infer", body)))

        tasks = [ask([[1, 1]], ["sum"])]
        await held.started()
        tasks += [ask([[2, 3]], ["sum"]), ask([[4, 5], [6, 7]], ["product"]), ask([[8, 9]], ["sum"])]
        await gathered(enclave, 3)
        held.go.set()
        answers = await asyncio.gather(*tasks)
        assert [answer.json["outputs"][0]["data"] for answer in answers] == [
            [2, 2],
            [4, 6],
            [16, 25, 36, 49],
            [16, 18],
        ]
        assert batches(enclave) == (3, 4)


@asynchronous
async def test_a_model_that_mixes_rows_runs_each_request_alone_and_says_so(tmp_path: Path) -> None:
    world, held = world_of(tmp_path, mixing("Softmax")), Held()
    async with world.enclave(engine=held.engine, batching=ON) as enclave:
        held.arm()
        side = ConsumerSide(enclave, world.clock)
        tasks = [asyncio.create_task(side.infer([[5.0, 5.0, 5.0]]))]
        await held.started()
        tasks += [asyncio.create_task(side.infer([[float(at), 5.0, 5.0]])) for at in range(3)]
        await gathered(enclave, 3)
        held.go.set()
        answers = await asyncio.gather(*tasks)
        assert [answer.json["outputs"][0]["data"] for answer in answers] == [[1.0, 1.0, 1.0]] * 4
        assert batches(enclave) == (0, 0)
    assert '"event": "model_not_batched"' in world.log.getvalue()


@asynchronous
async def test_who_waits_for_a_batch_when_the_instance_ends_is_told_so(tmp_path: Path) -> None:
    world, held, lost = world_of(tmp_path), Held(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context["message"]))
    async with world.enclave(engine=held.engine, batching=ON) as enclave:
        held.arm()
        side = ConsumerSide(enclave, world.clock)
        tasks = [asyncio.create_task(side.infer([[1.0, 2.0, 3.0]]))]
        await held.started()
        tasks += [asyncio.create_task(side.infer([[1.0, 2.0, 3.0]])) for _ in range(3)]
        await gathered(enclave, 3)
        held.go.set()
        enclave.wipe()
        answers = await asyncio.gather(*tasks)
        assert [answer.status for answer in answers[1:]] == [503] * 3
        assert enclave.metrics.value("cloister_queue_length") == 0
        assert held.engine.runs == 1
    gc.collect()
    assert lost == []


@asynchronous
async def test_two_versions_or_two_models_never_share_a_run(tmp_path: Path) -> None:
    """Every answer says which version gave it, and so does its receipt."""
    world, held = make_world(tmp_path, {"m": doubler(), "n": doubler()}, allowance=100), Held()
    both = {"m": Batching(rows=16), "n": Batching(rows=16)}
    async with world.enclave(engine=held.engine, batching=both) as enclave:
        model, _ = enclave.pool.models
        batches_of = Batches(both, Turns(1, Limits(), enclave.metrics), lambda _: None)
        async with enclave.pool.use(model) as running:

            def job(digest: str) -> Job:
                version = replace(model, terms=replace(model.terms, digest=ModelDigest(digest)))
                asked = parse_request(infer_body([[1.0, 2.0, 3.0]]), header_bytes=None, json_cap=1000)
                return Job(
                    who=ALICE,
                    caller=None,
                    units=1,
                    until=None,
                    model=version,
                    running=running,
                    asked=asked,
                    tensors=fit(asked, model.signature),
                    withheld=Withholding.of(model.signature, (), None),
                    body=b"",
                )

            older, newer = job("ab" * 32), job("cd" * 32)
            assert batches_of.line(older) == batches_of.line(job("ab" * 32)) is not None
            assert batches_of.line(older) != batches_of.line(newer)
        held.arm()
        side = ConsumerSide(enclave, world.clock)
        tasks = [asyncio.create_task(side.infer([[1.0, 2.0, 3.0]]))]
        await held.started()
        tasks += [asyncio.create_task(side.infer([[1.0, 2.0, 3.0]], model=name)) for name in ("m", "n", "m", "n")]
        await gathered(enclave, 4)
        held.go.set()
        answers = await asyncio.gather(*tasks)
        digests = {name: found.terms.digest for name in ("m", "n") if (found := enclave.pool.model(name)) is not None}
        assert [answer.json["model_version"] for answer in answers] == [digests[name] for name in "mmnmn"]
        assert held.engine.runs == 3
