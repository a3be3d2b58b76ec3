"""Shamir's scheme: any K parts give the secret, K - 1 say nothing of it, shown by going through all there is."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.crypto.shamir import Part, _over, _times, combine, split
from cloister.errors import Rejected, UsageError

FOREIGN = json.loads((Path(__file__).parents[1] / "vectors" / "share" / "shamir.json").read_text())["cases"]
FIELD = range(256)


def _slow_times(left: int, right: int) -> int:
    """Multiply as FIPS 197 section 4.2 writes it: shift, add, reduce."""
    product = 0
    for bit in range(8):
        if right >> bit & 1:
            product ^= left << bit
    for bit in range(14, 7, -1):
        if product >> bit & 1:
            product ^= 0x11B << (bit - 8)
    return product


def test_the_tables_multiply_as_the_standard_does() -> None:
    for left, right in itertools.product(FIELD, FIELD):
        assert _times(left, right) == _slow_times(left, right)
    assert _times(0x57, 0x83) == 0xC1  # the example of FIPS 197 section 4.2


def test_division_undoes_multiplication() -> None:
    for left, right in itertools.product(FIELD, range(1, 256)):
        assert _times(_over(left, right), right) == left


@given(st.binary(min_size=1, max_size=40), st.integers(2, 6), st.integers(0, 4), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_any_parts_that_are_enough_give_the_secret(secret: bytes, need: int, more: int, rng: Any) -> None:
    parts = split(secret, need=need, of=need + more, rng=os.urandom)
    chosen = rng.sample(parts, rng.randint(need, need + more))
    assert combine(chosen, need=need) == secret


def test_every_choice_of_three_of_six_gives_the_secret() -> None:
    parts = split(b"a secret", need=3, of=6, rng=os.urandom)
    for chosen in itertools.permutations(parts, 3):
        assert combine(chosen, need=3) == b"a secret"


def test_the_largest_split_there_is() -> None:
    parts = split(b"k", need=255, of=255, rng=os.urandom)
    assert len({part.x for part in parts}) == 255
    assert combine(parts, need=255) == b"k"


def _of_all_coefficients(value: int, need: int) -> tuple[Part, ...]:
    """Split one byte with all choices of ``need - 1`` coefficients at once, each at a byte of its own."""
    choices = list(itertools.product(FIELD, repeat=need - 1))
    rows = iter([bytes(row) for row in zip(*choices, strict=True)])
    return split(bytes([value]) * len(choices), need=need, of=4, rng=lambda _: next(rows))


def test_one_part_of_two_says_nothing_of_any_secret() -> None:
    """Exhaustive: whatever the secret, a part takes each of its 256 values for exactly one coefficient."""
    for value in FIELD:
        for part in _of_all_coefficients(value, 2):
            assert sorted(part.values) == list(FIELD)


@pytest.mark.parametrize("value", [0, 1, 0x53, 255])
def test_two_parts_of_three_say_nothing_of_the_secret(value: int) -> None:
    """Exhaustive over all 65,536 pairs of coefficients: every pair of values occurs exactly once."""
    parts = _of_all_coefficients(value, 3)
    for first, second in itertools.combinations(parts, 2):
        seen = Counter(zip(first.values, second.values, strict=True))
        assert len(seen) == 256 * 256
        assert set(seen.values()) == {1}


def test_three_parts_of_three_do_say_it() -> None:
    """What the test above must be able to see: with all parts, each secret has its own triples."""
    triples = [set(zip(*(p.values for p in _of_all_coefficients(v, 3)[:3]), strict=True)) for v in (0, 1)]
    assert triples[0].isdisjoint(triples[1])


def test_too_few_parts_give_another_secret_when_they_are_passed_off_as_enough() -> None:
    parts = split(bytes(32), need=3, of=5, rng=os.urandom)
    assert combine(parts[:2], need=2) != bytes(32)


@pytest.mark.parametrize("case", FOREIGN, ids=lambda case: f"{case['need']} of {len(case['parts'])}")
def test_parts_made_by_another_implementation_give_its_secret(case: dict[str, Any]) -> None:
    parts = [Part(x=part["x"], values=bytes.fromhex(part["values"])) for part in case["parts"]]
    assert combine(parts, need=case["need"]).hex() == case["secret"]
    for chosen in itertools.combinations(parts, case["need"]):
        assert combine(chosen, need=case["need"]).hex() == case["secret"]


@pytest.mark.parametrize("at", range(5))
def test_an_altered_part_among_more_than_needed_is_noticed(at: int) -> None:
    parts = list(split(b"a secret", need=3, of=5, rng=os.urandom))
    parts[at] = Part(x=parts[at].x, values=bytes([parts[at].values[0] ^ 1]) + parts[at].values[1:])
    with pytest.raises(Rejected) as refused:
        combine(parts, need=3)
    assert refused.value.code == "wrong_share"


@pytest.mark.parametrize(("need", "of"), [(0, 3), (1, 3), (4, 3), (2, 256), (-1, 2), (2, 1)])
def test_numbers_that_make_no_sense_are_refused(need: int, of: int) -> None:
    with pytest.raises(UsageError):
        split(b"key", need=need, of=of, rng=os.urandom)


def test_parts_that_cannot_be_of_one_split_are_refused() -> None:
    one, two, three = split(b"key", need=2, of=3, rng=os.urandom)
    short = Part(x=three.x, values=three.values[:-1])
    for parts in ([], [one], [one, one], [one, two, one], [one, short]):
        with pytest.raises(UsageError):
            combine(parts, need=2)
    with pytest.raises(UsageError):
        combine([one, two], need=1)


def test_a_part_never_prints_itself() -> None:
    part = split(b"secret", need=2, of=2, rng=os.urandom)[0]
    assert repr(part.values) not in repr(part)
    assert part.values.hex() not in repr(part)
