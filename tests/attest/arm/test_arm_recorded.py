"""Recorded evidence: every verdict and every claim, where it is present."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cloister.attest.dossier import cca, judge, psa
from cloister.errors import Malformed
from evidence_index import at, entries, expected, files_of

if TYPE_CHECKING:
    from collections.abc import Mapping

IN_THE_INDEX = {"untrusted_root": "chain_invalid"}
OPEN = {"cca": cca.open_case, "psa": psa.open_case}


@pytest.mark.parametrize("entry", entries("psa", "cca"))
def test_recorded_arm_evidence_is_judged_as_the_index_says(entry: Mapping[str, Any]) -> None:
    try:
        judgement = judge(OPEN[entry["tee"]](files_of(entry), entry["policy"]), at(entry))
    except Malformed:
        assert expected(entry) == {"malformed"}
        assert entry["claims"] == {}
        return
    codes = {IN_THE_INDEX.get(reason.code, reason.code) for reason in judgement.reasons} or {"ok"}
    assert codes <= expected(entry), judgement.reasons
    assert judgement.claims == entry["claims"]
