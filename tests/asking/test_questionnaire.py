"""The form that a model gets, and what is made of what was filled in."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from cloister.asking.limits import Limits
from cloister.asking.questionnaire import fill_in, questionnaire
from cloister.client.columns import Column
from cloister.client.images import ImageSpec
from cloister.client.model_info import ModelInfo, TensorInfo
from cloister.errors import UsageError
from cloister.serving.forms import Form, Upload

if TYPE_CHECKING:
    import numpy as np

LIMITS = Limits()
GREY = ImageSpec(mode="L", size=(2, 2), low=0, high=1, layout="flat", invert=False)


def model(**inputs: tuple[str, tuple[int, ...]]) -> ModelInfo:
    """Return a model with these inputs, each a type and a shape."""
    return ModelInfo(
        name="m", digest="", platform="", outputs=(), task="", description="", images={}, labels={}, remaining=None,
        inputs=tuple(TensorInfo(name=name, datatype=kind, shape=shape) for name, (kind, shape) in inputs.items()),
    )  # fmt: skip


def filled(info: ModelInfo, **texts: str) -> dict[str, np.ndarray]:
    return fill_in(info, questionnaire(info, LIMITS), Form(texts=texts, files={}), LIMITS)


def test_one_input_of_several_columns_is_numbered_and_several_inputs_are_named() -> None:
    assert questionnaire(model(x=("FP32", (-1, 3))), LIMITS).names == ("x 1", "x 2", "x 3")
    found = questionnaire(model(age=("FP32", (-1,)), sizes=("INT64", (-1, 2))), LIMITS)
    assert found.names == ("age", "sizes 1", "sizes 2")
    assert found.many
    assert found.fields


def test_the_card_names_columns_where_it_names_each() -> None:
    info = replace(model(x=("FP32", (-1, 2))), about={"x": (Column(name="a", unit="kg"), Column(name="b"))})
    assert questionnaire(info, LIMITS).names == ("a", "b")
    short = replace(info, about={"x": (Column(name="a"),)})
    assert questionnaire(short, LIMITS).names == ("x 1", "x 2")


def test_many_named_columns_have_no_fields_and_take_a_table() -> None:
    names = tuple(Column(name=f"gene {number}") for number in range(49))
    found = questionnaire(replace(model(x=("FP32", (-1, 49))), about={"x": names}), LIMITS)
    assert (len(found.cells), found.fields, found.many) == (49, False, True)


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": ("FP32", (-1, -1, 4))}, {"x": ("FP32", (-1, 5000))}, {"x": ("FP8_E5M2", (-1, 2))},
        {"x": ("FP32", (-1, 49))}, {"x": ("FP32", (-1, 3000)), "y": ("FP32", (-1, 3000))},
    ],
)  # fmt: skip
def test_what_is_neither_picture_nor_table_has_the_general_form(inputs: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    found = questionnaire(model(**inputs), LIMITS)
    assert [field.tensor.name for field in found.tensors] == list(inputs)
    assert (found.cells, found.many, found.can_ask, found.counts) == ((), False, True, True)


def test_columns_of_one_name_have_the_general_form() -> None:
    info = model(x=("FP32", (-1, 2)), y=("FP32", (-1, 2)))
    twice = replace(info, about={name: (Column(name="a"), Column(name="b")) for name in ("x", "y")})
    assert [field.tensor.name for field in questionnaire(twice, LIMITS).tensors] == ["x", "y"]


def test_an_input_of_the_general_form_goes_beside_one_row() -> None:
    info = model(signal=("FP32", (-1, 1, 100)), age=("FP32", (-1,)))
    asked = questionnaire(info, LIMITS)
    assert (asked.names, asked.many, asked.tensors[0].field) == (("age",), False, "t0")
    found = filled(info, c0="60", t0=" ".join(["0.5"] * 100))
    assert (found["signal"].shape, found["age"].tolist()) == ((1, 1, 100), [60.0])


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": ("FLOAT", (2,))}, {"x": ("FP32", (-1, 0))}, {"x": ("FP32", (-1, -1)), "y": ("FLOAT", (2,))},
        {f"x{number}": ("FP32", (-1, -1)) for number in range(65)}, {},
    ],
)  # fmt: skip
def test_what_no_form_can_take_is_told(inputs: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    info = model(**inputs)
    found = questionnaire(info, LIMITS)
    assert not found.can_ask
    assert not found.tensors
    with pytest.raises(UsageError, match="no form"):
        filled(info)


def test_values_of_all_inputs_together_are_bounded() -> None:
    info = model(x=("FP32", (-1, -1)), y=("FP32", (-1, -1)))
    few = replace(LIMITS, max_values=5)
    asked = questionnaire(info, few)
    assert fill_in(info, asked, Form(texts={"t0": "1 2 3", "t1": "1 2"}, files={}), few)["y"].tolist() == [[1, 2]]
    with pytest.raises(UsageError, match=r"input y, line 1: 3 values, want at most 2 in all"):
        fill_in(info, asked, Form(texts={"t0": "1 2 3", "t1": "1 2 3"}, files={}), few)


SHAPES = {(-1, 2): (1, 2), (1, 2): (1, 2), (2,): (2,), (-1, 2, 1): (1, 2, 1), (1, 1, 2): (1, 1, 2)}


@pytest.mark.parametrize(("shape", "want"), SHAPES.items())
def test_a_row_becomes_what_the_model_takes(shape: tuple[int, ...], want: tuple[int, ...]) -> None:
    assert filled(model(x=("FP32", shape)), c0="1.5", c1="-2")["x"].shape == want


def test_a_model_without_open_rows_takes_one() -> None:
    info = model(x=("FP32", (1, 2)))
    assert not questionnaire(info, LIMITS).many
    with pytest.raises(UsageError, match="over 1 rows"):
        filled(info, table="1,2\n3,4\n")


def test_a_first_row_of_numbers_is_a_row_whatever_columns_are_called() -> None:
    info = replace(model(x=("FP32", (-1, 2))), about={"x": (Column(name="1"), Column(name="2"))})
    assert filled(info, table="2,1\n4,3\n")["x"].tolist() == [[2.0, 1.0], [4.0, 3.0]]


def test_types_are_held_to_and_nothing_is_rounded() -> None:
    info = model(n=("INT64", (-1,)), yes=("BOOL", (-1,)), word=("BYTES", (-1,)), x=("FP64", (-1,)))
    found = filled(info, table="n,yes,word,x\n9007199254740993,yes, a b ,1e-3\n-1,false,,2\n")
    assert found["n"].tolist() == [9007199254740993, -1]
    assert found["yes"].tolist() == [True, False]
    assert found["word"].tolist() == ["a b", ""]
    assert found["x"].tolist() == [0.001, 2.0]
    for row in ("1.5,yes,a,1", "1,maybe,a,1", "1,yes,a,inf", "1,yes,a,1e999", "1,yes,a,", "1e3,yes,a,1"):
        with pytest.raises(UsageError, match="row 1"):
            filled(info, table=row)


def test_numbers_that_no_array_holds_are_refused() -> None:
    with pytest.raises(UsageError):
        filled(model(n=("UINT64", (-1, 2))), table=f"{10**400},1")


def test_a_picture_and_values_go_together() -> None:
    info = replace(model(image=("FP32", (-1, 4)), age=("FP32", (-1, 1))), images={"image": GREY})
    data = io.BytesIO()
    Image.new("L", (4, 4), 255).save(data, "PNG")
    picture = Upload(name="p.png", media_type="image/png", data=data.getvalue())
    form = Form(texts={"c0": "60"}, files={"picture-image": picture})
    asked = questionnaire(info, LIMITS)
    assert not asked.many
    found = fill_in(info, asked, form, LIMITS)
    assert found["image"].tolist() == [[1.0, 1.0, 1.0, 1.0]]
    assert found["age"].tolist() == [[60.0]]


def test_a_file_that_is_no_text_is_refused() -> None:
    info = model(x=("FP32", (-1, 2)))
    form = Form(texts={}, files={"table-file": Upload(name="t.csv", media_type="text/csv", data=b"\xff\xfe1")})
    with pytest.raises(UsageError, match="no utf-8"):
        fill_in(info, questionnaire(info, LIMITS), form, LIMITS)


def test_a_cell_that_is_too_long_is_refused() -> None:
    with pytest.raises(UsageError, match="a cell of over"):
        filled(model(word=("BYTES", (-1,))), table="x" * 70_000)


@pytest.mark.parametrize("low_high", [(None, 5.0), (1.0, None), (1.0, 5.0)])
def test_the_card_s_range_is_held_to(low_high: tuple[float | None, float | None]) -> None:
    low, high = low_high
    info = replace(model(x=("FP32", (-1, 1))), about={"x": (Column(name="a", minimum=low, maximum=high),)})
    assert filled(info, c0="3")["x"].tolist() == [[3.0]]
    for text in ("0.5" if low is not None else "6", "6" if high is not None else "0.5"):
        with pytest.raises(UsageError, match="want"):
            filled(info, c0=text)
