"""The threat model names every threat once, and every test it names exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in PAGE.splitlines()
    if re.match(r"\| T\d+ \|", line)
]
LAST_THREAT = 106
ACTORS = {"B", "B+", "C", "K", "N", "S", "X", "I", "D"}
STATE = re.compile(r"tested|hardware|(?:partly|later) \([A-Za-z ]+\)")


@cache
def functions_in(path: str) -> frozenset[str]:
    """Return the names of the test functions in one file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(item.name for item in ast.walk(tree) if isinstance(item, kinds) and item.name.startswith("test_"))


def test_every_threat_stands_exactly_once_and_in_order() -> None:
    assert [row[0] for row in ROWS] == [f"T{number}" for number in range(1, LAST_THREAT + 1)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0]))
def test_a_row_says_who_attacks_what_stands_against_it_and_what_shows_it(row: tuple[str, ...]) -> None:
    _, attack, actors, defence, state, shown = row
    assert attack
    assert defence
    assert set(actors.split(", ")) <= ACTORS
    assert STATE.fullmatch(state), state
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", shown)
    assert len(named) == len(shown.split("<br>")) if shown else not named
    assert bool(named) == state.startswith(("tested", "partly")), "tested and partly name tests, the others have none"
    for path, name in named:
        assert (ROOT / path).exists(), f"{path} does not exist"
        assert name in functions_in(path), f"{path} has no {name}"
