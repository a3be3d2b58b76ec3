"""Watching processes for hours' worth of slow growth, and judging it: what the soak drill measures with.

A sample is what the kernel says of a process (resident memory, descriptors, threads) or of a file (size). A trend is
the Theil-Sen slope (the median of the slopes of all pairs of samples) after a warm-up: it does not care about a
few outliers, nor about noise that comes and goes. Flat is: the trend over the whole window stays below a bound that
is stated per quantity.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MIB = 1 << 20
WARM_UP = 0.3  # part of a run that is not judged: the caches of both sides and the replay window (three minutes) fill
_POINTS = 150  # samples a trend is computed from; more are thinned by medians


def resident(pid: int) -> float:
    """Return the resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> float:
    """Return how many files a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - no path is wanted


def threads(pid: int) -> float:
    """Return how many threads a process has."""
    return len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208 - no path is wanted


def size(path: Path) -> float:
    """Return the size of a file, zero where there is none."""
    return path.stat().st_size if path.exists() else 0


def theil_sen(points: Sequence[tuple[float, float]]) -> float:
    """Return the median of the slopes between all pairs of points; zero for fewer than two."""
    slopes = [(y - x) / (t - s) for (s, x), (t, y) in combinations(points, 2) if t > s]
    return statistics.median(slopes) if slopes else 0.0


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return no more than ``_POINTS`` points, each the median of its neighbours."""
    step = -(-len(points) // _POINTS)
    parts = [points[at : at + step] for at in range(0, len(points), step)]
    return [(statistics.median(t for t, _ in part), statistics.median(x for _, x in part)) for part in parts]


@dataclass(slots=True)
class Watch:
    """Samples named quantities at an interval, in a thread, between ``start`` and ``stop``."""

    quantities: Mapping[str, Callable[[], float]]
    interval_s: float
    samples: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="watch")
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._over.set()
        assert self._thread is not None
        self._thread.join()

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._over.wait(self.interval_s):
            at = time.monotonic() - begun
            for name, look in self.quantities.items():
                self.samples.setdefault(name, []).append((at, look()))

    def judged(self, name: str) -> list[tuple[float, float]]:
        """Return the samples after the warm-up."""
        found = self.samples[name]
        return [(at, value) for at, value in found if at >= WARM_UP * found[-1][0]]

    def drift(self, name: str) -> float:
        """Return by how much a quantity grew over the judged window, as its trend says."""
        points = self.judged(name)
        return theil_sen(_thin(points)) * (points[-1][0] - points[0][0])

    def per(self, name: str, other: str) -> tuple[float, float]:
        """Return by how much ``name`` grew for each one of ``other``, in both halves of the window."""
        pairs = [(y, x) for (_, x), (_, y) in zip(self.judged(name), self.judged(other), strict=True)]
        middle = len(pairs) // 2
        return theil_sen(_thin(pairs[:middle])), theil_sen(_thin(pairs[middle:]))

    def grown(self, bounds: Mapping[str, float]) -> dict[str, float]:
        """Return what grew beyond its bound over the window, and by how much."""
        drifts = {name: self.drift(name) for name in bounds}
        return {name: drift for name, drift in drifts.items() if drift > bounds[name]}

    def table(self, bounds: Mapping[str, float]) -> str:
        """Return what was seen, a line for each quantity: first, last, lowest, highest, trend, bound."""
        lines = [f"{'':28}{'first':>14}{'last':>14}{'lowest':>14}{'highest':>14}{'trend':>12}{'bound':>12}"]
        for name in self.samples:
            values = [value for _, value in self.judged(name)]
            figures = "".join(f"{value:>14,.0f}" for value in (values[0], values[-1], min(values), max(values)))
            bound = f"{bounds[name]:>12,.0f}" if name in bounds else ""
            lines.append(f"{name:28}{figures}{self.drift(name):>12,.0f}{bound}")
        return "\n".join(lines)
