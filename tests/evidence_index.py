"""Real attestation evidence with expected verdicts, where it is present: never part of the repository.

Found through ``CLOISTER_EVIDENCE`` or beside the checkout; tests that read it say so where it is not there.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloister.attest.dossier import judge
from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["FOLDER", "at", "demand_verdict_of_the_index", "entries", "expected", "files_of", "index"]

FOLDER = Path(os.environ.get("CLOISTER_EVIDENCE") or Path(__file__).parents[2] / "shared" / "evidence")
ANY_TIME = datetime(2026, 1, 1, tzinfo=UTC)
IN_THE_INDEX = {"untrusted_root": "chain_invalid"}  # ours, and the one word the index has for it


@cache
def index() -> tuple[dict[str, Any], ...]:
    """Return every entry, none where the folder is not there."""
    path = FOLDER / "index.json"
    return tuple(json.loads(path.read_text(encoding="utf-8"))["entries"]) if path.exists() else ()


def entries(*tees: str) -> list[Any]:
    """Return the entries of these TEEs as parameters of a test; one that skips where there are none."""
    found = [pytest.param(entry, id=entry["id"]) for entry in index() if entry["tee"] in tees]
    absent = pytest.mark.skip(reason=f"no recorded evidence of {', '.join(tees)} beside the checkout")
    return found or [pytest.param({}, id="absent", marks=absent)]


def files_of(entry: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the entry's files by role."""
    return {role: (FOLDER / path).read_bytes() for role, path in entry["files"].items()}


def at(entry: Mapping[str, Any]) -> datetime:
    """Return the entry's time; any time where it names none."""
    return datetime.fromisoformat(entry["verify_time"]) if entry["verify_time"] else ANY_TIME


def expected(entry: Mapping[str, Any]) -> set[str]:
    """Return the verdicts that are right: ``ok``, or any of its reasons."""
    return set(entry["all_reasons"]) or {"ok"}


def demand_verdict_of_the_index(open_case: Callable[..., Any], entry: Mapping[str, Any]) -> None:
    """Demand that the entry is judged as the index says: no reason but its own, and exactly its claims."""
    try:
        judgement = judge(open_case(files_of(entry), entry["policy"]), at(entry))
    except Malformed:
        assert expected(entry) == {"malformed"}
        assert entry["claims"] == {}
        return
    codes = {IN_THE_INDEX.get(reason.code, reason.code) for reason in judgement.reasons} or {"ok"}
    assert codes <= expected(entry), judgement.reasons
    assert judgement.claims == entry["claims"]
