"""Recorded CCA and PSA evidence: every verdict and every claim, where it is present."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cloister.attest.dossier import cca, psa
from evidence_index import demand_verdict_of_the_index, entries

if TYPE_CHECKING:
    from collections.abc import Mapping

OPEN = {"cca": cca.open_case, "psa": psa.open_case}


@pytest.mark.parametrize("entry", entries(*OPEN))
def test_recorded_arm_evidence_is_judged_as_the_index_says(entry: Mapping[str, Any]) -> None:
    demand_verdict_of_the_index(OPEN[entry["tee"]], entry)
