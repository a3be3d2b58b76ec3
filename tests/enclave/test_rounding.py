"""Output precision: floating outputs are rounded in their own type, and nothing else is touched."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.enclave.engines.tensor import Datatype, Tensor
from cloister.enclave.rounding import rounded
from cloister.errors import Rejected

FLOATS = {Datatype.FP16: np.float16, Datatype.FP32: np.float32, Datatype.FP64: np.float64}


def tensor(kind: Datatype, values: object) -> Tensor:
    return Tensor(name="y", datatype=kind, array=np.array(values, dtype=kind.dtype))


def bf16(*numbers: float) -> Tensor:
    bits = (np.array(numbers, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return Tensor(name="y", datatype=Datatype.BF16, array=bits.astype(Datatype.BF16.dtype))


def numbers(value: Tensor) -> list[float]:
    found: list[float] = (value.array.astype(np.uint32) << 16).view(np.float32).tolist()
    return found


@pytest.mark.parametrize("kind", FLOATS)
def test_numbers_are_rounded_half_to_even_in_their_own_type(kind: Datatype) -> None:
    value = rounded(tensor(kind, [[0.123456, -1.25], [2.5, 7.0]]), 1)
    assert value.array.dtype == kind.dtype
    assert value.array.flags.c_contiguous
    assert value.array.tolist() == np.array([[0.1, -1.2], [2.5, 7.0]], dtype=FLOATS[kind]).tolist()
    assert rounded(tensor(kind, [0.5, 1.5, 2.5]), 0).array.tolist() == [0.0, 2.0, 2.0]


@pytest.mark.parametrize("kind", FLOATS)
def test_infinities_nan_and_the_largest_numbers_stay_as_they_are(kind: Datatype) -> None:
    top = float(np.finfo(FLOATS[kind]).max)
    found = rounded(tensor(kind, [np.inf, -np.inf, np.nan, top, -top, 0.25]), 15).array
    assert found[:2].tolist() == [np.inf, -np.inf]
    assert np.isnan(found[2])
    assert found[3:].tolist() == [top, -top, 0.25]


def test_raw_bf16_is_rounded_to_the_nearest_bf16() -> None:
    found = numbers(rounded(bf16(0.1259765625, 3.140625, np.inf, 100.5), 1))
    assert found[:2] == [0.10009765625, 3.09375]
    assert found[2:] == [np.inf, 100.5]
    assert np.isnan(numbers(rounded(bf16(np.nan, 1.0), 1))[0])


@pytest.mark.parametrize(
    ("kind", "values"),
    [(Datatype.INT64, [2**62, -7]), (Datatype.UINT8, [255]), (Datatype.BOOL, [True]), (Datatype.BYTES, [b"0.123"])],
)
def test_what_is_no_floating_number_is_untouched(kind: Datatype, values: list[object]) -> None:
    value = tensor(kind, values)
    assert rounded(value, 0) is value


def test_an_8_bit_float_is_refused_rather_than_sent_unrounded() -> None:
    with pytest.raises(Rejected, match="output"):
        rounded(tensor(Datatype.FP8_E5M2, [1]), 3)


@given(st.lists(st.floats(width=32), min_size=1, max_size=20), st.integers(0, 15))
def test_rounding_again_changes_nothing_and_moves_no_number_far(values: list[float], places: int) -> None:
    once = rounded(tensor(Datatype.FP32, values), places)
    twice = rounded(once, places)
    assert np.array_equal(once.array, twice.array, equal_nan=True)
    finite = np.isfinite(np.array(values, dtype=np.float32))
    before = np.array(values, dtype=np.float64)[finite]
    moved = np.abs(once.array.astype(np.float64)[finite] - before)
    with np.errstate(over="ignore"):  # beside the largest number there is no next one
        spacing = np.spacing(np.abs(before).astype(np.float32))
    assert (moved <= 0.5 * 10.0**-places + spacing).all()


def test_a_million_outputs_take_milliseconds() -> None:
    value = tensor(Datatype.FP32, np.random.default_rng(1).normal(size=1_000_000))
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        rounded(value, 3)
        taken.append(time.perf_counter() - started)
    assert sorted(taken)[2] < 0.5
