"""The extraction guard: what it notices, what it takes for an attack and is none, what leaves it, what it remembers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from enclave_models import dump, value
from enclave_parties import ALICE, BOB, ConsumerSide, World, make_world
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from onnx import TensorProto, helper
from sklearn.datasets import load_digits

from cloister.enclave.config import Batching
from cloister.enclave.engines.tensor import Datatype, Tensor
from cloister.enclave.guard import Watching
from cloister.enclave.guard.features import Projection
from cloister.enclave.guard.sketch import BLOCK, Sketch
from cloister.enclave.guard.watching import MAX_SKETCHES
from cloister.errors import Malformed
from cloister.lending.clauses import Clauses
from cloister.lending.watch import Watch, WatchAction, WatchKind
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.enclave.engines.tensor import Array
    from cloister.wire import Json

USUAL = (Watch(kind=WatchKind.NEAR, above=20), Watch(kind=WatchKind.REGULAR, above=150))
SCANS, DIGITS = load_digits(return_X_y=True)
SCANS = SCANS.astype(np.float32)


def tensor(rows: Array, name: str = "x") -> Tensor:
    return Tensor(name=name, datatype=Datatype.FP32, array=np.ascontiguousarray(rows, dtype=np.float32))


def alarms(
    rows: Array, watches: tuple[Watch, ...] = USUAL, answers: Array | None = None, *, at_once: int = 1
) -> list[tuple[int, str]]:
    """Ask row by row, or so many at once, and return after how many rows which alarm came."""
    found: list[tuple[int, str]] = []
    guard = Watching(watches)
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        outputs = () if answers is None else (tensor(answers[start : start + at_once], "y"),)
        due = guard.take("ann", "m", (tensor(part),), outputs, len(part))
        found += [(start + len(part), kind.value) for kind in due]
    return found


def shuffled(seed: int, scans: Array = SCANS) -> Array:
    return np.random.default_rng(seed).permutation(scans)


def lines(seed: int) -> Array:
    step, scans = np.linspace(0, 1, 20)[:, None], shuffled(seed)
    return np.concatenate([(1 - step) * scans[at] + step * scans[at + 1] for at in range(15)])


def differences(seed: int) -> Array:
    around = np.vstack([np.zeros(64), np.eye(64) / 2])
    return np.concatenate([scan + around for scan in shuffled(seed)[:5]])


def noise(seed: int) -> Array:
    return np.random.default_rng(seed).uniform(0, 16, (300, 64))


@pytest.mark.parametrize("at_once", [1, 7, 100])
@pytest.mark.parametrize(("sweep", "kind"), [(lines, "near"), (differences, "near"), (noise, "regular")])
def test_t67_a_scripted_sweep_sounds_an_alarm_within_two_blocks(sweep: Any, kind: str, at_once: int) -> None:
    for seed in range(3):
        found = alarms(sweep(seed), at_once=at_once)
        assert kind in {name for _, name in found}
        assert found[0][0] <= 2 * BLOCK + at_once


def test_t67_normal_traffic_sounds_none() -> None:
    """Scans of all digits, of one digit, of a noisier scanner, and the same ones again and again."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        assert alarms(shuffled(seed)[:1024]) == []
        assert alarms(shuffled(seed, SCANS[np.equal(DIGITS, seed)])) == []
        assert alarms(shuffled(seed)[:512] + rng.normal(0, 1, (512, 64))) == []
        assert alarms(shuffled(seed)[rng.integers(150, size=600)]) == []
        assert alarms(shuffled(seed)[:512] + 100_000) == [], "what all have in common tells nothing"


def test_t67_a_sweep_that_hides_among_many_others_is_not_noticed_and_nobody_says_so() -> None:
    """What docs/extraction.md says it does not stop: nine scans for each question of a sweep."""
    mixed = shuffled(1)[:1000].copy()
    mixed[::10] = lines(2)[:100]
    assert alarms(mixed) == []


def test_different_inputs_are_counted_about_and_the_same_again_is_not() -> None:
    watch = (Watch(kind=WatchKind.DISTINCT, above=500),)
    found = [count for count, _ in alarms(shuffled(1), watch)]
    assert 2 <= len(found) <= 4, "1,797 inputs, counted to a part by a key that is drawn anew"
    assert 350 <= found[0] <= 800
    assert alarms(shuffled(1)[np.random.default_rng(1).integers(100, size=1500)], watch) == []


@settings(max_examples=20)
@given(count=st.integers(1, 4000), seed=st.integers(0, 2**32))
def test_the_estimate_is_off_by_a_part_and_not_by_a_multiple(count: int, seed: int) -> None:
    sketch = Sketch(np.random.default_rng(0))
    sketch._rank(np.random.default_rng(seed).integers(0, 2**64, size=count, dtype=np.uint64))
    assert abs(sketch.distinct() - count) <= max(3, 0.3 * count)


def test_answers_close_between_two_classes_and_in_many_directions_are_noticed() -> None:
    rng = np.random.default_rng(3)
    unsure = np.full((300, 10), 0.1) + rng.normal(0, 0.01, (300, 10))
    sure = np.where(np.arange(10) == rng.integers(10, size=(300, 1)), 20.0, 0.0)  # logits
    watch = (Watch(kind=WatchKind.UNSURE, above=50),)
    assert [name for _, name in alarms(shuffled(1)[:300], watch, unsure)] == ["unsure"] * 2
    assert alarms(shuffled(1)[:300], watch, sure) == []
    spread = (Watch(kind=WatchKind.SPREAD, above=4),)
    wide, narrow = rng.normal(0, 1, (300, 32)), rng.normal(0, 1, 32) + rng.normal(0, 0.05, (300, 32))
    assert alarms(shuffled(1)[:300], spread, wide) != []
    assert alarms(shuffled(1)[:300], spread, narrow) == []


def test_memory_is_fixed_for_one_consumer_and_bounded_for_all() -> None:
    guard = Watching(tuple(Watch(kind=kind, above=10**6) for kind in WatchKind))
    guard.take("ann", "m", (tensor(SCANS[:1]),), (), 1)
    one = guard.nbytes
    assert one < 24 * 1024
    for _ in range(3):
        guard.take("ann", "m", (tensor(SCANS),), (), len(SCANS))
    assert guard.nbytes == one
    for number in range(MAX_SKETCHES + 50):
        guard.take(f"c{number}", "m", (tensor(SCANS[:1]),), (), 1)
    assert guard.nbytes == MAX_SKETCHES * one < 24 * 2**20


ODD = npst.arrays(
    st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.uint8, np.bool_]),
    npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
)
KINDS = {"f2": Datatype.FP16, "f4": Datatype.FP32, "f8": Datatype.FP64, "i8": Datatype.INT64, "u1": Datatype.UINT8}


@given(arrays=st.lists(ODD, min_size=1, max_size=3), rows=st.integers(1, 5))
def test_no_input_and_no_answer_makes_the_guard_fail(arrays: list[Array], rows: int) -> None:
    guard = Watching(tuple(Watch(kind=kind, above=1) for kind in WatchKind))
    tensors = [
        Tensor(name=str(at), datatype=KINDS.get(array.dtype.str[1:], Datatype.BOOL), array=array.copy(order="C"))
        for at, array in enumerate(arrays)
    ]
    for _ in range(12):
        guard.take("ann", "m", tensors, tensors, rows)


def test_strings_raw_types_and_what_is_no_number_are_taken() -> None:
    guard = Watching(USUAL)
    words = np.array([b"a", b"bc"] * 20, dtype=object).reshape(40, 1)
    bits = np.full((40, 3), 0x7FC0, dtype="<u2")  # not-a-number
    raw = np.zeros((40, 2), dtype=np.uint8)
    for name, kind, array in (("b", Datatype.BYTES, words), ("h", Datatype.BF16, bits), ("e", Datatype.FP8_E5M2, raw)):
        guard.take("ann", "m", (Tensor(name=name, datatype=kind, array=array),), (), 40)


def test_two_instances_keep_different_points_and_hashes_of_the_same_input() -> None:
    rows = np.random.default_rng(1).random((4, 200), dtype=np.float32)
    one, other = (Projection().features((tensor(rows),), (), 4, frozenset()) for _ in range(2))
    assert not np.array_equal(one.points, other.points)
    assert not set(one.hashes.tolist()) & set(other.hashes.tolist())
    apart = np.linalg.norm(rows[0] - rows[1])
    assert np.linalg.norm(one.points[0] - one.points[1]) == pytest.approx(apart, rel=0.5)


def wide() -> bytes:
    """Return ``y = -x`` over rows of 64 numbers."""
    shape: list[int | str | None] = ["batch", 64]
    return dump(
        [helper.make_node("Neg", ["x"], ["y"])],
        [value("x", TensorProto.FLOAT, shape)],
        [value("y", TensorProto.FLOAT, shape)],
    )


def world_of(folder: Path, *watches: Watch) -> World:
    world = make_world(folder, {"m": wide()}, allowance=10_000, max_ceiling=10_000)
    assert world.custodian.loan is not None
    terms = replace(world.custodian.loan.terms, clauses=Clauses(watches=watches))
    world.custodian.loan = replace(world.custodian.loan, terms=terms)
    return world


async def ask(consumer: ConsumerSide, rows: Array) -> tuple[int, str]:
    answer = await consumer.infer(np.asarray(rows, dtype=np.float32).tolist())
    return answer.status, "" if answer.status == 200 else answer.json["code"]


@asynchronous
async def test_only_totals_by_kind_reach_the_custodian_and_each_once(tmp_path: Path) -> None:
    world = world_of(tmp_path, USUAL[0])
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        assert await ask(consumer, lines(1)) == (200, "")
        assert enclave.metrics.value("cloister_extraction_alarms_total", "near") == 2
        for _ in range(2):
            await enclave.renewal.once()
    events = [event for event in world.custodian.events if event.kind.value == "extraction_alarm"]
    assert [event.details for event in events] == [
        {"alarms": 2, "codes": "near", "loan": "loan-abcdefghijklmnop", "seq": 2}
    ]
    assert "alice" not in str(events)


@asynchronous
async def test_an_alarm_stops_its_consumer_and_nobody_else(tmp_path: Path) -> None:
    world = world_of(tmp_path, replace(USUAL[0], action=WatchAction.STOP))
    async with world.enclave() as enclave:
        consumer, other = (ConsumerSide(enclave, world.clock, token) for token in (ALICE, BOB))
        spent = enclave.metering.snapshot().used
        assert await ask(consumer, lines(1)) == (403, "consumer_stopped"), "not even the answer that set it off leaves"
        assert enclave.metering.snapshot().used == spent
        assert await ask(consumer, SCANS[:1]) == (403, "consumer_stopped")
        assert await ask(other, SCANS[:1]) == (200, "")


@asynchronous
async def test_an_alarm_slows_its_consumer_down_for_an_hour(tmp_path: Path) -> None:
    world = world_of(tmp_path, replace(USUAL[0], action=WatchAction.SLOW))
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        assert await ask(consumer, lines(1)) == (200, "")
        refused = await consumer.infer(SCANS[:1].tolist())
        assert (refused.status, refused.json["code"], refused.field("retry-after")) == (429, "rate_limited", "10")
        for _ in range(2):
            world.clock.advance(10)
            assert await ask(consumer, SCANS[:1]) == (200, "")
            assert (await ask(consumer, SCANS[:1]))[1] == "rate_limited"
        for _ in range(90):
            world.clock.advance(40)
            await enclave.renewal.once()
        for _ in range(2):
            assert await ask(consumer, SCANS[:1]) == (200, "")


@asynchronous
async def test_requests_that_share_a_run_are_watched_each_for_itself(tmp_path: Path) -> None:
    world = world_of(tmp_path, replace(USUAL[0], action=WatchAction.STOP))
    async with world.enclave(batching={"m": Batching(rows=64, window_us=500)}) as enclave:
        consumer, other = (ConsumerSide(enclave, world.clock, token) for token in (ALICE, BOB))
        rows = lines(1)
        for start in range(0, len(rows), 20):
            status = await ask(consumer, rows[start : start + 20])
            await ask(other, SCANS[start : start + 20])
        assert status == (403, "consumer_stopped")
        assert await ask(other, SCANS[:1]) == (200, "")


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"kind": "near"},
        {"kind": "close", "above": 1},
        {"kind": "near", "above": 0},
        {"kind": "near", "above": 1, "action": "note"},
        {"kind": "near", "above": 1, "action": "kill"},
        {"kind": "near", "above": 1, "more": 1},
    ],
)
def test_a_watch_in_another_form_is_malformed(value: Json) -> None:
    with pytest.raises(Malformed):
        Clauses.from_json({"watches": [value]})


def test_watches_have_one_spelling() -> None:
    clauses = Clauses(watches=(replace(USUAL[0], action=WatchAction.SLOW), USUAL[1]))
    assert Clauses.from_json(clauses.to_json()) == clauses
    for watches in ([], [USUAL[1].to_json(), USUAL[0].to_json()], [USUAL[0].to_json()] * 2):
        with pytest.raises(Malformed):
            Clauses.from_json({"watches": watches})
