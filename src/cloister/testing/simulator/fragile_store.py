"""The real store, in a process that can be made to end at its commits (threats T40, T86)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from cloister.custodian.store.sqlite import SqliteStore
from cloister.testing.simulator.wire import SimulatedCrash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

__all__ = ["CrashPlan", "CrashPoint", "FragileStore"]


class CrashPoint(Enum):
    """Where a custodian's process ends."""

    BEFORE_COMMIT = "before commit"
    AFTER_COMMIT = "after commit, before the checkpoint"
    BEFORE_ANSWER = "after the checkpoint, before the answer"


@dataclass(slots=True)
class CrashPlan:
    """At which passing of which point the process ends; nothing passes any point after that."""

    left: dict[CrashPoint, int] = field(default_factory=dict)
    dead: bool = False
    asides: list[Callable[[], None] | None] = field(default_factory=list)
    """What happens before each of the next reads: None for nothing."""

    def reach(self, point: CrashPoint) -> None:
        """Pass ``point``. Raises ``SimulatedCrash`` where the process ends here."""
        if point in self.left:
            self.left[point] -= 1
            self.dead = self.dead or self.left[point] < 0
        self.demand_life()

    def demand_life(self) -> None:
        """Raise ``SimulatedCrash`` in a process that has ended."""
        if self.dead:
            raise SimulatedCrash


class FragileStore(SqliteStore):
    """``SqliteStore`` with two places at which the process can end."""

    def __init__(self, path: Path, *, fence: bytes, plan: CrashPlan) -> None:
        """Open as ``SqliteStore`` does, under ``plan``."""
        self._plan = plan
        super().__init__(path, fence=fence)

    @contextlib.contextmanager
    def writing(self, *, fenced: bool = True, alone: bool = False) -> Iterator[Connection]:
        """Run one transaction, if the process lives so long."""
        self._plan.demand_life()
        with super().writing(fenced=fenced, alone=alone) as connection:
            yield connection
            self._plan.reach(CrashPoint.BEFORE_COMMIT)
        self._plan.reach(CrashPoint.AFTER_COMMIT)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Run one read-only transaction, if the process lives."""
        self._plan.demand_life()
        aside = self._plan.asides.pop(0) if self._plan.asides else None
        if aside is not None:
            aside()
        with super().reading() as connection:
            yield connection
