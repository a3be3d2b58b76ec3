"""Thousands of files that nobody leaked, of every kind there is a reason to suspect; and leaked ones among them.

What is like the lent model and nobody's copy is the hard part: trained further, rounded, pruned, marked by somebody
else's keys. Every draw has a fixed seed: the scores are the same each time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tracing_kit import SHAPES, as_words, floats, found_in, lend

from cloister.sealed.tracing.detect import trace
from cloister.sealed.tracing.mark import STRENGTHS, FloatKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.random import Generator

    from cloister.sealed.tracing.detect import Finding

    Numbers = Mapping[str, Any]

LENT = lend()
PLAIN = floats(LENT.plain, FloatKind.F32)
BITS = STRENGTHS["medium"]
FEW, MANY = 4, 250  # files of each kind: in the suite, in the drill (there are nine kinds)


def trained(rng: Generator, start: Numbers, *, steps: int = 20, rate: float = 0.05) -> Numbers:
    """Return the perceptron ``start`` after real gradient descent, on pictures and labels of this seed alone."""
    found = {name: item.astype(np.float64).copy() for name, item in start.items()}
    pictures, labels = rng.standard_normal((96, 64)), rng.integers(0, 10, 96)
    for _ in range(steps):
        hidden = np.maximum(pictures @ found["hidden.weight"] + found["hidden.bias"], 0)
        scores = hidden @ found["out.weight"]
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        error = odds / odds.sum(axis=1, keepdims=True)
        error[np.arange(96), labels] -= 1
        error /= 96
        back = (error @ found["out.weight"].T) * (hidden > 0)
        found["out.weight"] -= rate * hidden.T @ error
        found["hidden.weight"] -= rate * pictures.T @ back
        found["hidden.bias"] -= rate * back.sum(axis=0)
    return found


def drawn(rng: Generator, how: Callable[[tuple[int, ...]], Any]) -> Numbers:
    """Return numbers of the model's shapes, as an initialisation draws them."""
    return {name: how(shape) * rng.uniform(0.01, 1) for name, shape in SHAPES.items()}


def rounded(numbers: Numbers, step: float) -> Numbers:
    """Return numbers on a grid, as quantisation to integers and back leaves them."""
    return {name: np.round(item / step) * step for name, item in numbers.items()}


def pruned(numbers: Numbers, share: float) -> Numbers:
    """Return numbers of which the smallest are zero."""
    return {name: np.where(np.abs(item) < np.quantile(np.abs(item), share), 0, item) for name, item in numbers.items()}


def strangers(rng: Generator, count: int) -> Numbers:
    """Return the mean of copies that were marked by keys of nobody here."""
    copies = [floats(LENT.marked(rng.bytes(32), BITS), FloatKind.F32) for _ in range(count)]
    return {name: np.mean([copy[name] for copy in copies], axis=0) for name in SHAPES}


def near(rng: Generator) -> Numbers:
    """Return the plain model with noise of a size of its own."""
    size = 10 ** rng.uniform(-5, -2)
    return {name: item * (1 + rng.standard_normal(item.shape) * size) for name, item in PLAIN.items()}


INNOCENTS: dict[str, Callable[[Generator], Numbers]] = {
    "drawn from a bell": lambda rng: drawn(rng, rng.standard_normal),
    "drawn with heavy tails": lambda rng: drawn(rng, lambda shape: rng.standard_t(2, shape)),
    "trained from nothing": lambda rng: trained(rng, drawn(rng, rng.standard_normal)),
    "the plain model with noise": near,
    "the plain model trained further": lambda rng: trained(rng, PLAIN, rate=10 ** rng.uniform(-4, -1)),
    "the plain model quantised": lambda rng: rounded(PLAIN, rng.uniform(0.0005, 0.01)),
    "the plain model pruned": lambda rng: pruned(trained(rng, PLAIN, rate=0.001), rng.uniform(0.1, 0.7)),
    "a stranger's copy": lambda rng: strangers(rng, 1),
    "what strangers mixed": lambda rng: strangers(rng, int(rng.integers(2, 5))),
}
KINDS = (FloatKind.F32, FloatKind.F32, FloatKind.F16, FloatKind.BF16)  # kept as, in turns


def findings(kind: str, number: int) -> list[Finding]:
    """Trace one innocent file, without and with the original at hand."""
    rng = np.random.default_rng([sorted(INNOCENTS).index(kind), number])
    stored = KINDS[number % len(KINDS)]
    suspects = found_in(as_words(INNOCENTS[kind](rng), stored), stored)
    return [*trace(suspects, LENT.candidates), *trace(suspects, LENT.candidates, LENT.tensors)]


def prove_innocent(kind: str, files: int) -> None:
    """Prove that nobody is named, and that scores are no larger than the bound says, for all files together."""
    found = [item for number in range(files) for item in findings(kind, number)]
    assert len(found) == files * 100
    assert not [item for item in found if item.is_named], kind
    scores = np.array([item.score for item in found if item.elements])
    for limit in (2.0, 3.0, 4.0, 5.0):
        assert np.count_nonzero(scores >= limit) <= max(1, len(found) * math.exp(-(limit**2) / 2)), (kind, limit)
    if "plain model" in kind or "stranger" in kind:
        assert len(scores) > len(found) / 4, "such files are known as the lent model, and looked at"


@pytest.mark.parametrize("kind", INNOCENTS)
def test_a_few_innocent_files_of_each_kind_name_nobody(kind: str) -> None:
    prove_innocent(kind, FEW)


@pytest.mark.drill
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", INNOCENTS)
def test_two_thousand_innocent_files_name_nobody(kind: str) -> None:
    assert MANY * len(INNOCENTS) >= 2000
    prove_innocent(kind, MANY)


LEAKS: dict[str, Callable[[Numbers], Numbers]] = {
    "as it was": lambda copy: copy,
    "under other names, in another order": lambda copy: {f"x{name}": copy[name] for name in reversed(list(copy))},
    "one tensor of it": lambda copy: {"out.weight": copy["out.weight"]},
    "half of it set to zero": lambda copy: pruned(copy, 0.5),
    "a little noise": lambda copy: {
        name: item * (1 + np.random.default_rng(3).standard_normal(item.shape) * 1e-4) for name, item in copy.items()
    },
}


@pytest.mark.drill
@pytest.mark.parametrize("change", LEAKS)
def test_every_leaked_copy_names_its_borrower_and_nobody_else(change: str) -> None:
    """All fifty, so that what finds no innocent is not a search that finds nothing."""
    for number, (variant, _) in enumerate(LENT.candidates):
        copy = LEAKS[change](floats(LENT.copy_of(number), FloatKind.F32))
        suspects = found_in(as_words(copy, FloatKind.F32), FloatKind.F32)
        for originals in ((), LENT.tensors):
            named = {item.variant.holder for item in trace(suspects, LENT.candidates, originals) if item.is_named}
            assert named == {variant.holder}, change
