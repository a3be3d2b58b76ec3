"""The vectors of docs/spec/evidence-tpm.md: made by other code, most of them bad."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from cloister.attest.rats import Evidence
from cloister.attest.schemes.tpm import TPM_TEE, TpmScheme
from cloister.errors import Malformed, Rejected

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "evidence-tpm" / "vectors.json").read_text())
NOW = datetime.fromisoformat(VECTORS["now"])
SCHEME = TpmScheme([bytes.fromhex(item) for item in VECTORS["authorities"]])
GOOD = Evidence(tee=TPM_TEE, payload=bytes.fromhex(VECTORS["cases"][0]["evidence"]))


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_each_vector_gets_its_verdict(case: dict) -> None:
    evidence = Evidence(tee=TPM_TEE, payload=bytes.fromhex(case["evidence"]))
    if case["expect"] == "ok":
        assert SCHEME.verify(evidence, {}, NOW).report_data.hex() == VECTORS["report_data"]
    elif case["expect"] == "malformed":
        with pytest.raises(Malformed):
            SCHEME.verify(evidence, {}, NOW)
    else:
        with pytest.raises(Rejected) as refused:
            SCHEME.verify(evidence, {}, NOW)
        assert refused.value.code == case["expect"]


def test_claims_of_the_good_vector() -> None:
    assert SCHEME.verify(GOOD, {}, NOW).claims == VECTORS["claims"]


@pytest.mark.parametrize(
    ("name", "code"), [("expired_authority", "cert_expired"), ("not_an_authority", "chain_invalid")]
)
def test_a_retired_authority_or_none_vouches_for_nothing(name: str, code: str) -> None:
    with pytest.raises(Rejected) as refused:
        TpmScheme([bytes.fromhex(VECTORS[name])]).verify(GOOD, {}, NOW)
    assert refused.value.code == code
