"""TPM quotes and certificates that others published, as files: each verdict and claim of the index."""

from __future__ import annotations

from typing import Any

import pytest

from cloister.attest.dossier import judge, tpm, tpm_akcert
from evidence_index import at, entries, expected, files_of

OPEN = {"tpm": tpm.open_case, "tpm-akcert": tpm_akcert.open_case}


@pytest.mark.parametrize("entry", entries(*OPEN))
def test_recorded_files_are_judged_as_the_index_says(entry: dict[str, Any]) -> None:
    case = OPEN[entry["tee"]](files_of(entry), entry["policy"])
    judgement = judge(case, at(entry))
    codes = {"chain_invalid" if reason.code == "untrusted_root" else reason.code for reason in judgement.reasons}
    assert codes <= expected(entry) if judgement.reasons else expected(entry) == {"ok"}
    assert judgement.claims == entry["claims"]
