"""One consumer's sketch: totals over what it asks, in 22 KiB whatever it asks (docs/spec/watches.md, section 2).

Chosen by experiment (docs/extraction.md): how many inputs are close to one of 64 kept ones, and how evenly the nearest
distances lie, tell sweeps, differences and noise from scans of digits. Normality of those distances (PRADA) told no
more in memory of this size, and took traffic of one class for an attack.

Kept are points and hashes, not inputs; both under keys of the instance's own. Not proven: that an attack is noticed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, assert_never

import numpy as np

from cloister.enclave.guard.features import BUCKETS, POINT
from cloister.lending.watch import WatchKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloister.enclave.engines.tensor import Array
    from cloister.enclave.guard.features import Features
    from cloister.lending.watch import Watch

__all__ = ["BLOCK", "Sketch"]

BLOCK = 128  # inputs over which shares are taken
_KEPT = 64  # points
_FEW = 8  # points before distances mean anything
_CLOSE = 0.3  # of the median distance: closer than most traffic ever comes
_CLOSE_CALL = 0.5  # margin between two classes that counts as unsure
_REGISTERS = 256  # of the estimate of different inputs (HyperLogLog): about 6.5 % off
_ALPHA = 0.7213 / (1 + 1.079 / _REGISTERS)
_REGISTER_BITS = 8
_RANKS = 57  # largest rank: the 56 bits that are left of a hash, and one
_NONE, _FIRST = np.array([], dtype=np.intp), np.array([0], dtype=np.intp)
_SMALL = 2.5  # below so many for each register, empty registers tell more


class Sketch:
    """Fixed memory: no array here ever grows."""

    __slots__ = (
        "_buckets", "_close", "_hashes", "_in_block", "_kept", "_nearest", "_origin", "_points", "_registers", "_rng",
        "_squares", "_told", "_unsure",
    )  # fmt: skip

    def __init__(self, rng: np.random.Generator) -> None:
        """Start empty. ``rng`` chooses which kept point a new one replaces."""
        self._rng = rng
        self._points = np.zeros((_KEPT, POINT), dtype=np.float32)
        self._origin = np.zeros(POINT, dtype=np.float32)
        self._squares = np.zeros(_KEPT, dtype=np.float32)
        self._hashes = np.zeros(_KEPT, dtype=np.uint64)
        self._kept = 0
        self._nearest = np.zeros(BLOCK, dtype=np.float32)
        self._in_block = self._close = self._unsure = self._told = 0
        self._registers = np.zeros(_REGISTERS, dtype=np.uint8)
        self._buckets = np.zeros(BUCKETS, dtype=bool)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        arrays = (
            self._origin,
            self._points,
            self._squares,
            self._hashes,
            self._nearest,
            self._registers,
            self._buckets,
        )
        return sum(array.nbytes for array in arrays)

    def take(self, features: Features, watches: Sequence[Watch]) -> Iterator[WatchKind]:
        """Take the rows of one request and yield each alarm that is due, at the end of a block."""
        if any(watch.kind is WatchKind.DISTINCT for watch in watches):
            self._rank(features.hashes)
        start = 0
        while start < len(features.hashes):
            size = min(_KEPT, BLOCK - self._in_block) if self._kept >= _FEW else _FEW
            self._part(features, slice(start, start + size))
            start += size
            if self._in_block == BLOCK:
                yield from self._judged(watches)

    def _part(self, features: Features, rows: slice) -> None:
        """Take rows that fit into this block."""
        points, hashes = features.points[rows], features.hashes[rows]
        fresh = self._fresh(hashes)
        if not len(fresh):
            return  # the same again is asked for many reasons and tells nobody anything
        if not self._kept:
            self._origin = points[0].copy()  # what all points have in common would drown what sets them apart
        points, hashes = points[fresh] - self._origin, hashes[fresh]
        squares = np.einsum("ij,ij->i", points, points)
        if self._kept >= _FEW:
            self._note(points, squares)
            if features.margins is not None:
                self._unsure += int((features.margins[rows][fresh] < _CLOSE_CALL).sum())
            if features.buckets is not None:
                self._buckets[features.buckets[rows][fresh]] = True
        self._keep(points, hashes, squares)

    def _fresh(self, hashes: Array) -> Array:
        """Return which rows are not equal to a kept one or to one before them."""
        if len(hashes) == 1:
            return _NONE if hashes[0] in self._hashes[: self._kept] else _FIRST
        known = set(self._hashes[: self._kept].tolist())
        first = {value: row for row, value in reversed(list(enumerate(hashes.tolist()))) if value not in known}
        return np.array(sorted(first.values()), dtype=np.intp)

    def _note(self, points: Array, squares: Array) -> None:
        """Count inputs by how near the nearest one before is, beside how far most kept ones are."""
        kept = self._points[: self._kept]
        apart = squares[:, None] + self._squares[None, : self._kept] - 2 * (points @ kept.T)
        apart.partition(self._kept // 2, axis=1)  # the squares up to the median first, in any order
        nearest, median = apart[:, : self._kept // 2].min(axis=1), apart[:, self._kept // 2]
        if len(points) > 1:
            inside = squares[:, None] + squares[None, :] - 2 * (points @ points.T)
            inside[np.triu_indices(len(points))] = np.inf
            nearest = np.minimum(nearest, inside.min(axis=1))
        nearest = np.maximum(nearest, 0)
        self._close += int((nearest < _CLOSE**2 * median).sum())
        self._nearest[self._in_block : self._in_block + len(points)] = np.sqrt(nearest)
        self._in_block += len(points)

    def _keep(self, points: Array, hashes: Array, squares: Array) -> None:
        """Keep new points, in the place of any kept one where there is no room: old ones go by chance."""
        if len(points) == 1 and self._kept == _KEPT:
            place = self._rng.integers(_KEPT)
            self._points[place], self._hashes[place], self._squares[place] = points[0], hashes[0], squares[0]
            return
        room = min(_KEPT - self._kept, len(points))
        places = np.arange(self._kept, self._kept + room)
        if room < len(points):
            places = np.concatenate([places, self._rng.integers(_KEPT, size=len(points) - room)])
        self._points[places], self._hashes[places], self._squares[places] = points, hashes, squares
        self._kept += room

    def _judged(self, watches: Sequence[Watch]) -> Iterator[WatchKind]:
        """Hold the block against what is watched for, and start the next one."""
        for watch in watches:
            match watch.kind:
                case WatchKind.DISTINCT:
                    due = int(self.distinct()) // watch.above
                    found, self._told = due > self._told, max(due, self._told)
                case WatchKind.NEAR:
                    found = 100 * self._close > watch.above * BLOCK
                case WatchKind.REGULAR:
                    found = 1000 * self.unevenness() < watch.above
                case WatchKind.SPREAD:
                    found = 100 * int(self._buckets.sum()) > watch.above * BUCKETS
                case WatchKind.UNSURE:
                    found = 100 * self._unsure > watch.above * BLOCK
                case _:
                    assert_never(watch.kind)
            if found:
                yield watch.kind
        self._in_block = self._close = self._unsure = 0

    def unevenness(self) -> float:
        """Return how unevenly the nearest distances of a block lie: their deviation as a part of their mean."""
        mean = float(self._nearest.mean())
        return float(self._nearest.std()) / mean if mean > 0 else 0.0

    def distinct(self) -> float:
        """Return about how many different inputs there were (HyperLogLog, Flajolet and others 2007)."""
        estimate = _ALPHA * _REGISTERS**2 / float(np.exp2(-self._registers.astype(np.float64)).sum())
        empty = int((self._registers == 0).sum())
        if estimate <= _SMALL * _REGISTERS and empty:
            return _REGISTERS * math.log(_REGISTERS / empty)
        return estimate

    def _rank(self, hashes: Array) -> None:
        for value in hashes.tolist():
            register, rest = value & (_REGISTERS - 1), value >> _REGISTER_BITS
            rank = _RANKS - rest.bit_length()
            self._registers[register] = max(int(self._registers[register]), rank)
