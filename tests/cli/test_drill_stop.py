"""What a drill makes of what it saw: neither figure flattered, a stop that never came never kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cloister.cli.drill_stop import Measured, question_for
from cloister.client.model_info import ModelInfo, TensorInfo

GOOD = Measured(
    url="http://127.0.0.1:1",
    instance="ab" * 32,
    answers_before=3,
    answers_after=2,
    last_answer_s=5.0,
    last_chunk_s=5.5,
    units_after=4,
    end="blocked",
    promised_s=6,
    promised_units=4,
)


def test_a_stop_within_both_figures_is_kept() -> None:
    assert GOOD.kept
    assert replace(GOOD, last_answer_s=6, last_chunk_s=6).kept
    assert replace(GOOD, end="gone", answers_after=0, last_answer_s=0, last_chunk_s=0, units_after=0).kept


@pytest.mark.parametrize(
    "changes",
    [
        {"last_answer_s": 6.001},
        {"last_chunk_s": 6.001},
        {"units_after": 5},
        {"end": "answering"},
        {"promised_units": 3},
    ],
    ids=str,
)
def test_what_exceeds_one_of_them_is_exceeded(changes: dict[str, object]) -> None:
    measured = replace(GOOD, **changes)  # type: ignore[arg-type]  # names are the test's
    assert not measured.kept
    assert measured.to_json()["verdict"] == "exceeded"


def test_the_figure_for_the_log_is_rounded_up_and_is_the_later_of_the_two() -> None:
    assert replace(GOOD, last_chunk_s=5.0001).result_json()["measured_ms"] == 5001
    assert replace(GOOD, last_answer_s=5.9).result_json()["measured_ms"] == 5900


def test_the_question_is_the_smallest_that_a_model_takes() -> None:
    shapes = {"x": ("FP32", (-1, 3)), "ids": ("INT64", (-1,)), "text": ("BYTES", (-1, 1)), "flag": ("BOOL", ())}
    info = ModelInfo(
        name="m", digest="", platform="", outputs=(), task="", description="", images={}, labels={}, remaining=None,
        inputs=tuple(TensorInfo(name=name, datatype=kind, shape=shape) for name, (kind, shape) in shapes.items()),
    )  # fmt: skip
    made = question_for(info)
    assert {name: np.asarray(value).shape for name, value in made.items()} == {
        "x": (1, 3), "ids": (1,), "text": (1, 1), "flag": (),
    }  # fmt: skip
    assert not any(np.any(value) for name, value in made.items() if name != "text")
