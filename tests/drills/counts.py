"""How often a drill does what it does: few times, many in ``make drill``, as often as asked by a variable.

``CLOISTER_DRILL_POWER_CUTS=50000 make drill ARGS="-k test_power"`` is a drill before a release.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

PREFIX = "CLOISTER_DRILL_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """One drill's count: in its short form, in its long one, and the variable that sets the latter.

    A short form that takes seconds belongs to the suite; the others bear the mark ``drill`` as every long form does.
    """

    name: str
    suite: int
    drill: int

    @property
    def many(self) -> int:
        """The count for ``make drill``."""
        return int(os.environ.get(f"{PREFIX}{self.name}", self.drill))


CUSTODIAN_KILLS = Count(name="CUSTODIAN_KILLS", suite=5, drill=500)
ENCLAVE_KILLS = Count(name="ENCLAVE_KILLS", suite=3, drill=200)
KILLS_IN_TURNS = Count(name="KILLS_IN_TURNS", suite=3, drill=200)
POWER_CUTS = Count(name="POWER_CUTS", suite=100, drill=10_000)
SEALING_CUTS = Count(name="SEALING_CUTS", suite=60, drill=5_000)
SEALING_KILLS = Count(name="SEALING_KILLS", suite=3, drill=200)
DISK_SIZES = Count(name="DISK_SIZES", suite=3, drill=30)
IO_EPISODES = Count(name="IO_EPISODES", suite=1, drill=50)
FLAPS = Count(name="FLAPS", suite=3, drill=20)
MESSAGES = Count(name="MESSAGES", suite=100, drill=10_000)
ROTATIONS = Count(name="ROTATIONS", suite=0, drill=50)
RACES = Count(name="RACES", suite=2, drill=100)
RACE_OPERATIONS = Count(name="RACE_OPERATIONS", suite=160, drill=10_000)
