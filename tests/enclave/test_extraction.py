"""T66 and T68: what is computed from scores, and what output rules leave of it. Toy models, real rules."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from cloister.enclave.engines.tensor import Datatype, Signature, Tensor, TensorSpec
from cloister.enclave.withholding import Withholding
from cloister.lending.output_rule import OutputRule, Shown

if TYPE_CHECKING:
    from cloister.enclave.engines.tensor import Array

HIDDEN, CLASSES, ASKED = 12, 96, 400
SPEC = TensorSpec(name="y", datatype=Datatype.FP64, shape=("batch", None))


def shown(scores: Array, *rules: OutputRule, places: int | None = None) -> Array:
    """Return what a contract shows of a model's scores."""
    held = Withholding.of(Signature(inputs=(SPEC,), outputs=(SPEC,)), rules, places)
    return held.applied((Tensor(name="y", datatype=Datatype.FP64, array=scores.astype(np.float64)),))[0].array


def rank(answers: Array, tolerance: float) -> int:
    """Return the rank of answers with each row's mean taken out: softmax leaves a constant of each row unknown."""
    values = np.linalg.svd(answers - answers.mean(axis=1, keepdims=True), compute_uv=False)
    return int((values > tolerance * values[0]).sum())


def logits() -> tuple[Array, Array]:
    """Return what a last layer answers to many questions, and its weights."""
    rng = np.random.default_rng(66)
    weights = rng.standard_normal((HIDDEN, CLASSES))
    return np.tanh(rng.standard_normal((ASKED, HIDDEN))) @ weights, weights


def test_t66_the_last_layer_is_computed_from_full_scores() -> None:
    """Carlini and others 2024: the rank is the hidden width, the span is the layer up to a change of basis."""
    answers, weights = logits()
    for full in (answers, np.log(np.exp(answers) / np.exp(answers).sum(axis=1, keepdims=True))):
        assert rank(shown(full), 1e-9) == HIDDEN
    span = np.linalg.svd(shown(answers))[2][:HIDDEN]
    missed = weights - weights @ span.T @ span
    assert np.linalg.norm(missed) < 1e-8 * np.linalg.norm(weights)


def test_t66_rounding_alone_still_shows_the_width() -> None:
    """Said plainly: precision takes digits away, and the noise of two places is far below the twelve large values."""
    answers, _ = logits()
    assert rank(shown(answers, places=2), 1e-3) == HIDDEN


def test_t66_the_largest_few_rounded_show_no_rank_and_no_layer() -> None:
    answers, weights = logits()
    for rule in (OutputRule(model="m", output="y", top=5), OutputRule(model="m", output="y", show=Shown.LABEL)):
        left = shown(answers, rule, places=2)
        assert rank(left, 1e-3) > 4 * HIDDEN
        values = np.linalg.svd(left, compute_uv=False)
        assert values[HIDDEN - 1] < 1.5 * values[HIDDEN], "no gap where the width is"
        span = np.linalg.svd(left)[2][:HIDDEN]
        missed = weights - weights @ span.T @ span
        assert np.linalg.norm(missed) > 0.5 * np.linalg.norm(weights)


def auc(members: Array, others: Array) -> float:
    """Return how often a member scores above another: 0.5 is a guess."""
    above = (members[:, None] > others[None, :]).mean()
    return float(above + (members[:, None] == others[None, :]).mean() / 2)


def memorised() -> tuple[MLPClassifier, Array, Array, Array, Array]:
    """Return a model that knows its few training rows by heart, these, and as many others of the same kind."""
    rng = np.random.default_rng(68)
    rows = rng.standard_normal((400, 20)).astype(np.float32)
    labels = ((rows[:, :4].sum(axis=1) + rng.standard_normal(400)) > 0).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = MLPClassifier((64,), alpha=0, max_iter=600, random_state=1).fit(rows[:200], labels[:200])
    return model, rows[:200], labels[:200], rows[200:], labels[200:]


def test_t68_membership_is_inferred_from_scores_and_less_so_from_labels() -> None:
    """Shokri and others 2017, in its simplest form: how sure is it of the true class? Labels leave the gap attack."""
    model, inside, inside_labels, outside, outside_labels = memorised()
    found = {}
    for name, rules in (("scores", ()), ("label", (OutputRule(model="m", output="y", show=Shown.LABEL),))):
        sure = [
            shown(model.predict_proba(rows), *rules)[np.arange(len(rows)), labels]
            for rows, labels in ((inside, inside_labels), (outside, outside_labels))
        ]
        found[name] = auc(*sure)
    assert found["scores"] > 0.63
    assert 0.5 < found["label"] < found["scores"] - 0.03


def test_t68_asking_around_a_row_gets_past_labels_alone() -> None:
    """Choquette-Choo and others 2021, and what docs/extraction.md says: a label that holds under noise is a score."""
    model, inside, inside_labels, outside, outside_labels = memorised()
    rng = np.random.default_rng(1)
    rule = OutputRule(model="m", output="y", show=Shown.LABEL)

    def steadiness(rows: Array, labels: Array) -> Array:
        votes = np.zeros(len(rows))
        for _ in range(30):
            moved = rows + rng.normal(0, 0.2, rows.shape).astype(np.float32)
            votes += shown(model.predict_proba(moved), rule)[np.arange(len(rows)), labels]
        return votes

    label_only = auc(
        *(shown(model.predict_proba(rows), rule)[np.arange(len(rows)), labels]
          for rows, labels in ((inside, inside_labels), (outside, outside_labels)))
    )  # fmt: skip
    assert auc(steadiness(inside, inside_labels), steadiness(outside, outside_labels)) > label_only + 0.02
