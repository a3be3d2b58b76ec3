"""Every recorded SGX and TDX entry: the verdict it expects, the claims it expects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cloister.attest.dossier import judge
from cloister.attest.dossier.sgx import open_case as open_sgx
from cloister.attest.dossier.tdx import open_case as open_tdx
from cloister.attest.dossier.tdx_eventlog import open_case as open_tdx_eventlog
from cloister.errors import Malformed, Rejected
from evidence_index import at, entries, expected, files_of

if TYPE_CHECKING:
    from collections.abc import Mapping

OPEN = {"sgx": open_sgx, "tdx": open_tdx, "tdx-eventlog": open_tdx_eventlog}


def judged(entry: dict[str, Any]) -> tuple[str, Mapping[str, Any]]:
    try:
        case = OPEN[entry["tee"]](files_of(entry), entry["policy"])
        judgement = judge(case, at(entry))
    except Malformed:
        return "malformed", {}
    except Rejected as exc:
        return exc.code, {}
    return judgement.reasons[0].code if judgement.reasons else "ok", judgement.claims


@pytest.mark.parametrize("entry", entries(*OPEN))
def test_verdict_and_claims_are_those_of_the_index(entry: dict[str, Any]) -> None:
    verdict, claims = judged(entry)
    assert verdict in expected(entry)
    assert dict(claims) == entry["claims"]
