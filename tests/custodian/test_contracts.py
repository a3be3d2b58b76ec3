"""The contract at the custodian: no key before both have signed, no clause changed by one alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import SOFTWARE, Bench, Lent, Toy

from cloister.crypto.sign import Label, SigningKey
from cloister.custodian.service.standing import loan_row, loan_state
from cloister.lending.contract import Contract, SignedContract, verify_in_force
from cloister.testing.simulated import simulated_policy
from cloister.wire import dump_b64u, parse_b64u

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from cloister.lending.state import LoanState

BORROWER, STRANGER = SigningKey(bytes([9]) * 32), SigningKey(bytes([8]) * 32)
HOURS = [{"day": 6, "end": 1440, "start": 0}]


def lend(bench: Bench, **clauses: Any) -> Lent:
    return bench.lend(clauses={"borrower": BORROWER.verify_key.dump(), **clauses})


def shown(lent: Lent) -> dict[str, SignedContract | None]:
    answer = lent.bench.client.get(f"/v1/loans/{lent.id}/contract", headers=lent.token).json()
    return {
        name: None if answer[name] is None else SignedContract.parse(parse_b64u(answer[name], what="contract"))
        for name in ("in_force", "offered")
    }


def sign(lent: Lent, key: SigningKey = BORROWER, **changes: Any) -> httpx.Response:
    offer = shown(lent)["offered"]
    assert offer is not None
    body = {
        "signature": dump_b64u(key.sign(Label.CONTRACT, offer.payload)),
        "version": Contract.parse(offer.payload).version,
    }
    return lent.bench.post(f"/v1/loans/{lent.id}/contract", {**body, **changes}, token=lent.token)


def attest(lent: Lent) -> httpx.Response:
    toy = Toy(lent)
    return lent.attest(toy.attest_statement(toy.take_challenge()))


def state(lent: Lent) -> LoanState:
    context = lent.bench.service.context
    with context.reading() as connection:
        return loan_state(connection, loan_row(connection, lent.id), context.config)


def amend(lent: Lent, **clauses: Any) -> httpx.Response:
    body = {"clauses": {"borrower": BORROWER.verify_key.dump(), **clauses}}
    return lent.bench.post(f"/v1/loans/{lent.id}/amend", body)


def test_no_key_is_released_before_the_borrower_has_signed(bench: Bench) -> None:
    lent = lend(bench, purpose="triage")
    refused = attest(lent)
    assert (refused.status_code, refused.json()["code"]) == (403, "contract_unsigned")
    assert "key_released" not in bench.kinds()
    assert sign(lent).status_code == 200
    assert attest(lent).status_code == 200
    assert [kind for kind in bench.kinds() if kind.startswith("contract")] == ["contract_offered", "contract_signed"]


def test_a_grant_carries_the_contract_that_both_have_signed(bench: Bench) -> None:
    lent = lend(bench, purpose="triage", precision=2)
    sign(lent)
    grant = lent.boot().grant
    assert grant is not None
    signed = verify_in_force(
        grant.contract, terms=grant.terms, policy_digest=grant.policy_digest, custodian=bench.init.key
    )
    assert signed is not None
    contract = signed.verify(bench.init.key)
    assert (contract.terms.clauses.purpose, contract.terms.clauses.budget) == ("triage", 10)


def test_a_loan_without_a_borrowers_key_is_agreed_on_at_once(bench: Bench) -> None:
    lent = bench.lend(clauses={"purpose": "triage"})
    found = shown(lent)
    assert found["offered"] is None
    assert found["in_force"] is not None
    assert found["in_force"].verify(bench.init.key).terms.clauses.purpose == "triage"
    assert lent.boot().grant is not None


@pytest.mark.parametrize(
    ("key", "changes", "code"),
    [
        (STRANGER, {}, "signature_invalid"),
        (BORROWER, {"version": 2}, "contract_version_old"),
        (BORROWER, {"signature": dump_b64u(bytes(63))}, "malformed"),
        (BORROWER, {"more": 1}, "malformed"),
    ],
)
def test_another_signature_is_none(bench: Bench, key: SigningKey, changes: dict[str, Any], code: str) -> None:
    lent = lend(bench)
    assert sign(lent, key, **changes).json()["code"] == code
    assert attest(lent).json()["code"] == "contract_unsigned"


def test_a_signature_over_an_older_version_puts_nothing_in_force(bench: Bench) -> None:
    lent = lend(bench, purpose="first")
    offer = shown(lent)["offered"]
    assert offer is not None
    assert amend(lent, purpose="second").status_code == 200
    old = dump_b64u(BORROWER.sign(Label.CONTRACT, offer.payload))
    assert sign(lent, signature=old).json()["code"] == "signature_invalid"
    assert sign(lent, signature=old, version=1).json()["code"] == "contract_version_old"
    assert attest(lent).json()["code"] == "contract_unsigned"


def test_only_the_loans_own_borrower_can_accept(bench: Bench) -> None:
    lent, other = lend(bench), lend(bench)
    body = {"signature": dump_b64u(bytes(64)), "version": 1}
    assert bench.post(f"/v1/loans/{lent.id}/contract", body, token=other.token).status_code == 404
    assert bench.post(f"/v1/loans/{lent.id}/contract", body, token=bench.admin).status_code == 403


def test_a_contract_is_signed_once(bench: Bench) -> None:
    lent = lend(bench)
    assert sign(lent).status_code == 200
    body = {"signature": dump_b64u(bytes(64)), "version": 1}
    assert bench.post(f"/v1/loans/{lent.id}/contract", body, token=lent.token).json()["code"] == "already_decided"


def test_a_custodian_that_changes_the_hours_alone_changes_nothing(bench: Bench) -> None:
    lent = lend(bench, hours=HOURS)
    sign(lent)
    toy = lent.boot()
    toy.renew()
    answer = amend(lent)  # without the hours
    assert answer.json()["in_force"] is False
    assert lent.show()["terms"]["clauses"]["hours"] == HOURS
    toy.renew()  # the contract in force stays in force
    bench.clock.advance(1)
    lent.boot()
    assert sign(lent).status_code == 200
    assert "hours" not in lent.show()["terms"]["clauses"]
    assert "terms_changed" in bench.kinds()


def test_an_amendment_in_force_stops_instances_of_the_older_contract(bench: Bench) -> None:
    lent = lend(bench)
    sign(lent)
    toy = lent.boot()
    toy.renew()
    bench.clock.advance(1)
    amend(lent, precision=1)
    sign(lent)
    refusal = toy.renew()
    assert [reason.code for reason in refusal.reasons] == ["contract_changed"]
    assert refusal.stop
    bench.clock.advance(1)
    newer = lent.boot()
    newer.renew()
    assert newer.grant is not None
    assert newer.grant.terms.clauses.precision == 1


def test_an_amendment_where_nobody_countersigns_counts_at_once(bench: Bench) -> None:
    lent = bench.lend()
    bench.clock.advance(1)
    body = {"clauses": {"purpose": "more"}, "rate_cap": 5}
    assert bench.post(f"/v1/loans/{lent.id}/amend", body).json()["in_force"] is True
    terms = lent.show()["terms"]
    assert (terms["clauses"], terms["rate_cap"]) == ({"budget": 10, "purpose": "more"}, 5)
    assert lent.boot().grant is not None


def test_a_borrowers_key_is_not_exchanged_by_an_amendment(bench: Bench) -> None:
    lent = lend(bench)
    sign(lent)
    for clauses in ({}, {"borrower": STRANGER.verify_key.dump()}):
        answer = bench.post(f"/v1/loans/{lent.id}/amend", {"clauses": clauses})
        assert answer.json()["code"] == "borrower_key_fixed"


def test_consumers_join_and_allowances_grow_without_a_new_signature(bench: Bench) -> None:
    lent = bench.lend(clauses={"borrower": BORROWER.verify_key.dump()}, consumers=[{"id": "ann"}])
    sign(lent)
    assert bench.post(f"/v1/loans/{lent.id}/consumers", {"consumers": [{"id": "bob"}]}).status_code == 201
    assert bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 5}).status_code == 200
    assert lent.boot().grant is not None
    amend(lent, purpose="later")
    sign(lent)
    assert {item["id"] for item in lent.show()["terms"]["consumers"]} == {"ann", "bob"}
    bench.clock.advance(1)
    assert lent.boot().grant is not None


def test_a_new_policy_is_a_new_contract_and_stops_release_until_it_is_signed(bench: Bench) -> None:
    lent = lend(bench)
    sign(lent)
    policy = simulated_policy(SOFTWARE)
    newer = replace(policy, version=policy.version + 1)
    assert bench.post(f"/v1/loans/{lent.id}/policy", {"policy": newer.to_json()}).status_code == 200
    assert attest(lent).json()["code"] == "contract_unsigned"
    sign(lent)
    assert attest(lent).status_code == 200


@pytest.mark.parametrize(
    "clauses",
    [
        {"budget": 5},
        {"hours": []},
        {"sub_allowances": True},
        {"refund": "all"},
        {"borrower": dump_b64u(bytes(32))},
        {"unheard": 1},
        {"purpose": ""},
    ],
)
def test_clauses_that_are_none_are_malformed(bench: Bench, clauses: dict[str, Any]) -> None:
    answer = bench.post("/v1/loans", bench.loan_body(clauses=clauses))
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")


def test_a_contract_with_the_custodians_own_key_as_the_borrowers_is_not_offered(bench: Bench) -> None:
    answer = bench.post("/v1/loans", bench.loan_body(clauses={"borrower": bench.init.key.dump()}))
    assert answer.status_code == 400


NITRO = {"nitro": {"debug": {"exact": False}, "pcr.0": {"one_of": ["ab" * 48]}}}


@pytest.mark.parametrize(
    ("settings", "plain"), [({}, (422, "borrower_key_wanted")), ({"unsigned_contracts": True}, (201, ""))]
)
def test_production_lends_on_countersigned_contracts_unless_it_is_told_otherwise(
    tmp_path: Path, settings: dict[str, Any], plain: tuple[int, str]
) -> None:
    def lent(bench: Bench, **clauses: Any) -> tuple[int, str]:
        body = bench.loan_body(policy={"tees": NITRO, "v": 1, "version": 1}, clauses=clauses)
        answer = bench.post("/v1/loans", body)
        return answer.status_code, answer.json().get("code", "")

    with Bench(tmp_path, settings={"profile": "production", **settings}) as bench:
        assert lent(bench) == plain
        assert lent(bench, borrower=BORROWER.verify_key.dump()) == (201, "")


def test_an_offline_term_is_the_outage_rule(bench: Bench) -> None:
    lent = bench.lend(clauses={"offline": {"lasts_s": 3600, "units": 5}})
    assert lent.show()["terms"]["outage"] == "offline"


def test_a_ticketed_model_is_lent_as_one(bench: Bench) -> None:
    lent = bench.lend(models=[{"digest": bench.digest, "name": "digits", "ticketed": True}])
    assert lent.show()["terms"]["models"][0]["ticketed"] is True


def test_t50_unused_units_come_back_only_where_the_contract_says_so_and_no_copy_can_be(bench: Bench) -> None:
    plain, unused = bench.lend(), bench.lend(clauses={"refund": "unused"})
    assert not state(plain).refund_on_close
    assert state(unused).refund_on_close
    toy = unused.boot()  # a simulated TEE excludes no copy
    toy.renew()
    toy.close()
    shown_now = unused.show()["meters"]["loan"]
    assert shown_now["written_off"] == shown_now["granted"] - shown_now["balance"]
