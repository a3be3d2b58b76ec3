"""The simulator itself: time, order, network, crashes. What it is for is tested in ``tests/flows``."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from cloister.client import TruncatedResponse
from cloister.enclave.engines.onnx import OnnxEngine
from cloister.enclave.renew import Ending
from cloister.errors import Rejected, Unavailable, UsageError
from cloister.lending.lease import LeaseState
from cloister.testing.simulator import CrashPoint, Simulator, ToyEngine, toy_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.testing.simulator import Answer


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(seed=7) as simulator:
        yield simulator


def story(seed: int) -> list[tuple[object, ...]]:
    """Return when who asked whom what, in a day of some trouble."""
    with Simulator(seed=seed) as sim:
        loan = sim.lend(allowance=50, max_ceiling=10)
        first, second = sim.launch(loan), sim.launch(loan)
        asker = sim.consumer(first)
        for number in range(6):
            first.link.answers.drop(number % 3)
            second.link.delay(0.25 * number)
            sim.together(*(asker.inferring() for _ in range(3)))
            sim.custodian.crash()
            sim.advance(35)  # refused at once, both try again and again, at times drawn by chance
            sim.custodian.restart()
            sim.advance(10)
        links = sim.network.links
        travelled = [message for link in links for message in (*link.requests.log,)]
        tail = {first.id: "first", second.id: "second"}
        return [
            (item.at, item.source, item.target, item.method, *(tail.get(part, part) for part in item.path.split("/")))
            for item in travelled
            if "/v1/loans/" not in item.path
        ]


def test_the_same_seed_tells_the_same_story() -> None:
    assert story(3) == story(3)
    assert story(3) != story(4)


def test_an_hour_passes_in_a_moment_and_everything_in_it_happens(sim: Simulator) -> None:
    enclave = sim.launch(sim.lend())
    before, began = sim.now, time.process_time()
    sim.advance(3600)
    assert sim.now - before == timedelta(hours=1)
    assert time.process_time() - began < 60
    assert enclave.snapshot.state is LeaseState.ACTIVE
    assert enclave.snapshot.seq > 3600 / 21  # renewed at T/3 all the while
    sim.advance(1)
    assert enclave.log.count("keys_rotated") == 2


def test_nothing_connects_and_nothing_listens() -> None:
    touched: list[str] = []
    on = True

    def note(event: str, _arguments: tuple[Any, ...]) -> None:
        if on and event in {"socket.bind", "socket.connect", "socket.getaddrinfo"}:
            touched.append(event)

    sys.addaudithook(note)
    with Simulator() as sim:
        sim.consumer(sim.launch(sim.lend())).infer()
    on = False
    assert not touched


def test_waiting_for_what_can_never_happen_is_an_error_and_no_hang() -> None:
    with Simulator(settings={"sweep_interval_s": 3600}) as sim:
        sim.custodian.crash()
        with pytest.raises(UsageError, match="not done after 86400 simulated seconds"):
            sim.run(_forever())


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


def test_a_request_on_a_cut_way_is_never_seen_and_its_sender_runs_into_its_own_timeout(sim: Simulator) -> None:
    enclave = sim.launch(sim.lend(), renews=False)
    enclave.link.requests.cut()
    seq, before = enclave.snapshot.seq, sim.now
    with pytest.raises(Unavailable, match="no answer"):
        enclave.renew()
    assert sim.now - before == timedelta(seconds=10)
    assert instance_of(sim)["seq"] == seq
    enclave.link.heal()
    enclave.renew()
    assert instance_of(sim)["seq"] == seq + 1


def test_a_cut_answer_was_given_all_the_same(sim: Simulator) -> None:
    enclave = sim.launch(sim.lend(), renews=False)
    enclave.link.answers.cut()
    with pytest.raises(Unavailable):
        enclave.renew()
    assert instance_of(sim)["seq"] == 2
    assert len(enclave.link.answers.log) == len(enclave.link.requests.log)


def instance_of(sim: Simulator, at: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = sim.custodian.call("GET", "/v1/instances").demand()["instances"][at]
    return found


def test_dropped_messages_are_dropped_once(sim: Simulator) -> None:
    enclave = sim.launch(sim.lend(), renews=False)
    enclave.link.requests.drop(2)
    for _ in range(2):
        with pytest.raises(Unavailable):
            enclave.renew()
    enclave.renew()
    assert enclave.snapshot.seq == 2


def test_delay_takes_time_both_ways(sim: Simulator) -> None:
    enclave = sim.launch(sim.lend())
    consumer = sim.consumer(enclave)
    consumer.remaining()
    consumer.link.delay(1.5)
    before = sim.now
    consumer.infer()
    assert sim.now - before == timedelta(seconds=3)


def test_a_duplicated_request_is_answered_twice(sim: Simulator) -> None:
    enclave = sim.launch(sim.lend(), renews=False)
    enclave.link.requests.duplicate()
    enclave.renew()
    sim.advance(1)
    bodies = [answer.body for answer in enclave.link.answers.log[-2:]]
    assert bodies[0] == bodies[1]
    assert len(enclave.link.answers.log) == len(enclave.link.requests.log) + 1


def test_a_duplicated_answer_comes_again_for_the_next_request(sim: Simulator) -> None:
    enclave = sim.launch(sim.lend(), renews=False)
    enclave.link.answers.duplicate()
    enclave.renew()
    with pytest.raises(Rejected, match="not_pending"):
        enclave.renew()
    enclave.renew()


@pytest.mark.parametrize("reverse", [False, True])
def test_held_answers_come_when_they_are_let_go_in_either_order(sim: Simulator, *, reverse: bool) -> None:
    enclave = sim.launch(sim.lend())
    consumer = sim.consumer(enclave)
    consumer.remaining()
    done: list[str] = []
    consumer.link.answers.hold()
    tasks = [sim.spawn(consumer.inferring()) for _ in range(3)]
    for name, task in zip("abc", tasks, strict=True):
        task.set_name(name)
        task.add_done_callback(lambda task: done.append(task.get_name()))
    sim.advance(5)
    assert len(consumer.link.answers.held) == 3
    assert not done
    assert consumer.link.answers.release(reverse=reverse) == 3
    sim.advance(1)
    assert "".join(done) == ("cba" if reverse else "abc")


def test_altered_answers_arrive_altered_and_broken_ones_break(sim: Simulator) -> None:
    enclave = sim.launch(sim.lend())
    consumer = sim.consumer(enclave)
    consumer.remaining()

    def flip(answer: Answer) -> Answer:
        last = answer.chunks[-1]
        return replace(answer, chunks=(*answer.chunks[:-1], replace(last, data=last.data[:-1] + b"x")))

    consumer.link.answers.alter(flip)
    with pytest.raises(Rejected):
        consumer.infer()
    consumer.link.chunks_cut = 0
    with pytest.raises(TruncatedResponse):
        consumer.infer()
    consumer.link.chunks_cut = None
    consumer.infer()


def test_nobody_is_at_an_address_that_was_given_up(sim: Simulator) -> None:
    enclave = sim.launch(sim.lend())
    consumer = sim.consumer(enclave)
    enclave.crash()
    assert not enclave.is_up
    assert enclave.ending is None
    with pytest.raises(Unavailable, match="ConnectError"):
        consumer.infer()


def test_an_engine_takes_simulated_time_and_works_side_by_side(sim: Simulator) -> None:
    engine = ToyEngine(sim.world.loop.work)
    enclave = sim.launch(sim.lend(), engine=engine, workers=4)
    consumer = sim.consumer(enclave)
    consumer.remaining()
    engine.seconds = 5.0
    before = sim.now
    answers = sim.together(*(consumer.inferring() for _ in range(8)))
    assert not [answer for answer in answers if isinstance(answer, BaseException)]
    assert sim.now - before == timedelta(seconds=10)


def test_the_real_onnx_engine_can_be_put_in(sim: Simulator) -> None:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", inputs, outputs)
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    model = sim.seal("negative", {"model.onnx": onnx})
    enclave = sim.launch(sim.lend(models={model: None}), engine=OnnxEngine(threads=1))
    answer = sim.consumer(enclave).infer([[1.0, 2.0]], model="negative")
    np.testing.assert_array_equal(answer.outputs["y"], [[-1.0, -2.0]])


@pytest.mark.parametrize("point", list(CrashPoint))
def test_a_crash_leaves_what_was_committed_and_nothing_else(sim: Simulator, point: CrashPoint) -> None:
    loan = sim.lend(allowance=10)
    sim.custodian.crash_at(point)
    with pytest.raises(Unavailable):
        loan.top_up(5)
    assert not sim.custodian.is_up
    with pytest.raises(UsageError, match="not running"):
        _ = sim.custodian.service
    sim.custodian.restart()
    assert loan.meter()["balance"] == (10 if point is CrashPoint.BEFORE_COMMIT else 15)
    assert sim.custodian.events().count("custodian_stopped") == 0


def test_a_backup_put_in_place_is_noticed_and_recovered_from(sim: Simulator) -> None:
    loan = sim.lend(allowance=10)
    backup = sim.custodian.backup()
    loan.top_up(5)
    sim.custodian.restore(backup)
    with pytest.raises(Rejected, match="database_older"):
        sim.custodian.restart()
    sim.custodian.recover()
    assert loan.meter()["balance"] == 10
    assert sim.custodian.service.epoch == 2


def test_clocks_are_wrong_as_told(sim: Simulator) -> None:
    enclave = sim.launch(sim.lend(), skew=2.0, pace=0.5, renews=False)
    assert enclave.clock() - sim.now == timedelta(seconds=2)
    boot = enclave.clock.monotonic()
    sim.advance(10)
    assert enclave.clock.monotonic() - boot == timedelta(seconds=5)
    enclave.clock.run_at(0.0)
    sim.advance(10)
    assert enclave.clock.monotonic() - boot == timedelta(seconds=5)
    enclave.clock.step(60)
    enclave.clock.step_boot(1)
    assert enclave.clock() - sim.now == timedelta(seconds=2 - 5 - 10 + 60)
    assert enclave.clock.monotonic() - boot == timedelta(seconds=6)


def test_what_is_sent_is_logged_and_a_kept_request_can_be_sent_again(sim: Simulator) -> None:
    loan = sim.lend()
    enclave = sim.launch(loan)
    kept = enclave.link.requests.log[0]
    assert kept.path == f"/v1/loans/{loan.id}/challenge"
    assert sim.run(sim.network.deliver(kept)).status == 200
    assert loan.token.encode() in sim.network.seen()
    assert loan.token not in repr(loan)


def test_an_enclave_that_is_stopped_tells_its_custodian(sim: Simulator) -> None:
    enclave = sim.launch(sim.lend())
    enclave.stop()
    assert enclave.ending is Ending.DRAINED
    assert instance_of(sim)["state"] == "closed"


def test_everything_is_gone_afterwards() -> None:
    with Simulator() as sim:
        folder = sim.folder
        sim.consumer(sim.launch(sim.lend()))
        assert (folder / "custodian").is_dir()
    assert not folder.exists()


def test_a_toy_model_multiplies(sim: Simulator) -> None:
    model = sim.seal("thrice", toy_model(3))
    enclave = sim.launch(sim.lend(models={model: None}))
    answer = sim.consumer(enclave).infer([[1.0, 2.0], [3.0, 4.0]], model="thrice")
    np.testing.assert_array_equal(answer.outputs["y"], [[3.0, 6.0], [9.0, 12.0]])
    assert answer.units == 2


PAGE = Path(__file__).parents[2] / "docs" / "reference" / "simulator.md"


def test_the_example_of_the_documentation_runs() -> None:
    example = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    names: dict[str, Any] = {}
    exec(example[1], names)  # noqa: S102 - our own page
    names["test_a_cut_network_does_not_keep_a_blocked_loan_alive"]()


def test_the_documentation_names_what_there_is(sim: Simulator) -> None:
    page = PAGE.read_text(encoding="utf-8")
    loan = sim.lend()
    enclave = sim.launch(loan)
    consumer = sim.consumer(enclave)
    holders = {
        "sim": sim,
        "loan": loan,
        "enclave": enclave,
        "engine": enclave.engine,
        "link": enclave.link,
        "way": enclave.link.answers,
    }
    named = re.findall(r"`(" + "|".join(holders) + r")\.(\w+)", page)
    assert len(named) > 20
    assert [pair for pair in named if not hasattr(holders[pair[0]], pair[1])] == []
    for holder in (sim, sim.custodian, loan, enclave, consumer, enclave.clock, enclave.link, enclave.link.requests):
        for name in vars(type(holder)):
            if not name.startswith("_") and name not in {"carry", "take_double"}:  # what the network itself calls
                assert f"{name}" in page, (type(holder).__name__, name)
