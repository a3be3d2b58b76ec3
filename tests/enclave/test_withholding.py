"""What the contract holds back leaves in no form of an answer: JSON, binary, classes, batches, retries, metadata."""

from __future__ import annotations

import asyncio
import json
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from enclave_models import dump, identity, value
from enclave_parties import ALICE, BOB, Answer, ConsumerSide, World, make_world, receipt_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from onnx import TensorProto, helper

from cloister.enclave.config import Batching
from cloister.enclave.engines.tensor import Datatype, Signature, Tensor, TensorSpec
from cloister.enclave.oip import dump_response, parse_request
from cloister.enclave.oip.data import to_numbers
from cloister.enclave.withholding import Withholding
from cloister.errors import Malformed, Rejected
from cloister.lending.clauses import Clauses
from cloister.lending.consumer_limits import Budget, ConsumerLimits, Limits, Rate
from cloister.lending.output_rule import OutputRule, Shown
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.channel.bhttp import BinaryRequest
    from cloister.wire import Json

ROW = [0.25, 4.5, -3.0, 2.125]


def two_heads() -> bytes:
    """Return ``logits = x`` and ``scores = -x`` over rows of four numbers."""
    nodes = [helper.make_node("Identity", ["x"], ["logits"]), helper.make_node("Neg", ["x"], ["scores"])]
    shape: list[int | str | None] = ["batch", 4]
    outputs = [value(name, TensorProto.FLOAT, shape) for name in ("logits", "scores")]
    return dump(nodes, [value("x", TensorProto.FLOAT, shape)], outputs)


def world_of(folder: Path, *rules: OutputRule, **clauses: Any) -> World:
    world = make_world(folder, {"m": two_heads()})
    assert world.custodian.loan is not None
    terms = replace(world.custodian.loan.terms, clauses=Clauses(outputs=rules, **clauses), max_instances=1)
    world.custodian.loan = replace(world.custodian.loan, terms=terms)
    return world


def rule(output: str = "logits", **members: Any) -> OutputRule:
    return OutputRule(model="m", output=output, **members)


def ask(consumer: ConsumerSide, rows: list[list[float]], outputs: Json = None, **headers: str) -> BinaryRequest:
    body: dict[str, Any] = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [len(rows), 4], "data": rows}]}
    if outputs is not None:
        body["outputs"] = outputs
    return consumer.request("POST", "/v2/models/m/infer", json.dumps(body).encode(), **headers)


def outputs_of(answer: Answer) -> dict[str, list[Any]]:
    """Return every output of an answer as a flat list, whatever form it came in."""
    assert answer.inner is not None
    assert answer.status == 200, answer.inner.body
    head_bytes = answer.field("inference-header-content-length")
    split = len(answer.inner.body) if head_bytes is None else int(head_bytes)
    head, rest = json.loads(answer.inner.body[:split]), answer.inner.body[split:]
    found: dict[str, list[Any]] = {}
    for item in head["outputs"]:
        size = item.get("parameters", {}).get("binary_data_size")
        if size is None:
            found[item["name"]] = item["data"]
            continue
        part, rest = rest[:size], rest[size:]
        if item["datatype"] == "BYTES":
            found[item["name"]] = []
            while part:
                (length,) = struct.unpack_from("<I", part)
                found[item["name"]].append(part[4 : 4 + length].decode())
                part = part[4 + length :]
        else:
            found[item["name"]] = np.frombuffer(part, dtype="<f4").tolist()
    return found


FORMS: dict[str, Json] = {
    "json": [{"name": "logits"}],
    "binary": [{"name": "logits", "parameters": {"binary_data": True}}],
    "all": None,
}


@pytest.mark.parametrize("form", FORMS)
@asynchronous
async def test_no_form_of_an_answer_shows_more_than_the_largest(tmp_path: Path, form: str) -> None:
    world = world_of(tmp_path, rule(top=2, fill="-9.5"))
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        found = outputs_of(await consumer.send(ask(consumer, [ROW, ROW[::-1]], FORMS[form])))
    assert found["logits"] == [-9.5, 4.5, -9.5, 2.125, 2.125, -9.5, 4.5, -9.5]
    if form == "all":  # what no rule is about stays
        assert found["scores"] == [-number for number in (*ROW, *ROW[::-1])]


@pytest.mark.parametrize("binary", [False, True])
@asynchronous
async def test_the_classification_extension_is_given_what_is_left_and_no_more(tmp_path: Path, *, binary: bool) -> None:
    world = world_of(tmp_path, rule(show=Shown.LABEL), rule("scores", minimum="0.5"))
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        wanted: Json = [
            {"name": name, "parameters": {"classification": 4, "binary_data": binary}} for name in ("logits", "scores")
        ]
        found = outputs_of(await consumer.send(ask(consumer, [ROW], wanted)))
    assert found["logits"] == ["1.000000:1", "0.000000:0", "0.000000:2", "0.000000:3"]
    assert found["scores"] == ["3.000000:2", "0.000000:0", "0.000000:1", "0.000000:3"]


@asynchronous
async def test_requests_that_share_a_run_are_each_shown_what_is_left(tmp_path: Path) -> None:
    world = world_of(tmp_path, rule(top=1))
    async with world.enclave(batching={"m": Batching(rows=8, window_us=1000)}) as enclave:
        consumers = [ConsumerSide(enclave, world.clock, token) for token in (ALICE, BOB) * 3]
        answers = await asyncio.gather(*(one.send(ask(one, [ROW], FORMS["json"])) for one in consumers))
        assert [outputs_of(answer)["logits"] for answer in answers] == [[0.0, 4.5, 0.0, 0.0]] * 6
        assert enclave.metrics.value("cloister_batched_inferences_total", "m") > 0


@asynchronous
async def test_a_retry_and_the_receipt_are_of_what_was_shown(tmp_path: Path) -> None:
    world = world_of(tmp_path, rule(top=1), rule("scores", show=Shown.NOTHING), precision=0)
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        request = ask(consumer, [ROW], None, idempotency_key="k")
        first = await consumer.send(request)
        again = await consumer.send(ask(consumer, [ROW], None, idempotency_key="k"))
        assert outputs_of(first) == outputs_of(again) == {"logits": [0.0, 4.0, 0.0, 0.0]}
        assert receipt_of(first, await consumer.keyset(), request.body).units == 1


@asynchronous
async def test_an_output_that_is_not_shown_is_not_there_by_any_name(tmp_path: Path) -> None:
    world = world_of(tmp_path, rule(show=Shown.NOTHING))
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        assert list(outputs_of(await consumer.send(ask(consumer, [ROW])))) == ["scores"]
        spent = enclave.metering.snapshot().used
        for parameters in ({}, {"binary_data": True}, {"classification": 1}):
            wanted: Json = [{"name": "scores"}, {"name": "logits", "parameters": {**parameters}}]
            refused = await consumer.send(ask(consumer, [ROW], wanted))
            assert (refused.status, refused.json["code"]) == (403, "output_withheld")
        assert enclave.metering.snapshot().used == spent


@asynchronous
async def test_a_model_of_which_nothing_is_shown_never_runs(tmp_path: Path) -> None:
    world = world_of(tmp_path, rule(show=Shown.NOTHING), rule("scores", show=Shown.NOTHING))
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        answer = await consumer.send(ask(consumer, [ROW]))
        assert (answer.status, answer.json["code"]) == (403, "output_withheld")
        assert enclave.metrics.value("cloister_engine_seconds_total", "m") == 0


@asynchronous
async def test_a_rule_about_an_output_that_there_is_not_serves_nothing(tmp_path: Path) -> None:
    """A slip in a name must not show what somebody meant to hold back."""
    world = world_of(tmp_path, rule("logit", show=Shown.NOTHING))
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        answer = await consumer.send(ask(consumer, [ROW]))
        assert (answer.status, answer.json["code"]) == (422, "output")
        assert (await consumer.get("/v2/models/m")).status == 422


@asynchronous
async def test_the_models_metadata_say_what_is_held_back(tmp_path: Path) -> None:
    world = world_of(tmp_path, rule(show=Shown.NOTHING), rule("scores", top=1), precision=3)
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        shown = (await consumer.get("/v2/models/m")).json
    assert [item["name"] for item in shown["outputs"]] == ["scores"]
    assert shown["parameters"]["precision"] == 3
    assert shown["parameters"]["output_rules"] == [
        {"model": "m", "output": "logits", "show": "nothing"},
        {"model": "m", "output": "scores", "top": 1},
    ]


@asynchronous
async def test_limits_refuse_inside_the_sealed_answer_and_say_when_to_ask_again(tmp_path: Path) -> None:
    each = Limits(rate=Rate(units=1, per_s=10, burst=2), budgets=(Budget(units=3, window_s=60),))
    world = world_of(tmp_path, consumer_limits=ConsumerLimits(each=each))
    async with world.enclave() as enclave:
        consumer, other = (ConsumerSide(enclave, world.clock, token) for token in (ALICE, BOB))
        early = await consumer.infer([ROW])
        assert (early.status, early.json["code"], early.field("retry-after")) == (429, "rate_limited", "20")
        assert (early.outer, early.field("cloister-receipt"), early.field("cloister-units")) == (200, None, "0")
        world.clock.advance(40)
        assert (await consumer.infer([ROW, ROW])).field("cloister-remaining") == "0"
        fast = await consumer.infer([ROW])
        assert [reason["code"] for reason in fast.json["reasons"]] == ["rate_limited", "budget_spent"]
        assert (await other.infer([ROW])).status == 200
        assert enclave.metering.snapshot().used == {"loan": 3}
        assert enclave.metrics.value("cloister_answers_total", "rate_limited") == 2


@asynchronous
async def test_a_host_that_moves_the_clock_ahead_refills_no_budget(tmp_path: Path) -> None:
    each = Limits(budgets=(Budget(units=3, window_s=60),))
    world = world_of(tmp_path, consumer_limits=ConsumerLimits(each=each))
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        for _ in range(2):
            world.clock.advance(40)
            await enclave.renewal.once()
        assert (await consumer.infer([ROW, ROW, ROW])).status == 200
        world.clock.step_wall(55)  # as far as the custodian's own clock, which moves with it here, lets it live
        assert (await consumer.infer([ROW])).json["code"] == "clock_step"
        await enclave.renewal.once()
        world.clock.advance(10)
        assert (await consumer.infer([ROW])).json["code"] == "budget_spent"
        world.clock.advance(40)
        await enclave.renewal.once()
        world.clock.advance(15)
        assert (await consumer.infer([ROW])).status == 200


NUMBERS = npst.arrays(
    np.float32,
    npst.array_shapes(min_dims=1, max_dims=3, max_side=6),
    elements=st.floats(-100, 100, width=32) | st.just(np.nan) | st.just(np.inf),
)


def held(array: Any, *rules: OutputRule, kind: Datatype = Datatype.FP32) -> Tensor:
    spec = TensorSpec(name="logits", datatype=kind, shape=None)
    signature = Signature(inputs=(spec,), outputs=(spec,))
    return Withholding.of(signature, rules, None).applied((Tensor(name="logits", datatype=kind, array=array),))[0]


@given(array=NUMBERS, top=st.integers(1, 8))
def test_exactly_the_largest_of_each_item_are_left(array: Any, top: int) -> None:
    found = held(array, rule(top=top, fill="-1000")).array
    rows = len(array) if array.ndim > 1 else 1
    for before, after in zip(array.reshape(rows, -1), found.reshape(rows, -1), strict=True):
        left = after != -1000
        assert left.sum() == min(top, before.size)
        assert np.array_equal(after[left], before[left], equal_nan=True)
        keys = np.where(np.isnan(before), -np.inf, before)
        assert not (~left).any() or keys[left].min() >= keys[~left].max()


@given(array=NUMBERS)
def test_a_label_tells_which_and_nothing_of_how_much(array: Any) -> None:
    found = held(array, rule(show=Shown.LABEL)).array
    rows = len(array) if array.ndim > 1 else 1
    for before, after in zip(array.reshape(rows, -1), found.reshape(rows, -1), strict=True):
        assert sorted(after.tolist()) == [0.0] * (before.size - 1) + [1.0]
        assert after[np.argmax(np.where(np.isnan(before), -np.inf, before))] == 1


@given(array=NUMBERS, minimum=st.sampled_from(["0", "-3.5", "12"]))
def test_nothing_below_the_minimum_is_left(array: Any, minimum: str) -> None:
    found = held(array, rule(minimum=minimum, fill="-1000")).array
    left = found != -1000
    assert (found[left] >= float(minimum)).all()
    assert not (array[~left] >= float(minimum)).any()


RULES = st.one_of(
    st.builds(rule, top=st.integers(1, 4)),
    st.builds(rule, minimum=st.sampled_from(["0", "50000.5"])),
    st.builds(rule, top=st.integers(1, 4), minimum=st.just("100"), fill=st.just("-7")),
    st.just(rule(show=Shown.LABEL)),
)


@given(
    numbers=st.lists(
        st.integers(10_000, 99_999).flatmap(lambda size: st.sampled_from([size, -size])),
        min_size=10,
        max_size=10,
        unique_by=abs,
    ),
    made=RULES,
    binary=st.booleans(),
    classes=st.none() | st.integers(1, 5),
    named=st.booleans(),
)
def test_no_number_that_is_held_back_is_in_any_form_of_an_answer(
    numbers: list[int], made: OutputRule, *, binary: bool, classes: int | None, named: bool
) -> None:
    """Two items of five numbers, each one of a kind; whatever form is asked for, only what is left is in it."""
    values = np.array(numbers, dtype=np.float32).reshape(2, 5) + np.float32(0.125)  # no number is part of another
    kept = held(values, made).array
    hidden = set(values.ravel().tolist()) - set(kept.ravel().tolist())
    parameters: dict[str, Any] = {"binary_data": binary}
    if classes is not None:
        parameters["classification"] = classes
    body: dict[str, Any] = {"inputs": [], "parameters": {"binary_data_output": binary}}
    if named:
        body["outputs"] = [{"name": "logits", "parameters": parameters}]
    asked = parse_request(json.dumps(body).encode(), header_bytes=None, json_cap=10_000)
    answer, _ = dump_response(asked, (held(values, made),), model="m", version="1")
    for number in hidden:
        assert f"{number:g}".encode() not in answer
        assert f"{number:f}".encode() not in answer
        assert np.float32(number).tobytes() not in answer


def test_a_whole_batch_of_single_scores_is_one_item_so_that_none_gets_around_a_rule() -> None:
    assert held(np.array([0.1, 0.9, 0.5], dtype=np.float32), rule(top=1)).array.tolist() == [0, np.float32(0.9), 0]


def test_integers_and_raw_bf16_are_held_back_exactly() -> None:
    large = np.array([[2**62 + 1, 2**62, -5]], dtype=np.int64)
    assert held(large, rule(top=1, fill="-7"), kind=Datatype.INT64).array.tolist() == [[2**62 + 1, -7, -7]]
    assert held(large, rule(minimum="-4.5"), kind=Datatype.INT64).array.tolist() == [[2**62 + 1, 2**62, 0]]
    bits = (np.array([[1.5, -2.0, 3.25]], dtype=np.float32).view(np.uint32) >> 16).astype("<u2")
    shown = held(bits, rule(top=1, fill="-2"), kind=Datatype.BF16)
    assert to_numbers(shown).tolist() == [[-2.0, -2.0, 3.25]]


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        (Datatype.BYTES, rule(top=1)),
        (Datatype.FP8_E4M3FN, rule(show=Shown.LABEL)),
        (Datatype.UINT8, rule(top=1, fill="-1")),
        (Datatype.INT8, rule(top=1, fill="0.5")),
        (Datatype.BOOL, rule(top=1, fill="2")),
        (Datatype.FP16, rule(top=1, fill="100000")),
    ],
)
def test_a_rule_that_cannot_be_held_refuses(kind: Datatype, made: OutputRule) -> None:
    spec = TensorSpec(name="logits", datatype=kind, shape=(None, 3))
    with pytest.raises(Rejected) as caught:
        Withholding.of(Signature(inputs=(spec,), outputs=(spec,)), (made,), None)
    assert caught.value.code == "output"


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"show": "values"},
        {"show": "label", "top": 3},
        {"top": 0},
        {"minimum": "01"},
        {"minimum": "1e3"},
        {"minimum": "0.50"},
        {"minimum": "-0"},
        {"top": 1, "fill": "0"},
        {"show": "nothing", "fill": "1"},
        {"top": 1, "more": 1},
    ],
)
def test_a_rule_in_another_form_is_malformed(members: dict[str, Json]) -> None:
    with pytest.raises(Malformed):
        OutputRule.from_json({"model": "m", "output": "y", **members})


def test_an_integer_model_without_a_batch_is_one_item(tmp_path: Path) -> None:
    """A fixed first dimension is no batch: the rows of such an output are not items with a largest value each."""

    async def body() -> None:
        world = make_world(tmp_path, {"m": identity(TensorProto.INT64, [3, 1])})
        assert world.custodian.loan is not None
        clauses = Clauses(outputs=(OutputRule(model="m", output="y", top=1),))
        world.custodian.loan = replace(world.custodian.loan, terms=replace(world.custodian.loan.terms, clauses=clauses))
        async with world.enclave() as enclave:
            consumer = ConsumerSide(enclave, world.clock)
            data = {"inputs": [{"name": "x", "datatype": "INT64", "shape": [3, 1], "data": [4, 9, 6]}]}
            answer = await consumer.send(consumer.request("POST", "/v2/models/m/infer", json.dumps(data).encode()))
            assert outputs_of(answer) == {"y": [0, 9, 0]}

    asyncio.run(body())
