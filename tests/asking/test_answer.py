"""Answers as a person reads them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np

from cloister.asking.answer import Output, json_parts, outputs_of


def shown(array: np.ndarray, *, classes: tuple[str, ...] = (), labels: tuple[str, ...] = ()) -> Output:
    """Return how one output is shown."""
    inference: Any = SimpleNamespace(outputs={"y": array}, labels={"y": labels} if labels else {})
    info: Any = SimpleNamespace(labels={"y": classes} if classes else {})
    return outputs_of(inference, info)[0]


def test_scores_of_one_item_are_bars_in_order_and_in_percent_where_they_are_parts() -> None:
    found = shown(np.array([[0.1, 0.7, 0.2]], np.float32), classes=("a", "b", "c"), labels=("b",))
    assert found.headline == "b"
    assert [(bar.label, bar.score) for bar in found.bars] == [("b", "70.0 %"), ("c", "20.0 %"), ("a", "10.0 %")]
    assert round(found.bars[0].share, 3) == 0.7


def test_scores_that_are_no_parts_of_one_stay_what_they_are() -> None:
    found = shown(np.array([[-2.0, 6.0, 2.0]]), classes=("a", "b", "c"))
    assert [(bar.label, bar.score, bar.share) for bar in found.bars] == [
        ("b", "6", 1.0),
        ("c", "2", 0.5),
        ("a", "-2", 0.0),
    ]


def test_scores_that_are_no_numbers_break_nothing() -> None:
    found = shown(np.array([[np.nan, np.inf, -np.inf]]), classes=("a", "b", "c"))
    assert {bar.score for bar in found.bars} == {"nan", "inf", "-inf"}
    assert all(0 <= bar.share <= 1 for bar in found.bars)


def test_of_many_classes_the_best_are_shown() -> None:
    found = shown(np.linspace(0, 1, 30)[np.newaxis], classes=tuple(map(str, range(30))))
    assert len(found.bars) == 10
    assert found.note == "20 more classes with lower scores"


def test_scores_of_many_items_are_a_table_of_the_best() -> None:
    found = shown(np.eye(3, dtype=np.float32), classes=("a", "b", "c"), labels=("a", "b", "c"))
    assert found.rows == (("1", "a", "100.0 %"), ("2", "b", "100.0 %"), ("3", "c", "100.0 %"))


def test_one_number_one_word_and_one_text() -> None:
    assert shown(np.array([3.14159265])).headline == "3.14159"
    assert shown(np.array(7)).headline == "7"
    assert shown(np.array([1]), labels=("seven",)).headline == "seven"
    assert shown(np.array([b"a\nb"], object)).text == "a\nb"
    assert shown(np.array([b"\xff"], object)).text == "\N{REPLACEMENT CHARACTER}"
    long = shown(np.array([b"x" * 30_000], object))
    assert (len(long.text), long.note) == (20_000, "the first 20000 characters")


def test_tables_are_cut_and_say_so() -> None:
    found = shown(np.zeros((600, 70)))
    assert (len(found.rows), len(found.rows[0])) == (500, 65)
    assert "of 42000 are shown" in found.note
    assert shown(np.arange(3)).head == ("row", "value")
    assert shown(np.arange(600), labels=tuple(map(str, range(600)))).note.startswith("500 of 600")


def test_more_dimensions_are_rows_that_say_where_they_are() -> None:
    found = shown(np.arange(12).reshape(2, 3, 2))
    assert found.note == "2 x 3 x 2"
    assert found.head == ("row", "1", "2")
    assert found.rows[0] == ("1, 1", "0", "1")
    assert found.rows[-1] == ("2, 3", "10", "11")
    assert shown(np.zeros((30, 30, 2))).note == "30 x 30 x 2; 1000 of 1800 are shown; all are in the outputs as JSON"


def test_nothing_is_shown_of_no_values() -> None:
    assert shown(np.zeros((0, 3))).note == "no values"
    assert shown(np.zeros((2, 0, 3))).note == "no values"


def document(**outputs: np.ndarray) -> Any:
    """Return the outputs as the file has them."""
    inference: Any = SimpleNamespace(model='a "b"', outputs=outputs)
    return json.loads(b"".join(json_parts(inference)))


def test_outputs_as_json_hold_every_value_exactly() -> None:
    tenth = float(np.float32(0.1))
    found = document(
        a=np.array([[0.1, np.nan], [np.inf, -np.inf]], np.float32),
        b=np.array([2**63 - 1, -1]),
        c=np.array([True]),
        d=np.array([["\u00e9".encode(), b'"']], object),
        e=np.array([b"\xff", b"a"], object),
        f=np.zeros((0, 3), np.uint8),
    )
    assert found["model_name"] == 'a "b"'
    assert found["outputs"] == [
        {"datatype": "FP32", "name": "a", "shape": [2, 2], "data": [tenth, "NaN", "Infinity", "-Infinity"]},
        {"datatype": "INT64", "name": "b", "shape": [2], "data": [2**63 - 1, -1]},
        {"datatype": "BOOL", "name": "c", "shape": [1], "data": [True]},
        {"datatype": "BYTES", "name": "d", "shape": [1, 2], "data": ["\u00e9", '"']},
        {"datatype": "BYTES", "name": "e", "shape": [2], "data": ["_w", "YQ"], "parameters": {"encoding": "base64url"}},
        {"datatype": "UINT8", "name": "f", "shape": [0, 3], "data": []},
    ]  # fmt: skip


def test_many_outputs_as_json_come_in_parts() -> None:
    values = np.arange(25_000)
    inference: Any = SimpleNamespace(model="m", outputs={"y": values})
    parts = list(json_parts(inference))
    assert max(map(len, parts)) < 100_000
    assert json.loads(b"".join(parts))["outputs"][0]["data"] == values.tolist()
