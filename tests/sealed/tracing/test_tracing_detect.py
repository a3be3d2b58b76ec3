"""Whose copy it is, after what a thief does to it; and that nobody is named who has nothing to do with it.

Every draw has a fixed seed: the scores are the same each time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from tracing_kit import Lent, as_words, floats, found_in, lend, weights

from cloister.sealed.tracing.detect import THRESHOLD_LOG10, match, trace
from cloister.sealed.tracing.mark import FloatKind

LENT = lend()
KINDS = (FloatKind.F32, FloatKind.F16, FloatKind.BF16)


def named(lent: Lent, suspects: Any, *, informed: bool = False) -> set[str]:
    found = trace(suspects, lent.candidates, lent.tensors if informed else ())
    return {item.variant.holder for item in found if item.is_named}


def noise(steps: float, seed: int = 7, bits: int = 10) -> Any:
    rng = np.random.default_rng(seed)
    return lambda item: item * (1 + rng.standard_normal(item.shape) * steps * 2.0**-bits)


@pytest.mark.parametrize("strength", ["low", "medium", "high"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_copy_of_each_strength_names_one_of_fifty(kind: FloatKind, strength: str) -> None:
    lent = lend(kind=kind, strength=strength)
    for informed in (False, True):
        assert named(lent, found_in(lent.copy_of(7), kind), informed=informed) == {"borrower-7"}


def test_every_one_of_fifty_is_told_from_the_others() -> None:
    for number in range(0, 50, 7):
        assert named(LENT, found_in(LENT.copy_of(number), FloatKind.F32)) == {f"borrower-{number}"}


def test_innocent_files_name_nobody_and_scores_stay_within_the_bound() -> None:
    """Forty files and fifty keys, two thousand pairs: other models, and the plain one itself."""
    scores = []
    for seed in range(40):
        suspects = found_in(_near(seed), FloatKind.F32) if seed else LENT.tensors
        for informed in (False, True):
            found = trace(suspects, LENT.candidates, LENT.tensors if informed else ())
            assert not [item for item in found if item.is_named]
            scores += [item.score for item in found]
    assert len(scores) == 4000
    for limit in (1.0, 2.0, 3.0):
        assert sum(score >= limit for score in scores) / len(scores) <= math.exp(-(limit**2) / 2)
    assert 0.9 < float(np.std(scores)) < 1.1  # the sums are what the bound speaks of, and not all zero


def _near(seed: int) -> Any:
    """Return the plain model after training of its own: what is like it, and nobody's copy."""
    rng = np.random.default_rng(seed)
    numbers = floats(LENT.plain, FloatKind.F32)
    return as_words({k: v * (1 + rng.standard_normal(v.shape) * 1e-3) for k, v in numbers.items()}, FloatKind.F32)


def test_an_unrelated_model_of_the_same_shapes_is_not_even_looked_at() -> None:
    found = trace(found_in(weights(99), FloatKind.F32), LENT.candidates)
    assert {item.elements for item in found} == {0}
    assert {item.log10_p for item in found} == {0.0}


def test_renamed_and_reordered_tensors_are_known_by_what_they_hold() -> None:
    copy = LENT.copy_of(3)
    shuffled = {f"x{number}": copy[name] for number, name in enumerate(reversed(list(copy)))}
    assert named(LENT, found_in(shuffled, FloatKind.F32)) == {"borrower-3"}


def test_a_reshaped_tensor_is_known_still() -> None:
    flat = {name: item.reshape(-1) for name, item in LENT.copy_of(3).items()}
    assert named(LENT, found_in(flat, FloatKind.F32)) == {"borrower-3"}


def test_one_leaked_tensor_is_enough() -> None:
    assert named(LENT, found_in({"x": LENT.copy_of(4)["out.weight"]}, FloatKind.F32)) == {"borrower-4"}


def test_rounding_to_half_floats_leaves_the_medium_mark() -> None:
    suspects = LENT.changed(5, lambda item: item, FloatKind.F16)
    assert named(LENT, suspects) == named(LENT, suspects, informed=True) == {"borrower-5"}


def test_rounding_to_brain_floats_hides_the_medium_mark_from_who_lacks_the_original() -> None:
    suspects = LENT.changed(5, lambda item: item, FloatKind.BF16)
    assert named(LENT, suspects) == set()
    assert named(LENT, suspects, informed=True) == {"borrower-5"}
    high = lend(strength="high")
    assert named(high, high.changed(5, lambda item: item, FloatKind.BF16)) == {"borrower-5"}


def test_fine_tuning_of_the_size_of_the_mark_hides_it_from_who_lacks_the_original() -> None:
    assert named(LENT, LENT.changed(6, noise(1))) == set()
    assert named(LENT, LENT.changed(6, noise(1)), informed=True) == {"borrower-6"}
    assert named(LENT, LENT.changed(6, noise(0.1))) == {"borrower-6"}


def test_noise_eight_times_the_mark_hides_it_in_so_small_a_model() -> None:
    """What the page promises not to survive; nobody else is named for it."""
    assert named(LENT, LENT.changed(6, noise(8)), informed=True) == set()


def test_half_of_the_weights_pruned_leaves_the_mark() -> None:
    suspects = LENT.changed(8, lambda item: np.where(np.abs(item) < np.median(np.abs(item)), 0, item))
    assert named(LENT, suspects) == named(LENT, suspects, informed=True) == {"borrower-8"}


def test_two_who_average_their_copies_are_both_named() -> None:
    one, two = (floats(LENT.copy_of(number), FloatKind.F32) for number in (9, 10))
    suspects = found_in(as_words({name: (one[name] + two[name]) / 2 for name in one}, FloatKind.F32), FloatKind.F32)
    both = {"borrower-9", "borrower-10"}
    assert named(LENT, suspects) == named(LENT, suspects, informed=True) == both


def test_eight_who_average_their_copies_name_nobody_innocent() -> None:
    copies = [floats(LENT.copy_of(number), FloatKind.F32) for number in range(8)]
    mean = {name: np.mean([item[name] for item in copies], axis=0) for name in copies[0]}
    suspects = found_in(as_words(mean, FloatKind.F32), FloatKind.F32)
    for informed in (False, True):
        assert named(LENT, suspects, informed=informed) <= {f"borrower-{number}" for number in range(8)}
    assert named(LENT, suspects, informed=True)


def test_a_tensor_given_twice_counts_once() -> None:
    """Else a file could be made to score more than its evidence is worth."""
    copy = LENT.copy_of(3)["out.weight"]
    suspects = found_in({"x": copy, "y": copy.copy()}, FloatKind.F32)
    pairs = match(suspects, LENT.candidates[0][0].tensors)
    assert len(pairs) == 1
    once = trace(found_in({"x": copy}, FloatKind.F32), LENT.candidates)[0]
    assert trace(suspects, LENT.candidates)[0].score == once.score


def test_two_tensors_that_look_alike_are_left_out() -> None:
    flat = {"a": weights(1)["hidden.bias"], "b": weights(1)["hidden.bias"]}
    lent = lend(2)
    marked = tuple(lent.candidates[0][0].tensors[1:2]) * 2
    assert match(found_in(flat, FloatKind.F32), marked) == ()


def test_more_candidates_make_the_same_score_worth_less() -> None:
    suspects = found_in(LENT.copy_of(0), FloatKind.F32)
    one, all_of_them = trace(suspects, LENT.candidates[:1])[0], trace(suspects, LENT.candidates)[0]
    assert one.score == all_of_them.score
    assert all_of_them.log10_p - one.log10_p == pytest.approx(math.log10(50))
    assert one.is_named is (one.log10_p < THRESHOLD_LOG10) is True
