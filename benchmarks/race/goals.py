"""The goals of serving, each beside what was measured: met, missed, or not measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from figures.goals import Goal, at_least, at_most

from race.ours import BATCHED, MANY, OHTTP, OURS, TLS
from race.rounds import ratio
from race.spelling import BINARY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from race.rounds import Cell, Rounds

FULL = 64  # connections at which OHTTP is judged


@dataclass(frozen=True, slots=True)
class Judged:
    """One goal and its figure.

    ``by_cpu`` is the same ratio by processor time, which a busy machine leaves about as it is.
    """

    words: str
    goal: Goal
    value: float
    by_cpu: float | None = None

    def line(self) -> str:
        """Return it as a line."""
        apart = "" if self.by_cpu is None else f"; by processor time {self.by_cpu:.2f}x"
        return f"  {self.words:72}{self.value:>9.2f}{self.goal.unit}; {self.goal.verdict(self.value)}{apart}"


def of_rounds(rounds: Rounds) -> Iterator[Judged]:
    """Yield the goals on throughput."""
    for row, floors in ((TLS, {True: 0.80, False: 0.97}), (OHTTP, {True: 0.40, False: 0.90})):
        for cell in _cells(rounds, row, rows=1):
            if row == TLS or cell.connections == FULL:
                yield from _to_plain(rounds, cell, floors[cell.net.is_small])
    for cell in _cells(rounds, OHTTP, rows=MANY):
        if cell.connections == FULL:
            yield from _to_plain(rounds, cell, 0.80)
    for cell in _cells(rounds, BATCHED, rows=1):
        if cell.connections == FULL:
            yield from _to_alone(rounds, cell)
    for name in (TLS, OHTTP):
        for cell in _cells(rounds, name, rows=1):
            yield from _to_peers(rounds, cell)


def _to_plain(rounds: Rounds, cell: Cell, floor: float) -> Iterator[Judged]:
    ratio = rounds.to_plain(cell)
    if ratio is not None:
        many = f", {cell.row.rows} a request" if cell.row.rows > 1 else ""
        yield Judged(
            f"{cell.row.name} to plain: {cell.net.name}, {cell.connections} at once{many}",
            at_least(floor),
            ratio,
            1 / (rounds.cost_to_plain(cell) or 1),
        )


def _to_alone(rounds: Rounds, cell: Cell) -> Iterator[Judged]:
    """Yield how requests that are run together stand to those that are run each alone."""
    alone = rounds.cell(TLS, BINARY, 1, cell.net.name, cell.connections)
    together = None if alone is None else ratio(cell.rates, alone.rates)
    if alone is not None and together is not None:
        words = f"{cell.row.name} to without: {cell.net.name}, {cell.connections} at once"
        yield Judged(words, at_least(1.5), together, alone.cost / cell.cost)


def _to_peers(rounds: Rounds, cell: Cell) -> Iterator[Judged]:
    """Yield how a row stands to the fastest peer, whatever body that one likes best."""
    rivals = [
        other
        for other in rounds.cells
        if other.row.name not in OURS
        and (other.net.name, other.connections) == (cell.net.name, cell.connections)
        and other.rate
    ]
    if rivals:
        best = max(rivals, key=lambda other: other.rate)
        words = f"{cell.row.name} to {best.row.name}, {best.row.body}: {cell.net.name}, {cell.connections} at once"
        yield Judged(words, at_least(2.0 if cell.net.is_small else 1.0), cell.rate / best.rate, best.cost / cell.cost)


def _cells(rounds: Rounds, name: str, *, rows: int) -> list[Cell]:
    return [
        cell
        for cell in rounds.cells
        if cell.row.name == name and cell.row.body == BINARY and cell.row.rows == rows and cell.loads
    ]


def of_tail(name: str, net: str, plain_ms: float, added_ms: float) -> Judged:
    """Return the goal on the 99th percentile: under a millisecond added, or under a twentieth."""
    return Judged(f"p99 that {name} adds at 80 % load: {net}", at_most(max(1.0, plain_ms / 20), " ms"), added_ms)


def of_tensor(name: str, outside_ms: float) -> Judged:
    """Return the goal on processor time for 600 KB in and out."""
    return Judged(f"processor time outside the engine, {name}, 600 KB in and out", at_most(3, " ms"), outside_ms)


def of_idle(name: str, each_bytes: float, lost: int) -> Iterator[Judged]:
    """Yield the goals on connections that are held."""
    yield Judged(f"memory of an idle connection, {name}", at_most(64, " KiB"), each_bytes / 1024)
    yield Judged(f"connections lost of those held, {name}", at_most(0, ""), lost)


def show(found: Iterable[Judged]) -> None:
    """Print goals."""
    print("\ngoals")
    for one in found:
        print(one.line())
