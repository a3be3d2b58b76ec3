"""Rounds of rows: every row once in each round, in an order that chance draws anew, after one round that only warms up.

What came before a row (dirty pages, a processor that has slowed down, memory just given back) is then not the same row
each time. Ratios are taken within a round, and their median, lowest and highest are shown.
"""

from __future__ import annotations

import random
import resource
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from figures.goals import Goal

__all__ = ["Cost", "Row", "run", "show"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of wall clock and of processors, for so many bytes."""

    wall: float
    cpu: float
    size: int


@dataclass(slots=True, kw_only=True)
class Row:
    """One thing that is measured. ``work`` returns the bytes it moved, or what it cost where it ran elsewhere."""

    name: str
    work: Callable[[], int | Cost]
    versus: str = ""
    goal: Goal | None = None
    before: Callable[[], object] = lambda: None
    after: Callable[[], object] = lambda: None
    costs: list[Cost] = field(default_factory=list)


def _processors() -> float:
    """Return the seconds that this process and its ended children have had."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def measure(row: Row) -> Cost:
    """Run a row once."""
    row.before()
    try:
        cpu, wall = _processors(), time.perf_counter()
        done = row.work()
        wall, cpu = time.perf_counter() - wall, _processors() - cpu
        return done if isinstance(done, Cost) else Cost(wall, cpu, done)
    finally:
        row.after()


def run(rows: Sequence[Row], rounds: int) -> None:
    """Measure every row ``rounds`` times, and once before that for nothing."""
    for turn in range(rounds + 1):
        for row in random.sample(rows, len(rows)):
            cost = measure(row)
            if turn:
                row.costs.append(cost)


def show(rows: Sequence[Row]) -> None:
    """Print the table: speed, and the ratio of speeds to another row of the same round (0.50x: half as fast)."""
    by_name = {row.name: row for row in rows}
    width = max(len(row.name) for row in rows) + 2
    print(f"{'':{width}}{'GB/s':>6}{'wall':>8}{'lowest to highest':>20}{'cpu':>8}   compared with")
    for row in rows:
        speed = statistics.median(cost.size / cost.wall for cost in row.costs) / 1e9
        other = by_name.get(row.versus)
        if other is None:
            print(f"{row.name:{width}}{speed:>6.2f}")
            continue
        pairs = list(zip(row.costs, other.costs, strict=True))
        walls = [_ratio(mine.wall, mine.size, its.wall, its.size) for mine, its in pairs]
        cpu = statistics.median(_ratio(mine.cpu, mine.size, its.cpu, its.size) for mine, its in pairs)
        wall = statistics.median(walls)
        spread = f"{min(walls):.2f} to {max(walls):.2f}"
        verdict = "" if row.goal is None else f"; {row.goal.verdict(wall)}"
        print(f"{row.name:{width}}{speed:>6.2f}{wall:>7.2f}x{spread:>20}{cpu:>7.2f}x   {row.versus}{verdict}")


def _ratio(mine: float, size: int, its: float, its_size: int) -> float:
    """Return how fast mine is, its speed being 1."""
    return (its / its_size) / (max(mine, 1e-9) / size)
