"""One tensor of 600 KB in and out: the server's processor time outside of the engine.

The model gives back what it gets. Processor time is the kernel's word on the server's process, so that it says the
same on a busy machine; the engine's part comes from the server's own metric.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2
from fleet.enclave import METRICS_PATH

from race.pressing import press_row

if TYPE_CHECKING:
    from pathlib import Path

    from race.nets import Net
    from race.server import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Milliseconds of one request: all processor time, and the engine's."""

    all_ms: float
    engine_ms: float

    @property
    def outside_ms(self) -> float:
        """Processor time outside of the engine."""
        return self.all_ms - self.engine_ms


def spend(row: Row, net: Net, file: Path, seconds: int) -> Spent:
    """Press a row over one connection; return what a request took of the server's processor time."""
    press_row(row, net, file, connections=1, seconds=1)
    before = _engine(row.server.url, net)
    found = press_row(row, net, file, connections=1, seconds=seconds)
    after = _engine(row.server.url, net)
    count = after[1] - before[1]
    engine_ms = (after[0] - before[0]) * 1e3 / count if count else 0.0
    return Spent(all_ms=found.cpu_ms, engine_ms=engine_ms)


def _engine(url: str, net: Net) -> tuple[float, float]:
    """Return the seconds that the server says its engine took with this model, and for how many inferences."""
    text = httpx2.get(url + METRICS_PATH, trust_env=False, verify=False).text  # what serves is what was just started
    found = []
    for metric in ("cloister_engine_seconds_total", "cloister_inferences_total"):
        line = re.search(rf'^{metric}{{model="{net.name}"}} (\S+)$', text, re.MULTILINE)
        found.append(float(line[1]) if line else 0.0)
    return found[0], found[1]
