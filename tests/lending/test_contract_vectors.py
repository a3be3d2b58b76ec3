"""The vectors of docs/spec/contract.md and docs/spec/sub-allowance.md: most of them bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloister.crypto.sign import SigningKey
from cloister.errors import Malformed, Rejected
from cloister.lending.contract import SignedContract
from cloister.lending.revocation import verify_list
from cloister.lending.sub_allowance import verify_chain
from cloister.lending.terms import InstanceId, LoanId
from cloister.wire import parse_time

VECTORS = Path(__file__).parent.parent / "vectors"
CONTRACTS: dict[str, Any] = json.loads((VECTORS / "contract/contracts.json").read_text())
CHAINS: dict[str, Any] = json.loads((VECTORS / "sub-allowance/chains.json").read_text())
LISTS: dict[str, Any] = json.loads((VECTORS / "sub-allowance/revocations.json").read_text())


def judged(case: dict[str, Any], verify: Any) -> None:
    if case["expect"] == "valid":
        verify()
        return
    with pytest.raises(Malformed if case["expect"] == "Malformed" else Rejected) as caught:
        verify()
    if isinstance(caught.value, Rejected):
        assert caught.value.code == case["expect"]


@pytest.mark.parametrize("case", CONTRACTS["cases"], ids=lambda case: case["name"])
def test_contract(case: dict[str, Any]) -> None:
    custodian = SigningKey(bytes.fromhex(case.get("custodian_seed", CONTRACTS["custodian_seed"]))).verify_key

    def verify() -> None:
        signed = SignedContract.parse(case["text"].encode())
        assert signed.dump() == case["text"].encode()
        signed.verify(custodian)

    judged(case, verify)


@pytest.mark.parametrize("case", CHAINS["cases"], ids=lambda case: case["name"])
def test_chain(case: dict[str, Any]) -> None:
    borrower, use = SigningKey(bytes.fromhex(CHAINS["borrower_seed"])).verify_key, case["use"]

    def verify() -> None:
        token = case["token"].encode()
        sub = verify_chain(case["text"].encode(), token, borrower=borrower, loan=LoanId(CHAINS["loan"]))
        assert list(sub.ids) == use.get("ids", list(sub.ids))
        now = parse_time(use.get("now", CHAINS["now"]), what="now")
        instance = InstanceId(use.get("instance", CHAINS["instance"]))
        sub.demand(model=use["model"], instance=instance, now=now)

    judged(case, verify)


@pytest.mark.parametrize("case", LISTS["cases"], ids=lambda case: str(case["name"]))
def test_revocation_vector(case: dict[str, Any]) -> None:
    borrower, loan = SigningKey(bytes.fromhex(LISTS["borrower_seed"])).verify_key, LoanId(LISTS["loan"])

    def verify() -> None:
        found = verify_list(case["text"].encode(), borrower=borrower, loan=loan)
        if "before" in case:
            found.demand_after(verify_list(case["before"].encode(), borrower=borrower, loan=loan))

    judged(case, verify)


@pytest.mark.parametrize(
    "cases", [CONTRACTS["cases"], CHAINS["cases"], LISTS["cases"]], ids=["contract", "sub-allowance", "revocations"]
)
def test_most_vectors_are_bad(cases: list[dict[str, Any]]) -> None:
    assert len([case for case in cases if case["expect"] == "valid"]) <= len(cases) / 10
