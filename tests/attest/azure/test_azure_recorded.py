"""Azure evidence that others published: each verdict and each claim of the index (kept outside the repository)."""

from __future__ import annotations

from typing import Any

import pytest

from cloister.attest.dossier import azure_akcert, azure_vtpm, judge
from evidence_index import at, entries, expected, files_of

OPEN = {"azure-vtpm": azure_vtpm.open_case, "azure-akcert": azure_akcert.open_case}


@pytest.mark.parametrize("entry", entries(*OPEN))
def test_recorded_evidence_is_judged_as_the_index_says(entry: dict[str, Any]) -> None:
    case = OPEN[entry["tee"]](files_of(entry), entry["policy"])
    judgement = judge(case, at(entry))
    codes = {"chain_invalid" if reason.code == "untrusted_root" else reason.code for reason in judgement.reasons}
    assert codes <= expected(entry) if judgement.reasons else expected(entry) == {"ok"}
    assert judgement.claims == entry["claims"]
