"""The command line sends an Idempotency-Key where it is honoured, and nowhere else (docs/adr/0060-sent-again.md)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloister.custodian.routes import ROUTES
from cloister.custodian.tenants.operator_http import operator_routes

SOURCE = Path(__file__).parents[2] / "src" / "cloister" / "cli"
EVERY = (*ROUTES, *operator_routes(None))  # type: ignore[arg-type]  # routes are values: nothing is called
SENDS = re.compile(r'\.(post|send_json|delete)\(\s*f?"(/(?:v1|operator)/[^"]*)"')
CALLS = sorted({found for path in SOURCE.rglob("*.py") for found in SENDS.findall(path.read_text(encoding="utf-8"))})


@pytest.mark.parametrize(("verb", "path"), CALLS, ids=lambda word: word)
def test_a_command_sends_a_key_where_its_route_takes_one(verb: str, path: str) -> None:
    """By what the source says: a part in braces is any one segment."""
    form = re.compile("[^/]+".join(re.escape(part) for part in re.split(r"\{.*?\}(?=/|$)", path)))
    method = "DELETE" if verb == "delete" else "POST"
    meant = [route for route in EVERY if route.method == method and form.fullmatch(route.path)]
    assert meant, "no such route"
    assert {route.once for route in meant} == {verb != "send_json"}


def test_most_commands_are_seen() -> None:
    assert len(CALLS) > 30
