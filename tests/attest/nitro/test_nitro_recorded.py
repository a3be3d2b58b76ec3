"""Recorded Nitro evidence: every verdict and every claim, where it is present."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cloister.attest.dossier.nitro import open_case
from evidence_index import demand_verdict_of_the_index, entries

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.mark.parametrize("entry", entries("nitro"))
def test_recorded_nitro_evidence_is_judged_as_the_index_says(entry: Mapping[str, Any]) -> None:
    demand_verdict_of_the_index(open_case, entry)
