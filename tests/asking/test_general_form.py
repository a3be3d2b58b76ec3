"""The general form of an input: what is given comes into the model's shape, or is refused by its name."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest

from cloister.asking.limits import Limits
from cloister.asking.tensors import TensorField, fill_tensor, has_field, in_shape
from cloister.client.model_info import TensorInfo
from cloister.errors import UsageError
from cloister.serving.forms import Form, Upload

LIMITS = Limits()


def field(datatype: str = "FP32", shape: tuple[int, ...] = (-1, -1)) -> TensorField:
    return TensorField(tensor=TensorInfo(name="x", datatype=datatype, shape=shape), field="t0")


def filled(
    one: TensorField, text: str = "", file: bytes | None = None, *, limits: Limits = LIMITS, **more: str
) -> np.ndarray:
    files = {} if file is None else {"t0-file": Upload(name="f", media_type="", data=file)}
    texts = {"t0": text} | {f"t0-{name}": value for name, value in more.items()}
    return fill_tensor(one, Form(texts=texts, files=files), limits, limits.max_values)


def npy(array: object) -> bytes:
    data = io.BytesIO()
    np.save(data, np.asarray(array))
    return data.getvalue()


SHAPES = [
    # what was given, what the model takes, what comes of it
    ((2, 3), (-1, 3), (2, 3)),
    ((3,), (-1, 3), (1, 3)),
    ((6,), (-1, 3), (2, 3)),
    ((5,), (-1, -1), (1, 5)),
    ((12,), (-1, -1, 4), (1, 3, 4)),
    ((3, 4), (-1, -1, 4), (1, 3, 4)),
    ((3, 4), (1, -1, 4), (1, 3, 4)),
    ((100,), (-1, 1, 100), (1, 1, 100)),
    ((1, 100), (-1, 1, 100), (1, 1, 100)),
    ((5, 100), (-1, 1, 100), (5, 1, 100)),
    ((2, 6), (2, 2, 3), (2, 2, 3)),
    ((24,), (2, 3, 4), (2, 3, 4)),
    ((4, 2), (4, -1), (4, 2)),
    ((8,), (4, -1), (4, 2)),
    ((8,), (-1, 4), (2, 4)),
    ((1,), (), ()),
    ((), (-1,), ()),
    ((2, 3, 4), (-1,), (2, 3, 4)),
]


@pytest.mark.parametrize(("got", "want", "made"), SHAPES, ids=range(len(SHAPES)))
def test_what_is_given_comes_into_the_model_s_shape_in_its_order(
    got: tuple[int, ...], want: tuple[int, ...], made: tuple[int, ...]
) -> None:
    array = np.arange(int(np.prod(got))).reshape(got)
    found = in_shape(array, TensorInfo(name="x", datatype="INT64", shape=want))
    assert found.shape == made
    assert found.reshape(-1).tolist() == array.reshape(-1).tolist()


MISFITS = [
    ((5,), (-1, 3), r"5 values, want a multiple of 3 for x INT64\[any, 3\]"),
    ((5,), (2, 3), r"5 values, want 6 for x INT64\[2, 3\]"),
    ((7,), (2, 3), "7 values, want 6"),
    ((2,), (), "2 values, want 1"),
    ((2, 4), (-1, 3), r"shape \[2, 4\], want x INT64\[any, 3\]"),
    ((4, 3), (-1, -1, 4), r"shape \[4, 3\]"),
    ((3, 6), (2, 2, 3), r"shape \[3, 6\]"),
    ((1, 1), (), r"shape \[1, 1\]"),
    ((2, 2, 2), (-1, 4), r"shape \[2, 2, 2\]"),
]


@pytest.mark.parametrize(("got", "want", "told"), MISFITS, ids=range(len(MISFITS)))
def test_what_does_not_fit_is_told_with_what_would(got: tuple[int, ...], want: tuple[int, ...], told: str) -> None:
    with pytest.raises(UsageError, match=f"input x: {told}"):
        in_shape(np.zeros(got), TensorInfo(name="x", datatype="INT64", shape=want))


def test_text_and_files_are_read_alike() -> None:
    want = [[1.0, 2.0], [3.0, 4.0]]
    for text in ("[[1,2],[3,4]]", "1,2\n3,4", "1 2\n3 4", "a;b\n1;2\n3;4"):
        assert filled(field(), text).tolist() == want
        assert filled(field(), file=text.encode()).tolist() == want
    assert filled(field(), file=npy(want)).tolist() == want
    assert filled(field(), file=b"\xef\xbb\xbf[[1,2],[3,4]]").tolist() == want


def test_words_come_by_line_or_as_json_or_from_a_file() -> None:
    one = field("BYTES", (-1, -1))
    assert filled(one, "[a]\nb\n").tolist() == [["[a]", "b"]]
    assert filled(one, '[["a"],["b"]]', **{"as": "json"}).tolist() == [["a"], ["b"]]
    assert filled(one, file=b"a\r\nb").tolist() == [["a", "b"]]
    assert filled(one, file=b'["a"]', **{"as": "json"}).tolist() == [["a"]]
    assert filled(one, file=npy([["a", "b"]])).tolist() == [["a", "b"]]
    with pytest.raises(UsageError, match="input x: nothing, want a text on each line"):
        filled(one)
    with pytest.raises(UsageError, match=r"input x: 'a', want a string"):
        filled(one, "a", **{"as": "json"})


BAD = {
    "nothing": ({}, "input x: nothing, want values of FP32"),
    "both": ({"text": "1", "file": b"2"}, "input x: text and a file, want one of them"),
    "no text": ({"file": b"\xff\xfe1"}, "input x, file: neither .npy nor utf-8 text"),
    "an archive": ({"file": b"PK\x03\x04\xff"}, "neither .npy"),
    "a pickle": ({"file": b"\x80\x04\x95"}, "neither .npy"),
    "not a number in a file": ({"file": npy([[1, np.nan]])}, r"input x, at \[0\]\[1\]: nan, want a finite number"),
    "infinity in a file": ({"file": npy([[-np.inf]]), "nan": "yes"}, r"at \[0\]\[0\]: -inf, want a number"),
    "a number that is none": ({"file": npy(np.nan)}, "input x: nan, want a finite number"),
    "three dimensions": ({"file": npy(np.zeros((2, 2, 2)))}, r"shape \[2, 2, 2\], want x FP32\[any, any\]"),
    "many items": ({"file": npy(np.zeros((1001, 1)))}, "input x: 1001 items, want at most 1000"),
}


@pytest.mark.parametrize(("given", "told"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_asked_is_refused_by_the_input_s_name(given: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        filled(field(), **given)  # type: ignore[arg-type]  # a table of cases


def test_gaps_in_a_file_are_taken_where_they_are_meant() -> None:
    assert np.isnan(filled(field(), file=npy([[1, np.nan]]), nan="yes")).tolist() == [[False, True]]
    assert np.isnan(filled(field(), "[1, null]", nan="yes")).tolist() == [[False, True]]


def test_bounds_are_held_to_before_text_is_read() -> None:
    few = replace(LIMITS, max_written=3, max_texts=2, max_text_bytes=8)
    assert filled(field(), file=npy([[1, 2, 3, 4]]), limits=few).size == 4
    with pytest.raises(UsageError, match="want at most 3 in all"):
        filled(field(), "1 2 3 4", limits=few)
    with pytest.raises(UsageError, match="input x, file: 9 bytes, want at most 8 of text"):
        filled(field(), file=b"1 2 3 4 5", limits=few)
    with pytest.raises(UsageError, match="4 lines, want at most 2"):
        filled(field("BYTES"), "\n\n\n\n", limits=few)
    with pytest.raises(UsageError, match="3 values, want at most 2"):
        filled(field("BYTES"), file=npy(["a", "b", "c"]), limits=few)
    with pytest.raises(UsageError, match="5 values, want at most 4"):
        filled(field(), file=npy([1, 2, 3, 4, 5]), limits=replace(few, max_values=4))


def test_the_form_says_what_goes_in() -> None:
    examples = {
        field("FP32", (-1, 3)): ("any x 3", "[[0.5, 0.5, 0.5], …]"),
        field("INT64", (-1, -1)): ("any x any", "[[1, 1, 1, …]]"),
        field("BOOL", (2,)): ("2", "[true, true]"),
        field("BYTES", (1, 2)): ("1 x 2", '[["text", "text"]]'),
        field("BF16", (-1, 1, 1000)): ("any x 1 x 1000", "[[[0.5, 0.5, 0.5, …]], …]"),
        field("FP64", ()): ("one value", "0.5"),
    }
    assert {one: (one.shape, one.example) for one in examples} == examples
    for one in examples:
        text = one.example.replace(", …", "")
        assert filled(replace_free(one), text, **{"as": "json"}).ndim == len(one.tensor.shape)


def replace_free(one: TensorField) -> TensorField:
    """Return the field with every size free, so that the example alone has to have the rank."""
    shape = (-1,) * len(one.tensor.shape)
    return replace(one, tensor=replace(one.tensor, shape=shape))


def test_only_types_that_the_client_knows_have_a_form() -> None:
    assert has_field(field("FP8_E5M2").tensor)
    assert not has_field(field("FLOAT").tensor)
    assert not has_field(field("FP32", (0, 2)).tensor)
