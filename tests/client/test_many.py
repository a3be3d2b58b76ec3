"""Many inferences at once: in order, joined into requests, asked again for nothing, stopped with what was answered."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from client_town import ENCLAVE, TOKEN, Reply, Town, scan

from cloister.client import AsyncClient, Incomplete, Progress, Retry
from cloister.client.batch import TARGET_BYTES, group_inputs
from cloister.client.model_info import ModelInfo, TensorInfo
from cloister.errors import Rejected, Unavailable, UsageError

if TYPE_CHECKING:
    from cloister.client import Answers


@pytest.fixture
def town(monkeypatch: pytest.MonkeyPatch) -> Town:
    """Return a town whose clients do not really wait."""
    made = Town()
    made.enclave.allowance = 1000
    monkeypatch.setattr("time.sleep", made.clock.pauses.append)
    return made


def scans(count: int) -> np.ndarray:
    return np.concatenate([scan(number) for number in range(count)])


def ask(town: Town, kind: str, inputs: object, **options: Any) -> Answers:
    """Ask by threads or by tasks."""
    if kind == "threads":
        with town.client(retry=Retry()) as client:
            return client.infer_many("digits", inputs, **options)

    async def awaiting() -> Answers:
        made = {"token": TOKEN, "schemes": town.schemes, "transport": town, "clock": town.clock}
        async with await AsyncClient.verify(ENCLAVE, town.trust(), **made) as client:
            return await client.infer_many("digits", inputs, **options)

    return asyncio.run(awaiting())


def inferences(town: Town) -> list[str]:
    """Return the Idempotency-Key of each inference that the enclave saw."""
    return [dict(request.headers)["idempotency-key"] for request in town.enclave.seen if request.method == "POST"]


@pytest.mark.parametrize("kind", ["threads", "tasks"])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_rows_of_an_array_keep_their_order(town: Town, kind: str, concurrency: int) -> None:
    told: list[Progress] = []
    found = ask(town, kind, scans(23), batch=4, concurrency=concurrency, on_progress=told.append)
    assert found.outputs["label"].tolist() == [number % 10 for number in range(23)]
    assert found.labels["label"] == tuple(str(number % 10) for number in range(23))
    assert (found.done, found.units, found.remaining) == (23, 23, 977)
    assert [len(group.inputs["image"]) for group in found.groups] == [4, 4, 4, 4, 4, 3]
    assert len(set(inferences(town))) == 6
    assert len({receipt.receipt.index for receipt in found.receipts}) == 6
    assert max(item.done for item in told) == 23
    assert all(item.total == 23 for item in told)
    assert town.asked.count("POST enclave.test /.well-known/ohttp-gateway") == 7, "the model is described once"


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_questions_of_a_list_go_together_and_come_apart(town: Town, kind: str) -> None:
    questions = [scan(1), scans(3), {"image": scan(7)}, scan(4), scan(5).astype(np.float64)]
    found = ask(town, kind, questions, batch=4)
    assert [group.rows for group in found.groups] == [(1, 3), (1, 1, 1)], (
        "what has another type becomes the model's first"
    )
    answers = [None if part is None else part["label"].tolist() for part in found.each()]
    assert answers == [[1], [0, 1, 2], [7], [4], [5]]
    assert found.units == 7


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_an_exhausted_allowance_stops_with_what_was_answered(town: Town, kind: str) -> None:
    town.enclave.allowance = 10
    with pytest.raises(Incomplete) as stopped:
        ask(town, kind, scans(40), batch=4, concurrency=1)
    assert isinstance(stopped.value.cause, Rejected)
    assert stopped.value.cause.code == "allowance_exhausted"
    assert stopped.value.message.startswith("8 of 40 answered: ")
    answered = stopped.value.answered
    assert answered.outputs["label"].tolist() == list(range(8))
    assert (answered.units, answered.remaining, len(answered.receipts)) == (8, 2, 2)
    assert list(answered.each())[2:] == [None] * 8
    assert len(inferences(town)) == 3, "nothing is asked after the first refusal"


def test_nothing_answered_is_said_too(town: Town) -> None:
    town.enclave.allowance = 0
    with pytest.raises(Incomplete) as stopped:
        ask(town, "threads", scans(3))
    answered = stopped.value.answered
    assert (answered.done, answered.outputs, answered.labels, answered.remaining) == (0, {}, {}, None)


def test_a_cut_answer_is_asked_for_again_and_costs_nothing(town: Town) -> None:
    cuts = [False, True, True, False]

    def cut(reply: Reply) -> Reply:
        if reply.kind == "message/ohttp-chunked-res" and cuts and cuts.pop(0):
            return replace(reply, parts=[part[:-20] for part in reply.parts if isinstance(part, bytes)])
        return reply

    town.reply_change = cut
    found = ask(town, "threads", scans(6), batch=6)
    assert (found.done, found.units, found.remaining) == (6, 6, 994)
    assert len(inferences(town)) == 3
    assert len(set(inferences(town))) == 1
    first, second = town.clock.pauses
    assert 0.5 <= first <= 1
    assert 1.5 <= second <= 3


@pytest.mark.parametrize(("after", "pauses"), [("5", 3), ("31", 0)])
def test_an_enclave_that_stays_away_is_not_waited_for_for_ever(town: Town, after: str, pauses: int) -> None:
    """It is asked as often as it says when; who says that it takes longer than we wait is believed."""

    def away(reply: Reply) -> Reply:
        if reply.kind != "message/ohttp-chunked-res" or len(inferences(town)) < 2:
            return reply
        return Reply(status=503, kind="text/plain", headers={"retry-after": after})

    town.reply_change = away
    with pytest.raises(Incomplete) as stopped:
        ask(town, "threads", scans(8), batch=4, concurrency=1)
    assert isinstance(stopped.value.cause, Unavailable)
    assert stopped.value.answered.done == 4
    assert len(town.clock.pauses) == pauses
    assert all(5 <= pause <= 20 for pause in town.clock.pauses)
    assert len(set(inferences(town))) == 2


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_a_deadline_ends_a_run_with_what_was_answered(town: Town, kind: str) -> None:
    def slow(reply: Reply) -> Reply:
        town.clock.advance(4)
        return reply

    town.reply_change = slow
    with pytest.raises(Incomplete, match="before the deadline") as stopped:
        ask(town, kind, scans(40), batch=4, concurrency=1, deadline=timedelta(seconds=18))
    assert isinstance(stopped.value.cause, Unavailable)
    assert 0 < stopped.value.answered.done < 40
    under_way = 4  # rows of the request that was asked and not waited for any more
    assert stopped.value.answered.units == 1000 - town.enclave.allowance - under_way


def test_a_mistake_in_any_question_costs_nothing(town: Town) -> None:
    with town.client() as client:
        for wrong in ([scan(1), {"other": scan(2)}], {"picture": scan(1)}, np.float32(1), np.zeros((0, 64))):
            with pytest.raises(UsageError):
                client.infer_many("digits", wrong)
        for options in ({"batch": 0}, {"concurrency": 0}, {"concurrency": 65}):
            with pytest.raises(UsageError):
                client.infer_many("digits", scans(2), **options)
        assert client.infer_many("digits", []).done == 0
    assert not inferences(town)


def test_a_mistake_of_who_is_told_ends_the_run(town: Town) -> None:
    def fails(_: Progress) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        ask(town, "threads", scans(8), batch=1, concurrency=2, on_progress=fails)
    assert len(inferences(town)) <= 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cloister-infer")]


def test_rows_that_cannot_be_told_apart_are_refused_with_their_answer(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model may say that its first dimension is open and answer with one row for all."""
    monkeypatch.setattr(type(town.enclave), "_outputs", lambda _self, _inputs: np.zeros(1, dtype="<i8"))
    with pytest.raises(Incomplete, match="1 rows, want 2") as stopped:
        ask(town, "threads", [scan(1), scan(2)])
    assert stopped.value.answered.units == 2


# --- what goes together


def info(*shapes: tuple[int, ...], out: tuple[int, ...] = (-1, 2)) -> ModelInfo:
    inputs = tuple(TensorInfo(name=f"x{place}", datatype="FP32", shape=shape) for place, shape in enumerate(shapes))
    return ModelInfo(
        name="m", digest="", platform="", inputs=inputs, outputs=(TensorInfo(name="y", datatype="FP32", shape=out),),
        task="", description="", images={}, labels={}, remaining=None,
    )  # fmt: skip


def sizes(model: ModelInfo, inputs: object, batch: int | None = None) -> list[tuple[int, ...]]:
    return [group.rows for group in group_inputs(model, inputs, batch=batch)]


def test_a_fixed_first_dimension_is_kept() -> None:
    rows = np.zeros((6, 3), dtype=np.float32)
    assert sizes(info((1, 3), out=(1, 2)), rows) == [(1,)] * 6
    assert sizes(info((2, 3), out=(2, 2)), rows, batch=5) == [(2,)] * 3
    assert sizes(info((-1, 3), out=(2,)), rows) == [(6,)], "an answer for all of them is not taken apart"
    assert sizes(info((1, 3), out=(1, 2)), [rows[:1], rows[1:2]]) == [(1,), (1,)]


def test_requests_are_of_about_a_megabyte() -> None:
    wide = np.zeros((10, TARGET_BYTES // 12), dtype=np.float32)
    assert sizes(info((-1, wide.shape[1])), wide) == [(3,), (3,), (3,), (1,)]
    assert sizes(info((-1, wide.shape[1])), list(wide[:, None])) == [(1, 1, 1)] * 3 + [(1,)]
    assert sizes(info((-1, 1)), np.zeros((600, 1), dtype=np.float32)) == [(256,), (256,), (88,)]


def test_different_shapes_and_types_stay_apart() -> None:
    model = info((-1, -1), (-1, -1))

    def question(rows: int, first: int, second: int) -> dict[str, np.ndarray]:
        return {"x0": np.zeros((rows, first), dtype=np.float32), "x1": np.zeros((rows, second), dtype=np.float32)}

    uneven = {"x0": np.zeros((2, 1), dtype=np.float32), "x1": np.zeros((3, 1), dtype=np.float32)}
    asked = [question(1, 2, 2), question(2, 2, 2), question(1, 3, 2), uneven, question(1, 3, 2)]
    assert sizes(model, asked) == [(1, 2), (1,), (1,), (1,)]
    with pytest.raises(UsageError, match="same number of rows"):
        group_inputs(model, uneven, batch=None)
