"""Tables and columns of pandas as inputs: by name, in the card's order, nothing missing, nothing invented."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from client_town import Town, scan

from cloister.client.model_info import ModelInfo, TensorInfo, parse_metadata
from cloister.client.tensors import array_inputs
from cloister.errors import Malformed, UsageError
from cloister.wire import Json, dump_json


def model(*inputs: tuple[str, str, tuple[int, ...]], **changes: Any) -> ModelInfo:
    tensors = tuple(TensorInfo(name=name, datatype=datatype, shape=shape) for name, datatype, shape in inputs)
    made = ModelInfo(
        name="m", digest="", platform="", inputs=tensors, outputs=(), task="", description="", images={}, labels={},
        remaining=None,
    )  # fmt: skip
    return replace(made, **changes)


WIDE = model(("x", "FP32", (-1, 2)))
NAMED = model(("age", "INT64", (-1, 1)), ("weight", "FP32", (-1,)), ("ward", "BYTES", (-1, 1)))
PATIENTS = pd.DataFrame({"weight": [70.5, 82.0], "ward": ["a", "b"], "age": [41, 63]})


def test_columns_go_to_the_inputs_of_their_names_whatever_their_order() -> None:
    found = array_inputs(NAMED, PATIENTS)
    assert {name: (array.tolist(), array.dtype.kind) for name, array in found.items()} == {
        "age": ([[41], [63]], "i"),
        "weight": ([70.5, 82.0], "f"),
        "ward": ([["a"], ["b"]], "O"),
    }
    assert found["weight"].dtype == np.float32


def test_the_card_names_columns_and_their_order() -> None:
    info = replace(WIDE, columns={"x": ("height", "age")})
    table = pd.DataFrame({"age": [1, 2], "height": [3.5, 4.5]})
    assert array_inputs(info, table)["x"].tolist() == [[3.5, 1.0], [4.5, 2.0]]
    assert array_inputs(info, {"x": table})["x"].tolist() == [[3.5, 1.0], [4.5, 2.0]]
    with pytest.raises(UsageError, match="missing height") as caught:
        array_inputs(info, table[["age"]])
    assert "height, age" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="unknown diagnosis"):
        array_inputs(info, table.assign(diagnosis=0))
    with pytest.raises(UsageError, match="columns age"):
        array_inputs(info, {"x": table[["age"]]})


def test_without_names_anywhere_columns_are_taken_as_they_stand() -> None:
    assert array_inputs(WIDE, pd.DataFrame({"b": [1, 2], "a": [True, False]}))["x"].tolist() == [[1, 1], [2, 0]]
    with pytest.raises(UsageError, match=r"shape \[2, 3\], want x FP32\[any, 2\]"):
        array_inputs(WIDE, pd.DataFrame(np.zeros((2, 3))))


def test_every_missing_and_left_over_column_is_named() -> None:
    with pytest.raises(UsageError, match="missing age, missing weight, unknown size") as caught:
        array_inputs(NAMED, pd.DataFrame({"size": [1], "ward": ["a"]}))
    assert "age, weight, ward" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="two columns a"):
        array_inputs(WIDE, pd.DataFrame(np.zeros((1, 2)), columns=["a", "a"]))


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ([1.0, np.nan, np.nan], "column b: 2 of 3 values are missing, the first in row 1"),
        (pd.array([1, 2, None], dtype="Int64"), "1 of 3 values are missing, the first in row 2"),
        (["a", "b", "c"], "text or mixed values, want FP32"),
        (pd.Categorical(["u", "v", "u"]), "text or mixed values, want FP32"),
        ([1, "2", 3.0], "text or mixed values"),
        (pd.to_datetime(["2026-01-01"] * 3), "times, want FP32"),
        ([2**40, 1, 1], "integers beyond 16777216, want FP32"),
        ([1e300, 1, 1], "infinite"),
        ([1j, 1, 1], "complex"),
    ],
)
def test_what_cannot_be_numbers_says_which_column_and_what_to_do(column: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        array_inputs(WIDE, pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": column}))
    assert caught.value.hint


def test_missing_text_is_refused_too() -> None:
    with pytest.raises(UsageError, match="column ward: 1 of 2 values are missing"):
        array_inputs(NAMED, PATIENTS.assign(ward=["a", None]))


def test_numbers_that_may_be_missing_and_are_not_are_numbers() -> None:
    table = pd.DataFrame({"a": pd.array([1, 2], dtype="Int64"), "b": pd.array([True, False], dtype="boolean")})
    assert array_inputs(WIDE, table)["x"].tolist() == [[1, 1], [2, 0]]
    assert array_inputs(WIDE, table.astype({"a": "category"}))["x"].tolist() == [[1, 1], [2, 0]]


def test_words_of_a_category_are_text_for_an_input_of_text() -> None:
    found = array_inputs(NAMED, PATIENTS.assign(ward=pd.Categorical(["north", "süd"])))
    assert found["ward"].tolist() == [["north"], ["süd"]]


def test_a_column_is_one_item_for_each_row() -> None:
    asked = {"age": PATIENTS["age"], "weight": PATIENTS["weight"], "ward": PATIENTS["ward"]}
    assert array_inputs(NAMED, asked)["age"].tolist() == [[41], [63]]
    assert array_inputs(model(("y", "FP64", (-1,))), PATIENTS["age"])["y"].tolist() == [41.0, 63.0]
    with pytest.raises(UsageError, match=r"shape \[2\], want x FP32\[any, 2\]"):
        array_inputs(WIDE, PATIENTS["age"])


def test_rows_of_a_table_are_asked_together(town: Town) -> None:
    table = pd.DataFrame(np.concatenate([scan(number) for number in range(9)]))
    with town.client() as client:
        assert client.infer("digits", table.iloc[:3]).outputs["label"].tolist() == [0, 1, 2]
        found = client.infer_many("digits", table.iloc[3:], batch=4)
    assert found.outputs["label"].tolist() == [3, 4, 5, 6, 7, 8]
    assert [group.rows for group in found.groups] == [(4,), (2,)]


@pytest.fixture
def town() -> Town:
    return Town()


def metadata(columns: Json) -> bytes:
    card: Json = {"preprocess": {"x": {"kind": "table", "columns": columns}, "y": {"kind": "sound"}}}
    return dump_json({"inputs": [], "name": "m", "outputs": [], "parameters": {"card": card}, "platform": "p",
                      "versions": []})  # fmt: skip


def test_a_card_of_columns_is_read_strictly() -> None:
    assert parse_metadata(metadata(["a", "b"])).columns == {"x": ("a", "b")}
    for bad in ([], ["a", "a"], [1], "a", None):
        with pytest.raises(Malformed):
            parse_metadata(metadata(bad))


def test_pandas_is_never_imported_by_the_client() -> None:
    program = (
        "import numpy, sys; from cloister.client import tensors, client, inference, batch, tables;"
        "assert not {'pandas', 'torch', 'IPython'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)  # noqa: S603 - ours
