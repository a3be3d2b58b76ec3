"""A goal and what was measured: one word, the same in every benchmark."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Goal", "at_least", "at_most"]


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit for one figure, and on which side of it the figure should lie."""

    limit: float
    upper: bool
    unit: str

    def verdict(self, value: float) -> str:
        """Return ``goal at least 0.33x: met``, or ``missed`` in its place."""
        met = value <= self.limit if self.upper else value >= self.limit
        side = "at most" if self.upper else "at least"
        return f"goal {side} {self.limit:.12g}{self.unit}: {'met' if met else 'missed'}"


def at_least(limit: float, unit: str = "x") -> Goal:
    """Return a goal that larger figures meet."""
    return Goal(limit, upper=False, unit=unit)


def at_most(limit: float, unit: str = "x") -> Goal:
    """Return a goal that smaller figures meet."""
    return Goal(limit, upper=True, unit=unit)
