"""The vectors of newer versions of a model: terms with ``replaces``, released keys, and leases during a change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloister.errors import Malformed
from cloister.lending.messages import Lease
from cloister.lending.messages.registration import ReleasedKey
from cloister.lending.terms import ModelTerms
from cloister.wire import dump_json

if TYPE_CHECKING:
    from collections.abc import Callable

FILE = Path(__file__).parent.parent / "vectors" / "lease" / "versions.json"
CASES: list[dict[str, str]] = json.loads(FILE.read_text())["cases"]
TAKE_AND_DUMP: dict[str, Callable[[str], bytes]] = {
    "model-terms": lambda text: dump_json(ModelTerms.from_json(json.loads(text)).to_json()),
    "released-key": lambda text: dump_json(ReleasedKey.from_json(json.loads(text)).to_json()),
    "lease": lambda text: Lease.parse(text.encode()).dump(),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['format']} {case['name']}")
def test_vector(case: dict[str, str]) -> None:
    take = TAKE_AND_DUMP[case["format"]]
    if case["expect"] == "valid":
        assert take(case["text"]) == case["text"].encode()
        return
    with pytest.raises(Malformed):
        take(case["text"])


@pytest.mark.parametrize("kind", TAKE_AND_DUMP)
def test_most_vectors_of_each_kind_are_bad(kind: str) -> None:
    found = [case["expect"] for case in CASES if case["format"] == kind]
    assert found.count("valid") * 3 < len(found)
