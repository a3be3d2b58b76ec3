"""The contract: one payload, two signatures; nothing of it changes without both."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from cloister.crypto.sign import Label, SigningKey
from cloister.errors import Malformed, Rejected, UsageError
from cloister.lending.clauses import NO_CLAUSES, Clauses, OfflineTerm, RefundRule, Window
from cloister.lending.contract import Contract, SignedContract, verify_in_force
from cloister.lending.terms import Consumer, ConsumerId, LoanId, ModelDigest, ModelTerms, OutageRule, Terms
from cloister.wire import dump_b64u, dump_json, parse_json
from mutations import mutated

if TYPE_CHECKING:
    from cloister.wire import Json

CUSTODIAN, BORROWER, STRANGER = (SigningKey(bytes([n]) * 32) for n in (1, 2, 3))
CLAUSES = Clauses(
    purpose="triage of chest images",
    hours=(Window(day=1, start=480, end=1080),),
    precision=3,
    budget=5000,
    offline=OfflineTerm(lasts=timedelta(days=2), units=300),
    refund=RefundRule.UNUSED,
    borrower=BORROWER.verify_key,
    sub_allowances=True,
)
TERMS = Terms(
    loan=LoanId("loan-" + "a" * 16),
    borrower="clinic",
    models=(ModelTerms(name="digits", digest=ModelDigest("ab" * 32)),),
    consumers=(Consumer(id=ConsumerId("ann"), token_sha256=b"\x07" * 32),),
    outage=OutageRule.OFFLINE,
    clauses=CLAUSES,
)
POLICY = "cd" * 32
NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


def contract(terms: Terms = TERMS) -> Contract:
    return Contract.of(terms, custodian=CUSTODIAN.verify_key, policy_digest=POLICY, created_at=NOW)


def signed(terms: Terms = TERMS) -> SignedContract:
    offer = SignedContract.offer(contract(terms), CUSTODIAN)
    return offer.accept(BORROWER, custodian=CUSTODIAN.verify_key)


def changed(document: bytes, **members: Json) -> bytes:
    value: Any = parse_json(document, what="contract")
    return dump_json({**value, **members})


def test_both_sign_the_same_bytes_and_anybody_can_verify_it() -> None:
    document = signed().dump()
    found = SignedContract.parse(document)
    assert found == signed()
    assert found.verify(CUSTODIAN.verify_key) == contract()
    assert verify_in_force(document, terms=TERMS, policy_digest=POLICY, custodian=CUSTODIAN.verify_key) == signed()


def test_no_hash_of_a_consumers_token_is_in_a_contract() -> None:
    assert b"token_sha256" not in signed().payload
    assert ("07" * 32).encode() not in signed().payload
    smuggled: Any = json.loads(signed().payload)
    smuggled["terms"]["consumers"][0]["token_sha256"] = "07" * 32
    with pytest.raises(Malformed):
        Contract.parse(dump_json(smuggled))


def test_a_contract_names_the_consumers_and_whether_they_are_metered() -> None:
    assert json.loads(signed().payload)["terms"]["consumers"] == [{"id": "ann", "metered": False}]


def test_an_offer_is_no_contract_before_the_borrower_has_signed() -> None:
    offer = SignedContract.offer(contract(), CUSTODIAN)
    assert offer.verify_offer(CUSTODIAN.verify_key) == contract()
    with pytest.raises(Rejected, match="contract_unsigned"):
        SignedContract.parse(offer.dump()).verify(CUSTODIAN.verify_key)


def test_a_loan_that_names_no_borrowers_key_takes_the_custodians_signature_alone() -> None:
    plain = replace(TERMS, clauses=NO_CLAUSES, outage=OutageRule.STOP)
    offer = SignedContract.offer(contract(plain), CUSTODIAN)
    assert SignedContract.parse(offer.dump()).verify(CUSTODIAN.verify_key).terms.clauses == NO_CLAUSES
    with pytest.raises(UsageError):
        offer.accept(BORROWER, custodian=CUSTODIAN.verify_key)
    assert verify_in_force(b"", terms=plain, policy_digest=POLICY, custodian=CUSTODIAN.verify_key) is None


def test_another_borrowers_key_cannot_accept() -> None:
    with pytest.raises(UsageError):
        SignedContract.offer(contract(), CUSTODIAN).accept(STRANGER, custodian=CUSTODIAN.verify_key)
    forged = replace(signed(), borrower=STRANGER.sign(Label.CONTRACT, signed().payload))
    with pytest.raises(Rejected, match="signature_invalid"):
        forged.verify(CUSTODIAN.verify_key)


def test_a_borrower_does_not_sign_what_another_custodian_offers() -> None:
    with pytest.raises(Rejected, match="unknown_key"):
        SignedContract.offer(contract(), CUSTODIAN).accept(BORROWER, custodian=STRANGER.verify_key)


def test_a_signature_of_another_statement_is_no_signature_of_a_contract() -> None:
    for label in (Label.LOAN, Label.LEASE, Label.SUB_ALLOWANCE):
        with pytest.raises(Rejected, match="signature_invalid"):
            replace(signed(), custodian=CUSTODIAN.sign(label, signed().payload)).verify(CUSTODIAN.verify_key)


def test_one_party_cannot_agree_with_itself() -> None:
    alone = replace(TERMS, clauses=replace(CLAUSES, borrower=CUSTODIAN.verify_key))
    with pytest.raises(Malformed, match="one party"):
        Contract.parse(contract(alone).dump())


ALTERED = {
    "hours": replace(TERMS, clauses=replace(CLAUSES, hours=None)),
    "purpose": replace(TERMS, clauses=replace(CLAUSES, purpose="anything")),
    "precision": replace(TERMS, clauses=replace(CLAUSES, precision=None)),
    "refund": replace(TERMS, clauses=replace(CLAUSES, refund=RefundRule.NONE)),
    "budget": replace(TERMS, clauses=replace(CLAUSES, budget=1)),
    "sub-allowances": replace(TERMS, clauses=replace(CLAUSES, sub_allowances=False)),
    "rate": replace(TERMS, rate_cap=9),
    "ceiling": replace(TERMS, max_ceiling=1),
    "instances": replace(TERMS, max_instances=9),
    "ttl": replace(TERMS, ttl=timedelta(seconds=5)),
    "models": replace(TERMS, models=(ModelTerms(name="digits", digest=ModelDigest("00" * 32)),)),
    "operator": replace(TERMS, borrower="somebody"),
    "anybody": replace(TERMS, consumers=None),
    "offline": replace(TERMS, clauses=replace(CLAUSES, offline=OfflineTerm(lasts=timedelta(days=9), units=300))),
}


@pytest.mark.parametrize("name", ALTERED)
def test_a_custodian_cannot_change_a_clause_without_the_borrowers_signature(name: str) -> None:
    with pytest.raises(Rejected, match="contract_mismatch"):
        verify_in_force(signed().dump(), terms=ALTERED[name], policy_digest=POLICY, custodian=CUSTODIAN.verify_key)
    redrawn = replace(SignedContract.offer(contract(ALTERED[name]), CUSTODIAN), borrower=signed().borrower)
    with pytest.raises(Rejected, match="signature_invalid"):
        redrawn.verify(CUSTODIAN.verify_key)


def test_a_custodian_cannot_change_the_policy_without_the_borrowers_signature() -> None:
    with pytest.raises(Rejected, match="policy_digest"):
        verify_in_force(signed().dump(), terms=TERMS, policy_digest="00" * 32, custodian=CUSTODIAN.verify_key)


def test_consumers_join_and_versions_grow_without_a_new_contract() -> None:
    joined = Consumer(id=ConsumerId("bob"), token_sha256=b"\x08" * 32, metered=True)
    grown = replace(TERMS, consumers=(*(TERMS.consumers or ()), joined), version=7)
    assert verify_in_force(signed().dump(), terms=grown, policy_digest=POLICY, custodian=CUSTODIAN.verify_key)


def test_a_grant_that_names_a_borrowers_key_comes_with_its_contract() -> None:
    with pytest.raises(Rejected, match="contract_unsigned"):
        verify_in_force(b"", terms=TERMS, policy_digest=POLICY, custodian=CUSTODIAN.verify_key)


@pytest.mark.parametrize(
    "members",
    [
        {"signatures": []},
        {"signatures": [{"keyid": BORROWER.key_id, "sig": dump_b64u(bytes(64))}]},
        {"signatures": [{"keyid": CUSTODIAN.key_id, "sig": dump_b64u(bytes(64))}] * 2},
        {"signatures": [{"keyid": CUSTODIAN.key_id, "sig": dump_b64u(bytes(63))}]},
        {"payloadType": Label.LOAN.value},
        {"payload": dump_b64u(b"{}")},
        {"more": 1},
    ],
)
def test_another_document_is_malformed(members: dict[str, Json]) -> None:
    with pytest.raises(Malformed):
        SignedContract.parse(changed(signed().dump(), **members))


def test_a_damaged_contract_is_malformed_or_unsigned_and_nothing_else() -> None:
    document = signed().dump()
    for data in mutated(document, count=3000):
        try:
            found = SignedContract.parse(data).verify(CUSTODIAN.verify_key)
        except (Malformed, Rejected):
            continue
        assert data == document, found
