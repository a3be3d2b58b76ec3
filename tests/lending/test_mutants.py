"""Every deliberate mistake dies by an invariant in a scripted attack; the honest protocol lives through all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mutants import MUTANTS
from scenarios import SCENARIOS
from world import Violation, World

if TYPE_CHECKING:
    from collections.abc import Callable

CAUGHT_BY = {
    "M1 time from receipt": "I3",
    "M2 counter on disk": "I1",
    "M3 bearer lease": "I1",
    "M4 debit on report": "I2",
    "M5 retried request granted again": "I4",
    "M6 refund on close with a copy": "I2",
    "M7 limit of a dead instance used again": "I2",
    "M8 serve then count": "I1",
    "M9 no seq check": "I5",
    "M10 delta instead of ceiling": "I1",
    "M11 older database not noticed": "I1",
    "M12 reply not stored": "I6",
    "M13 older block version taken": "I5",
    "no epoch fence": "I2",
    "lost units forgotten": "I1",
    "grace after the deadline": "I3",
    "stream not checked": "I3",
    "answer before commit": "I1",
    "no audit leaf": "I7",
    "no cap": "I4",
    "block not checked": "I3",
    "model list not obeyed": "I3",
    "one meter": "I1",
    "balance not guarded": "I5",
}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_the_honest_protocol_comes_through(scenario: Callable[[type[World]], None]) -> None:
    scenario(World)


def killers(mutant: type[World]) -> dict[str, str]:
    """Return which attack breaks which invariant of this mutant."""
    found = {}
    for scenario in SCENARIOS:
        try:
            scenario(mutant)
        except Violation as exc:
            found[scenario.__name__] = exc.invariant
        except AssertionError:
            continue  # not an invariant: the mistake stands in its own way here
    return found


@pytest.mark.parametrize("name", MUTANTS)
def test_the_mistake_is_caught(name: str) -> None:
    found = killers(MUTANTS[name])
    assert CAUGHT_BY[name] in found.values(), f"{name} lives: {found}"
