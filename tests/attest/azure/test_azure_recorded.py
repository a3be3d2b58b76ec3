"""Recorded Azure evidence: every verdict and every claim, where it is present."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cloister.attest.dossier import azure_akcert, azure_vtpm
from evidence_index import demand_verdict_of_the_index, entries

if TYPE_CHECKING:
    from collections.abc import Mapping

OPEN = {"azure-vtpm": azure_vtpm.open_case, "azure-akcert": azure_akcert.open_case}


@pytest.mark.parametrize("entry", entries(*OPEN))
def test_recorded_azure_evidence_is_judged_as_the_index_says(entry: Mapping[str, Any]) -> None:
    demand_verdict_of_the_index(OPEN[entry["tee"]], entry)
