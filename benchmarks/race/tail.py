"""What an answer's latency gains at its slow end while the server is loaded to four fifths of what it can do.

Both rows get the same load: 80 % of what the guarded one answers at most. It comes over many connections that each
think for random times between two requests, so that arrivals are those of independent strangers and a server
that is slow for a moment is not spared.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from race.pressing import press_row

if TYPE_CHECKING:
    from pathlib import Path

    from race.nets import Net
    from race.server import Row

LOAD = 0.8
_CONNECTIONS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """Medians over rounds: the load that was reached, and the 99th percentile in plain and guarded."""

    offered: float
    reached: float
    plain_ms: float
    guarded_ms: float

    @property
    def added_ms(self) -> float:
        """What stands between both."""
        return self.guarded_ms - self.plain_ms


def measure(plain: Row, guarded: Row, net: Net, file: Path, *, rounds: int, seconds: int) -> Tail:
    """Find out how much the guarded row can do, then load both in turn."""
    most = press_row(guarded, net, file, connections=8, seconds=seconds).load.rate
    offered = LOAD * most
    alone = press_row(guarded, net, file, connections=1, seconds=1).load.p50_ms
    think = max(0.0, _CONNECTIONS / offered * 1e3 - alone)
    found: dict[str, list[float]] = {"plain": [], "guarded": [], "reached": []}
    for number in range(rounds):
        for name, row in (("plain", plain), ("guarded", guarded))[:: 1 if number % 2 else -1]:
            load = press_row(
                row, net, file, connections=_CONNECTIONS, seconds=3 * seconds, rate=offered, think_ms=think
            ).load
            found[name].append(load.p99_ms)
            found["reached"].append(load.rate)
    return Tail(
        offered=offered,
        reached=statistics.median(found["reached"]),
        plain_ms=statistics.median(found["plain"]),
        guarded_ms=statistics.median(found["guarded"]),
    )
