"""Interleaved rounds: every row once a round in an order drawn anew, so that what else the machine does falls on all.

The first round warms up and is not counted. Figures are medians over the others, with the lowest and the highest.
Ratios are taken within a round and then their median: what slows one round slows both sides of it.
"""

from __future__ import annotations

import os
import random
import resource
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from race.ours import PLAIN
from race.pressing import press_row
from race.processor import busy_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from race.load import Load
    from race.nets import Floats, Net
    from race.server import Row

_NEAR = 1e-3  # how far an output may be from the reference


@dataclass(slots=True, kw_only=True)
class Cell:
    """One row with one net at one concurrency: what each round came to."""

    row: Row
    net: Net
    connections: int
    loads: list[Load] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)  # the server's processor time of one inference
    faults: dict[str, int] = field(default_factory=dict)
    last_rate: float = 0.0

    @property
    def key(self) -> tuple[str, str, int, str, int]:
        """What names this cell."""
        return (*self.row.key, self.net.name, self.connections)

    @property
    def rates(self) -> list[float]:
        """Inferences per second, round by round."""
        return [load.rate * self.row.rows for load in self.loads]

    @property
    def rate(self) -> float:
        """Inferences per second, the median."""
        return statistics.median(self.rates) if self.loads else 0.0

    @property
    def cost(self) -> float:
        """The server's processor milliseconds of one inference, the median."""
        return statistics.median(self.cpu_ms) if self.cpu_ms else 0.0

    def median(self, what: Callable[[Load], float]) -> float:
        """Return the median over the rounds."""
        return statistics.median(map(what, self.loads))


class Rounds:
    """All cells of one run."""

    def __init__(self, rows: Iterable[Row], nets: Sequence[Net], connections: Sequence[int], folder: Path) -> None:
        """Lay the cells out; ``folder`` is for files of requests."""
        self.cells = [
            Cell(row=row, net=net, connections=many)
            for net in nets
            for many in connections
            for row in rows
            if row.takes(net)
        ]
        self._file = folder / "requests"
        self._random = random.Random(1)
        self._servers = {cell.row.server.pid: cell.row.server for cell in self.cells}

    def prove(self, references: dict[str, Callable[[Floats], Floats]]) -> None:
        """Ask every row once with every net and compare with the reference; ends the program where they differ."""
        seen = set()
        for cell in self.cells:
            row, net = cell.row, cell.net
            if (row.key, net.name) not in seen:
                seen.add((row.key, net.name))
                inputs = net.inputs(row.rows)
                got, want = row.way.ask(net, inputs), references[net.name](inputs).reshape(-1)
                if got.shape != want.shape or not np.allclose(got, want, atol=_NEAR):
                    raise SystemExit(f"{row.name}, {row.body}, {net.name}: the answer is not the model's")

    def run(self, rounds: int, seconds: int) -> float:
        """Measure: one round to warm up, then ``rounds`` that count.

        Returns what share of all processors went to what is none of this: a busy machine shows.
        """
        begun, busy, own = time.monotonic(), busy_s(), self._own_s()
        for server in self._servers.values():
            server.still()
        try:
            for number in range(rounds + 1):
                order = list(self.cells)
                self._random.shuffle(order)
                for at, cell in enumerate(order):
                    _tell(f"round {number} of {rounds}, {at + 1} of {len(order)}")
                    self._measure(cell, seconds if number else 1, counts=number > 0)
        finally:
            for server in self._servers.values():
                server.wake()
            _tell("")
        others = busy_s() - busy - (self._own_s() - own)
        return max(0.0, others / (time.monotonic() - begun) / (os.cpu_count() or 1))

    def _own_s(self) -> float:
        """Return the processor seconds of the servers, of this process and of the load's."""
        load = resource.getrusage(resource.RUSAGE_CHILDREN)
        servers = sum(server.cpu_s() for server in self._servers.values())
        return servers + time.process_time() + load.ru_utime + load.ru_stime

    def _measure(self, cell: Cell, seconds: int, *, counts: bool) -> None:
        server = cell.row.server
        server.wake()
        found = press_row(
            cell.row, cell.net, self._file, connections=cell.connections, seconds=seconds, rate=cell.last_rate
        )
        server.still()
        cell.last_rate = max(found.load.rate, cell.last_rate)
        if counts:
            cell.loads.append(found.load)
            cell.cpu_ms.append(found.cpu_ms)
            for name, count in found.load.faults.items():
                cell.faults[name] = cell.faults.get(name, 0) + count

    def cell(self, name: str, body: str, rows: int, net: str, connections: int) -> Cell | None:
        """Return one cell, None where it was not measured."""
        key = (name, body, rows, net, connections)
        return next((cell for cell in self.cells if cell.key == key and cell.loads), None)

    def to_plain(self, cell: Cell) -> float | None:
        """Return how its rate stands to that of our own plain route with the same bodies."""
        plain = self._plain(cell)
        return None if plain is None else ratio(cell.rates, plain.rates)

    def cost_to_plain(self, cell: Cell) -> float | None:
        """Return how its processor time of one inference stands to the plain route's: the same on a busy machine."""
        plain = self._plain(cell)
        return None if plain is None else ratio(cell.cpu_ms, plain.cpu_ms)

    def _plain(self, cell: Cell) -> Cell | None:
        return self.cell(PLAIN, cell.row.body, cell.row.rows, cell.net.name, cell.connections)


def ratio(of: Sequence[float], to: Sequence[float]) -> float | None:
    """Return the median of the ratios of two rates, round by round; None where one answered nothing."""
    if not all(to):
        return None
    return statistics.median(one / other for one, other in zip(of, to, strict=True))


def _tell(words: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{words:60}", end="", file=sys.stderr, flush=True)
