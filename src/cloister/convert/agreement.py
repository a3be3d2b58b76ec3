"""Whether two models gave the same answers, with a tolerance that is stated.

Whole numbers, truth values and texts must be equal. Floats may differ by ``tolerance`` times the largest magnitude of
the same row (the same sample) of that output, or times 1 where that is less; what is not a number must be so in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cloister.errors import Reason, Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.convert.samples import Array
    from cloister.wire import Json

__all__ = ["Agreement", "demand_agreement"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What was compared, and the largest difference in units of what is allowed a tolerance of 1."""

    outputs: int
    values: int
    largest: float
    tolerance: float

    def to_json(self) -> Json:
        """Return the JSON object."""
        return {
            "largest_difference": self.largest,
            "outputs": self.outputs,
            "tolerance": self.tolerance,
            "values": self.values,
        }


def demand_agreement(reference: Sequence[Array], ours: Sequence[Array], *, tolerance: float) -> Agreement:
    """Return how far the answers lie apart once that is proven to be within ``tolerance``.

    Raises ``Rejected`` (``outputs_differ``) with every output that differs.
    """
    if len(reference) != len(ours):
        want = f"{len(reference)} outputs"
        raise Rejected.because("outputs_differ", "converted model", got=f"{len(ours)} outputs", want=want)
    reasons: list[Reason] = []
    largest = 0.0
    for number, (left, right) in enumerate(zip(reference, ours, strict=True)):
        got, want = f"shape {list(right.shape)}", f"shape {list(left.shape)}"
        apart = _apart(left, right) if left.shape == right.shape else float("inf")
        if left.shape == right.shape:
            got, want = f"a difference of {apart:.3g}", f"at most {tolerance:g}"
        largest = max(largest, apart)
        if not apart <= tolerance:
            reasons.append(Reason(code="outputs_differ", subject=f"output {number}", got=got, want=want))
    if reasons:
        hint = "the converted model computes something else; export it by hand, or look at --tolerance"
        raise Rejected("; ".join(map(str, reasons)), reasons=tuple(reasons), hint=hint)
    values = sum(array.size for array in reference)
    return Agreement(outputs=len(reference), values=values, largest=largest, tolerance=tolerance)


def _apart(want: Array, got: Array) -> float:
    """Return the largest difference; infinite where things differ that have to be equal."""
    if want.size == 0:
        return 0.0
    if want.dtype.kind != "f" or got.dtype.kind != "f":
        return 0.0 if np.array_equal(want.astype(str), got.astype(str)) else float("inf")
    left, right = want.astype("f8"), got.astype("f8")
    finite = np.isfinite(left)
    if not np.array_equal(left[~finite], right[~finite], equal_nan=True) or not np.isfinite(right[finite]).all():
        return float("inf")
    left, right = np.where(finite, left, 0.0), np.where(finite, right, 0.0)
    rows = left.reshape(len(left), -1) if left.ndim else left.reshape(1, 1)
    scale = np.maximum(1.0, np.abs(rows).max(axis=1, keepdims=True))
    return float((np.abs(rows - right.reshape(rows.shape)) / scale).max())
