"""All consumers' sketches of one instance, bounded together, and the alarms that come of them.

Sketches are in memory only and end with the instance. Safe to call from several threads.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from cloister.enclave.guard.features import Projection
from cloister.enclave.guard.sketch import Sketch
from cloister.lending.terms import MAX_CONSUMERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.enclave.engines.tensor import Tensor
    from cloister.lending.watch import Watch, WatchKind

__all__ = ["MAX_SKETCHES", "Watching"]

MAX_SKETCHES = MAX_CONSUMERS + 2  # one for each consumer, for all sub-allowances, for all of an open loan


class Watching:
    """The guard of one instance: who asks a model how. One sketch for each consumer and model, at most so many."""

    def __init__(self, watches: Sequence[Watch]) -> None:
        """Watch for what a contract says."""
        self._watches = tuple(watches)
        self._kinds = frozenset(watch.kind for watch in watches)
        self._projection = Projection()
        self._rng = np.random.default_rng(secrets.randbits(128))
        self._sketches: OrderedDict[tuple[str, str], Sketch] = OrderedDict()
        self._lock = threading.Lock()

    def take(
        self, who: str, model: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], rows: int
    ) -> tuple[WatchKind, ...]:
        """Take one inference of ``rows`` items and return the alarms that are due for ``who``."""
        features = self._projection.features(inputs, outputs, rows, self._kinds)
        with self._lock:
            sketch = self._sketches.get((who, model))
            if sketch is None:
                if len(self._sketches) >= MAX_SKETCHES:
                    self._sketches.popitem(last=False)  # the one that was asked for longest ago
                sketch = self._sketches[who, model] = Sketch(self._rng)
            self._sketches.move_to_end((who, model))
            return tuple(sketch.take(features, self._watches))

    @property
    def nbytes(self) -> int:
        """Bytes that all sketches take."""
        with self._lock:
            return sum(sketch.nbytes for sketch in self._sketches.values())
