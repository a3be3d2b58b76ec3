"""What of an inference goes into a sketch: for each row a hash, a point among points, a margin and a bucket.

Points are random projections of the inputs, so that the distance of two is about that of the inputs (Johnson and
Lindenstrauss); hashes are keyed; both keys are made with the instance and nobody else has them. Inputs of up to 64
numbers are their own points.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from cryptography.hazmat.primitives.poly1305 import Poly1305

from cloister.enclave.engines.tensor import Datatype
from cloister.enclave.oip.data import to_numbers
from cloister.lending.watch import WatchKind
from cloister.wire import lp

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from cloister.enclave.engines.tensor import Array, Tensor

__all__ = ["BUCKETS", "POINT", "Features", "Projection"]

_KEY_BYTES = 32
POINT = 64  # numbers of a point
BUCKETS = 4096  # directions of an answer that are told apart
_SEEN = 1024  # numbers of an input that are looked at, evenly spread over it
_PLANES = 12  # 2**12 buckets
_RANK = 2  # of outputs that have a row of scores for each item
_SUM_TOLERANCE = 1e-2  # by which the scores of one item may miss 1 and still be probabilities
_LARGEST = 1e15  # numbers beyond it count as it: their squares must stay numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Of every row of one request: ``hashes`` (n,), ``points`` (n, 64), and where answers have scores, the others."""

    hashes: Array
    points: Array
    margins: Array | None
    buckets: Array | None


class Projection:
    """Makes features. The keys are this object's own."""

    def __init__(self) -> None:
        """Draw the keys."""
        self._key = secrets.token_bytes(_KEY_BYTES)
        self._rng = np.random.default_rng(secrets.randbits(128))
        self._axes = self._signs((_SEEN, POINT)) / np.float32(np.sqrt(POINT))
        self._planes: dict[int, Array] = {}

    def features(
        self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], rows: int, kinds: AbstractSet[WatchKind]
    ) -> Features:
        """Return the features of a request of ``rows`` items: its rows where inputs have so many, else one.

        What none of ``kinds`` asks for is left out.
        """
        count = rows if rows > 1 and all(tensor.shape[:1] == (rows,) for tensor in inputs) else 1
        asks = kinds & {WatchKind.UNSURE, WatchKind.SPREAD}
        scores = _scores(outputs, count) if asks else None
        return Features(
            hashes=self._hashes(inputs, count),
            points=self._points(inputs, count),
            margins=None if scores is None or WatchKind.UNSURE not in kinds else _margins(scores),
            buckets=None if scores is None or WatchKind.SPREAD not in kinds else self._buckets(scores),
        )

    def _hashes(self, inputs: Sequence[Tensor], count: int) -> Array:
        """Return a keyed universal hash of each row: nobody sees one, so that none can be aimed for."""
        found = np.empty(count, dtype=np.uint64)
        parts = [tensor.array.reshape(count, -1) for tensor in inputs]
        for row in range(count):
            mac = Poly1305(self._key)
            for part in parts:
                line = part[row]
                mac.update(lp(*line.tolist()) if line.dtype == object else line.view(np.uint8).data)
            found[row] = int.from_bytes(mac.finalize()[:8], "little")
        return found

    def _points(self, inputs: Sequence[Tensor], count: int) -> Array:
        numeric = [
            to_numbers(tensor).reshape(count, -1)
            for tensor in inputs
            if tensor.datatype is not Datatype.BYTES and not tensor.datatype.is_float8
        ]
        if not numeric:
            return np.zeros((count, POINT), dtype=np.float32)
        wide = numeric[0] if len(numeric) == 1 else np.concatenate(numeric, axis=1)
        if wide.shape[1] > _SEEN:
            wide = wide[:, np.linspace(0, wide.shape[1] - 1, _SEEN).astype(np.intp)]
        seen = _tame(wide)
        if seen.shape[1] == POINT:
            return seen
        if seen.shape[1] > POINT:
            points: Array = seen @ self._axes[: seen.shape[1]]
            return points
        points = np.zeros((count, POINT), dtype=np.float32)
        points[:, : seen.shape[1]] = seen
        return points

    def _buckets(self, scores: Array) -> Array:
        """Return for each row in which of ``BUCKETS`` directions it lies: on which side of random planes (SimHash)."""
        width = min(scores.shape[1], _SEEN)
        planes = self._planes.get(width)
        if planes is None:
            planes = self._planes[width] = self._signs((width, _PLANES))
        sides = (scores[:, :width] @ planes) > 0
        buckets: Array = sides @ (1 << np.arange(_PLANES))
        return buckets

    def _signs(self, shape: tuple[int, int]) -> Array:
        return self._rng.choice(np.array([-1, 1], dtype=np.float32), size=shape)


def _scores(outputs: Sequence[Tensor], count: int) -> Array | None:
    """Return the first output that has a row of two numbers or more for each item."""
    for tensor in outputs:
        floating = tensor.array.dtype.kind == "f" or tensor.datatype is Datatype.BF16
        if floating and len(tensor.shape) >= _RANK and tensor.shape[0] == count:
            rows = to_numbers(tensor).reshape(count, -1)
            if rows.shape[1] >= _RANK:
                return _tame(rows)
    return None


def _margins(scores: Array) -> Array:
    """Return by how much the largest probability of each row leads; scores that are none become some (softmax)."""
    sums = scores.sum(axis=1)
    if scores.min(initial=0) < 0 or np.abs(sums - 1).max(initial=0) > _SUM_TOLERANCE:
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores = scores / scores.sum(axis=1, keepdims=True)
    two = np.partition(scores, -2, axis=1)[:, -2:]
    margins: Array = two[:, 1] - two[:, 0]
    return margins


def _tame(numbers: Array) -> Array:
    """Return singles that can be squared and added; what is no number is 0."""
    with np.errstate(over="ignore"):
        singles = numbers.astype(np.float32)
    if (np.abs(singles) <= _LARGEST).all():
        return singles
    return np.clip(np.nan_to_num(singles, nan=0.0), -_LARGEST, _LARGEST)
