"""Values as a person writes them: what is taken, and where what is not taken is said to be."""

from __future__ import annotations

import math
import random
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cloister.asking.values import number_lines, reading, text_lines, written
from cloister.client.model_info import TensorInfo
from cloister.errors import UsageError

if TYPE_CHECKING:
    from cloister.asking.values import Reading


def kind(datatype: str = "FP32", *, gaps: bool = False, most: int = 100) -> Reading:
    """Return how values of a type are read."""
    return reading(TensorInfo(name="x", datatype=datatype, shape=(-1,)), gaps=gaps, most=most)


LISTS = {
    "[1, 2]": [1, 2], "[[1,2],[3,4]]": [[1, 2], [3, 4]], " [ [ 1.5 ] ,\r\n[ -2e3 ] ] ": [[1.5], [-2000]], "[-0.0]": [0],
    "[[[1]]]": [[[1]]],
}  # fmt: skip


@pytest.mark.parametrize(("text", "want"), LISTS.items())
def test_lists_are_read_in_their_shape(text: str, want: object) -> None:
    assert written(text, kind()).tolist() == want


BAD_LISTS = {
    "[[1, 2], [3]]": r"input x, at \[1\]: 1 value, want 2, as in the first list",
    "[[[1],[2]],[[3]]]": r"at \[1\]: 1 value, want 2",
    "[[1], 2]": r"at \[1\]: 2, want a list, as before it",
    "[1, [2]]": r"at \[1\]: a list, want a value, as before it",
    "[[1],[[2]]]": r"at \[1\]\[0\]: a list, want a value, as before it",
    "[]": r"input x: an empty list, want values",
    "[[1],[]]": r"at \[1\]: an empty list, want values",
    "[1, abc]": r"at \[1\]: 'abc', want a number, with a point",
    "[[0, 1], [2, '3']]": r"at \[1\]\[1\]: \"'3'\", want a number",
    '["1"]': r"at \[0\]: '\"1\"', want a number without quotation marks",
    "[1, true]": r"at \[1\]: 'true', want a number",
    "[1": r"at \[0\]: the end, want a comma or a bracket",
    "[1,": r"at \[1\]: the end, want a value",
    "[1 2]": r"at \[0\]: '2', want a comma or a bracket",
    "[1,,2]": r"at \[1\]: ',', want a value",
    "[1]]": r"input x: '\]', want the end",
    "[1][2]": r"input x: '\[', want the end",
    "[1], 2": r"input x: ',', want the end",
    '["a': r"at \[0\]: '\"a', want a value",
    "": "input x: the end, want a value",
    '{"x": [1]}': r"input x: '{', want a number",
    "[1e999]": r"at \[0\]: '1e999', want -3.40282e\+38 to 3.40282e\+38",
    "[NaN]": r"at \[0\]: 'NaN', want a number",
    "[null]": r"at \[0\]: 'null', want a number",
    "[Infinity]": r"at \[0\]: 'Infinity', want a number, with a point",
    "[1_000]": "'1_000'",
    "[\u0661]": "want a number",
    "[0x10]": "'0x10'",
}


@pytest.mark.parametrize(("text", "told"), BAD_LISTS.items())
def test_a_fault_in_lists_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        written(text, kind())


def test_deep_lists_are_refused_where_they_become_too_deep() -> None:
    assert written("[" * 16 + "1" + "]" * 16, kind()).shape == (1,) * 16
    for depth in (17, 1_000_000):
        with pytest.raises(UsageError, match="want lists at most 16 deep"):
            written("[" * depth, kind())


def test_a_long_string_is_read_whole_and_takes_no_memory_for_each_escape() -> None:
    text = '["' + '\\"' * 500_000 + '"]'
    tracemalloc.start()
    try:
        found = written(text, kind("BYTES"))
        assert tracemalloc.get_traced_memory()[1] < 16 * len(text)
    finally:
        tracemalloc.stop()
    assert found.tolist() == ['"' * 500_000]
    with pytest.raises(UsageError, match="want a value"):
        written(text[:-2], kind("BYTES"))


def test_more_values_than_are_allowed_are_refused_where_they_begin() -> None:
    assert written("[1,2,3]", kind(most=3)).size == 3
    with pytest.raises(UsageError, match=r"at \[3\]: another value, want at most 3 in all"):
        written("[1,2,3,4" + ",4" * 1000, kind(most=3))
    with pytest.raises(UsageError, match="line 2: 4 values, want at most 3 in all"):
        number_lines("1 2\n3 4\n", kind(most=3))
    with pytest.raises(UsageError, match="line 1: 4 values, want at most 3 in all"):
        number_lines("1," * 9000, kind(most=3))
    with pytest.raises(UsageError, match="4 lines, want at most 3"):
        number_lines("\n\n\n\n", kind(most=3))


RANGES = {
    "INT8": ("-128", "127", "-129", "128"), "UINT8": ("0", "255", "-1", "256"), "FP8_E5M2": ("0", "255", "-1", "0.5"),
    "INT64": (str(-(2**63)), str(2**63 - 1), str(-(2**63) - 1), str(2**63)),
    "UINT64": ("0", str(2**64 - 1), "-1", str(2**64)), "FP16": ("-65504", "65504", "-65505", "65505"),
    "BF16": ("-3.3e38", "3.3e38", "-3.4e38", "3.4e38"), "FP64": ("-1e308", "1e308", "-1e309", "1e309"),
    "BOOL": ("false", "1", "2", "maybe"),
}  # fmt: skip


@pytest.mark.parametrize("datatype", RANGES)
def test_each_type_is_held_to_its_range_exactly(datatype: str) -> None:
    low, high, below, above = RANGES[datatype]
    how = kind(datatype)
    found = written(f"[{low}, {high}]", how).tolist()
    if datatype.startswith(("INT", "UINT")):
        assert found == [int(low), int(high)]
    for bad in (below, above):
        with pytest.raises(UsageError, match=r"input x, at \[1\]: .* want"):
            written(f"[{low}, {bad}]", how)
        with pytest.raises(UsageError, match=r"input x, line 1, value 2: .* want"):
            number_lines(f"{low} {bad}", how)


def test_whole_numbers_beyond_what_a_float_holds_stay_exact() -> None:
    assert written("[9007199254740993, 1]", kind("INT64")).tolist() == [9007199254740993, 1]
    assert written("[18446744073709551615, 1]", kind("UINT64")).tolist() == [2**64 - 1, 1]
    for text in ("[1.0]", "[1e3]", f"[{'9' * 5000}]"):
        with pytest.raises(UsageError, match=r"at \[0\]: .* want a whole number"):
            written(text, kind("INT64"))


def test_gaps_are_taken_where_they_are_meant_and_infinity_never() -> None:
    how = kind(gaps=True)
    for found in (written("[NaN, null, nan]", how), number_lines("nan,,NA", how)):
        assert all(map(math.isnan, found.tolist()))
    for bad in ("inf", "-Infinity", "-nan"):
        with pytest.raises(UsageError, match="want a number"):
            written(f"[{bad}]", how)
    with pytest.raises(UsageError, match="want a whole number"):
        written("[NaN]", kind("INT64", gaps=True))
    with pytest.raises(UsageError, match="value 2: nothing, want a number") as caught:
        number_lines("1,,2", kind())
    assert caught.value.hint is not None


LINES = {
    "1,2\n3,4\n": [[1, 2], [3, 4]], "1;2\r\n3;4": [[1, 2], [3, 4]], "1\t2\n\n3\t4": [[1, 2], [3, 4]],
    "  1   2\n3 4 ": [[1, 2], [3, 4]], "1 2 3": [1, 2, 3], "1\n2\n3\n": [1, 2, 3], "5": [5], "\ufeff1,2": [1, 2],
    "time,value\n1,2\n3,4": [[1, 2], [3, 4]], "# mV\n1\n2": [1, 2], '"a";"b"\n1;2': [1, 2], "+1 .5 2.": [1, 0.5, 2],
}  # fmt: skip


@pytest.mark.parametrize(("text", "want"), LINES.items())
def test_lines_of_numbers_are_rows(text: str, want: object) -> None:
    assert number_lines(text, kind()).tolist() == want


BAD_LINES = {
    "1,2\n3": "line 2: 1 value, want 2, as on the first line",
    "1,2\n\n3,x": "line 3, value 2: 'x', want a number",
    "1,5;2,5": "line 1, value 1: '1,5', want a number, with a point",
    "a,b": "line 1, value 1: 'a', want a number",
    "a,1\n2,3": "line 1, value 1: 'a'",
    "nan,na\n1,2": "line 1, value 1: 'nan', want a number",
    "yes,no\n1,2": "line 1, value 1: 'yes'",
    "a,\n1,2": "line 1, value 1: 'a'",
    "1 000;2\n3;4": "line 1, value 1: '1 000'",
    "a,b\nc,d\n1,2": "line 2, value 1: 'c'",
    " \n ": "nothing, want values",
    "1" * 65: "want a number",
}


@pytest.mark.parametrize(("text", "told"), BAD_LINES.items())
def test_a_fault_in_lines_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=f"input x(, |: ){told}" if told.startswith(("line", "nothing")) else told):
        number_lines(text, kind())


def test_lines_of_text_are_what_they_are() -> None:
    how = kind("BYTES")
    assert text_lines(" a \r\n\nb\u2028c\x0b\n", how).tolist() == [" a ", "", "b\u2028c\x0b"]
    assert text_lines("[not json", how).tolist() == ["[not json"]
    assert text_lines("\n", how).tolist() == [""]
    with pytest.raises(UsageError, match="input x: nothing, want a text on each line"):
        text_lines("", how)
    with pytest.raises(UsageError, match="200 lines, want at most 100"):
        text_lines("\n" * 200, how)


def test_strings_of_json_are_read_and_anything_else_is_refused() -> None:
    how = kind("BYTES")
    found = written('[["a, ]", "\\"b\\n\\u00e9"]]', how)
    assert (found.dtype, found.tolist()) == (object, [["a, ]", '"b\n\u00e9']])
    for bad, told in (("[1]", "want a string"), ('["\\q"]', "string of json"), ('["a\nb"]', "want a value")):
        with pytest.raises(UsageError, match=told):
            written(bad, how)


def test_hostile_text_raises_one_error_and_no_other() -> None:
    rng = random.Random(7)
    for _ in range(4000):
        text = "".join(rng.choice('[],"\\ 1-.eE\nnax;\t\x00\ud800{}') for _ in range(rng.randrange(40)))
        for how in (kind(), kind("INT8"), kind("BYTES"), kind(gaps=True)):
            for read in (written, text_lines if how.is_text else number_lines):
                try:
                    found = read(text, how)
                except UsageError:
                    continue
                assert found.dtype == (object if how.is_text else how.carrier)
                assert isinstance(found, np.ndarray)
