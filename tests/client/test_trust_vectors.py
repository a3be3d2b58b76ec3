"""The vectors of docs/spec/trust.md: what a trust file demands of the contract, most of them bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloister.client import Trust
from cloister.errors import Malformed

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent.parent / "vectors/trust/trusts.json").read_text())
CASES: list[dict[str, Any]] = VECTORS["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_trust_vector(case: dict[str, Any]) -> None:
    data = case["text"].encode()
    if case["expect"] == "valid":
        trust = Trust.parse(data)
        assert json.loads(trust.dump())["contract"] == json.loads(data)["contract"]
        return
    with pytest.raises(Malformed):
        Trust.parse(data)


def test_most_vectors_are_bad() -> None:
    assert len([case for case in CASES if case["expect"] == "valid"]) <= len(CASES) / 10
