"""Recorded tokens of real issuers: the verdict and the claims the index expects."""

from __future__ import annotations

from typing import Any

import pytest

from cloister.attest.dossier import judge
from cloister.attest.dossier.token import open_case
from evidence_index import at, entries, expected, files_of


@pytest.mark.parametrize("entry", entries("token"))
def test_a_recorded_token_is_judged_as_the_index_says(entry: dict[str, Any]) -> None:
    judgement = judge(open_case(files_of(entry), entry["policy"]), at(entry))
    codes = {reason.code for reason in judgement.reasons} or {"ok"}
    assert {"chain_invalid" if code == "untrusted_root" else code for code in codes} <= expected(entry)
    assert dict(judgement.claims) == entry["claims"]
