"""The custodian's word on its keys: one spelling, and no figures that contradict each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloister.errors import Malformed
from cloister.lending.messages.keys import KeyStatus

FILE = Path(__file__).parent.parent / "vectors" / "key-status" / "messages.json"
CASES: list[dict[str, Any]] = json.loads(FILE.read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_vector(case: dict[str, str]) -> None:
    data = case["text"].encode()
    if case["expect"] == "valid":
        status = KeyStatus.parse(data)
        assert status.dump() == data
        assert status.moved == (status.behind_count == status.stuck_count == 0)
        return
    with pytest.raises(Malformed):
        KeyStatus.parse(data)


def test_most_vectors_are_bad() -> None:
    assert sum(case["expect"] == "valid" for case in CASES) * 10 < len(CASES)
