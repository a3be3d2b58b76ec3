"""Every deliberate mistake in the accounting of usage dies by an invariant; the honest protocol lives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from usage_mutants import USAGE_MUTANTS, USAGE_SCENARIOS
from world import Violation, World

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("scenario", USAGE_SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_the_honest_accounting_comes_through(scenario: Callable[[type[World]], None]) -> None:
    scenario(World)


@pytest.mark.parametrize("name", USAGE_MUTANTS)
def test_the_mistake_is_caught(name: str) -> None:
    mutant, invariant = USAGE_MUTANTS[name]
    found = {}
    for scenario in USAGE_SCENARIOS:
        try:
            scenario(mutant)
        except Violation as exc:
            found[scenario.__name__] = exc.invariant
    assert invariant in found.values(), f"{name} lives: {found}"
