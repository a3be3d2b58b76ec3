"""Release of a key: nonce, evidence, binding, blocks, allowance; what leaves, and what is written down."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from custodian_kit import SOFTWARE, Lent, Toy

from cloister.attest.ear import verify_ear
from cloister.attest.rats import Evidence, TeeKind
from cloister.crypto.kem import Kem, KemPrivateKey
from cloister.crypto.sign import Label, SigningKey, Statement
from cloister.errors import Rejected
from cloister.lending.terms import InstanceId, LoanId, ModelDigest
from cloister.testing.simulated import simulated_policy

if TYPE_CHECKING:
    from custodian_kit import Bench


def test_the_key_reaches_the_attested_enclave_and_it_is_the_models_key(bench: Bench) -> None:
    toy = bench.lend().boot()
    assert toy.released_dek() == bench.dek
    assert toy.grant is not None
    assert toy.grant.publisher == bench.init.publisher
    ear = verify_ear(toy.grant.result, [bench.init.key], bench.clock())
    assert ear.tee == "simulated"


@pytest.mark.parametrize(
    "swapped",
    [
        {"model": ModelDigest("0" * 64)},
        {"loan": LoanId("loan-aaaaaaaaaaaaaaaa")},
        {"instance": InstanceId("0" * 64)},
        {"key_version": 2},
    ],
    ids=lambda item: next(iter(item)),
)
def test_a_released_key_does_not_open_for_another_use(bench: Bench, swapped: dict[str, object]) -> None:
    toy = bench.lend().boot()
    with pytest.raises(Rejected):
        toy.released_dek(**swapped)


def test_the_same_evidence_twice_is_refused_even_after_a_restart(bench: Bench) -> None:
    lent = bench.lend()
    toy = Toy(lent)
    statement = toy.attest_statement(toy.take_challenge())
    assert lent.attest(statement).status_code == 200
    for _ in range(2):
        again = lent.attest(statement)
        assert (again.status_code, again.json()["code"]) == (403, "nonce_used")
        bench.restart()


def test_a_nonce_of_61_seconds_is_expired_and_one_of_59_is_not(bench: Bench) -> None:
    lent = bench.lend()
    late, timely = Toy(lent), Toy(lent)
    first, second = late.take_challenge(), timely.take_challenge()
    bench.clock.advance(59)
    assert lent.attest(timely.attest_statement(second)).status_code == 200
    bench.clock.advance(2)
    answer = lent.attest(late.attest_statement(first))
    assert (answer.status_code, answer.json()["code"]) == (403, "nonce_expired")


def test_a_nonce_the_custodian_never_gave_is_refused(bench: Bench) -> None:
    lent = bench.lend()
    toy = Toy(lent)
    challenge = replace(toy.take_challenge(), nonce=bytes(32))
    assert lent.attest(toy.attest_statement(challenge)).json()["code"] == "nonce_unknown"


def test_a_refused_attestation_has_used_its_nonce_up(bench: Bench) -> None:
    lent = bench.lend()
    toy = Toy(lent, debug=True)
    challenge = toy.take_challenge()
    assert lent.attest(toy.attest_statement(challenge)).status_code == 403
    honest = Toy(lent)
    assert lent.attest(honest.attest_statement(challenge)).json()["code"] == "nonce_used"


def test_the_nonce_of_one_loan_is_worth_nothing_for_another(bench: Bench) -> None:
    first, second = bench.lend(), bench.lend()
    challenge = Toy(first).take_challenge()
    toy = Toy(second)
    assert second.attest(toy.attest_statement(challenge)).json()["code"] == "nonce_unknown"


@pytest.mark.parametrize(
    ("tee", "code"),
    [({"debug": True}, "debug_enabled"), ({"migratable": True}, "migratable"), ({"svn": 0}, "svn_too_low")],
)
def test_evidence_beneath_the_policy_is_refused_with_its_reason(
    bench: Bench, tee: dict[str, object], code: str
) -> None:
    lent = bench.lend()
    toy = Toy(lent, **tee)
    answer = lent.attest(toy.attest_statement(toy.take_challenge()))
    assert answer.status_code == 403
    assert code in {reason["code"] for reason in answer.json()["reasons"]}


def test_every_mismatch_is_named_not_only_the_first(bench: Bench) -> None:
    lent = bench.lend()
    toy = Toy(lent, debug=True, migratable=True, svn=0)
    answer = lent.attest(toy.attest_statement(toy.take_challenge()))
    assert {"debug_enabled", "migratable", "svn_too_low"} <= {item["code"] for item in answer.json()["reasons"]}


@pytest.mark.parametrize("member", ["kem_pub", "software"])
def test_a_swapped_key_or_manifest_does_not_fit_the_evidence(bench: Bench, member: str) -> None:
    lent = bench.lend()
    toy = Toy(lent)
    other = {
        "kem_pub": KemPrivateKey.generate(Kem.MLKEM768_X25519).public_bytes(),
        "software": replace(SOFTWARE, python="3.12").dump(),
    }
    answer = lent.attest(toy.attest_statement(toy.take_challenge(), **{member: other[member]}))
    assert answer.status_code == 403
    assert "report_data_mismatch" in {item["code"] for item in answer.json()["reasons"]}


def test_evidence_of_another_enclave_does_not_fetch_its_key(bench: Bench) -> None:
    """A relay that signs with its own key gets nothing: the evidence binds the enclave's (T3)."""
    lent = bench.lend()
    honest = Toy(lent)
    challenge = honest.take_challenge()
    stolen = Statement.parse(honest.attest_statement(challenge), label=Label.ATTEST)
    thief = SigningKey.generate()
    payload = stolen.payload.replace(honest.key.verify_key.dump().encode(), thief.verify_key.dump().encode())
    answer = lent.attest(Statement.sign(thief, Label.ATTEST, payload).dump())
    assert answer.status_code == 403
    assert "report_data_mismatch" in {item["code"] for item in answer.json()["reasons"]}


def test_a_request_that_its_instance_key_did_not_sign_is_refused(bench: Bench) -> None:
    lent = bench.lend()
    toy = Toy(lent)
    statement = Statement.parse(toy.attest_statement(toy.take_challenge()), label=Label.ATTEST)
    forged = replace(statement, signature=bytes(64))
    assert lent.attest(forged.dump()).json()["code"] == "signature_invalid"


@pytest.mark.parametrize("kem_pub", [bytes(1216), b"short", b"\xff" * 1216])
def test_a_bad_kem_key_gets_no_key_whatever_the_evidence_says(bench: Bench, kem_pub: bytes) -> None:
    lent = bench.lend()
    toy = Toy(lent)
    toy.kem_pub = kem_pub
    answer = lent.attest(toy.attest_statement(toy.take_challenge()))
    assert answer.status_code in {400, 403}
    assert not lent.show()["instances"]


def test_a_tee_that_no_build_knows_is_unsupported(bench: Bench) -> None:
    lent = bench.lend()
    toy = Toy(lent)
    evidence = Evidence(tee=TeeKind("sgx"), payload=b"quote")
    answer = lent.attest(toy.attest_statement(toy.take_challenge(), evidence=evidence))
    assert (answer.status_code, answer.json()["code"]) == (422, "unsupported_tee")


def test_evidence_that_does_not_parse_is_malformed_and_logged(bench: Bench) -> None:
    lent = bench.lend()
    toy = Toy(lent)
    evidence = Evidence(tee=TeeKind("simulated"), payload=b"noise")
    answer = lent.attest(toy.attest_statement(toy.take_challenge(), evidence=evidence))
    assert answer.status_code == 400
    assert bench.audit()[-1]["details"]["codes"] == "malformed"


def test_release_refused_when_the_loan_is_blocked(bench: Bench) -> None:
    lent = bench.lend()
    bench.post("/v1/blocks", {"kind": "loan", "subject": lent.id, "reason": "late payment"})
    toy = Toy(lent)
    answer = lent.attest(toy.attest_statement(toy.take_challenge()))
    assert (answer.status_code, answer.json()["code"]) == (403, "blocked")


def test_release_refused_when_the_only_model_is_withdrawn(bench: Bench) -> None:
    lent = bench.lend()
    bench.post(f"/v1/models/{bench.digest}/withdraw")
    toy = Toy(lent)
    assert lent.attest(toy.attest_statement(toy.take_challenge())).json()["code"] == "blocked"


def test_release_refused_when_the_allowance_is_zero(bench: Bench) -> None:
    lent = bench.lend(allowance=0)
    toy = Toy(lent)
    answer = lent.attest(toy.attest_statement(toy.take_challenge()))
    assert (answer.status_code, answer.json()["code"]) == (402, "allowance_exhausted")


def test_release_refused_beyond_the_instances_a_loan_may_have(bench: Bench) -> None:
    lent = bench.lend(max_instances=2)
    lent.boot()
    lent.boot()
    toy = Toy(lent)
    assert lent.attest(toy.attest_statement(toy.take_challenge())).json()["code"] == "too_many_instances"


class _BlocksInBetween:
    """A scheme that lets the owner block the loan while the evidence is being verified (T90)."""

    def __init__(self, inner: object, act: object) -> None:
        self._inner, self._act = inner, act

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def verify(self, *arguments: object) -> object:
        claims = self._inner.verify(*arguments)  # type: ignore[attr-defined]
        self._act()  # type: ignore[operator]
        return claims


def _between(bench: Bench, act: object) -> None:
    schemes = bench.service.context.verifier._schemes
    schemes[TeeKind("simulated")] = _BlocksInBetween(schemes[TeeKind("simulated")], act)  # type: ignore[assignment]


def test_a_block_between_attestation_and_grant_wins(bench: Bench) -> None:
    lent = bench.lend()
    _between(bench, lambda: bench.post("/v1/blocks", {"kind": "loan", "subject": lent.id, "reason": ""}))
    toy = Toy(lent)
    assert lent.attest(toy.attest_statement(toy.take_challenge())).json()["code"] == "blocked"
    assert "key_released" not in bench.kinds()


def test_a_policy_changed_between_attestation_and_grant_wins(bench: Bench) -> None:
    lent = bench.lend()
    stricter = simulated_policy(SOFTWARE, version=2).to_json()
    _between(bench, lambda: bench.post(f"/v1/loans/{lent.id}/policy", {"policy": stricter}))
    toy = Toy(lent)
    assert lent.attest(toy.attest_statement(toy.take_challenge())).json()["code"] == "policy_changed"


def test_instance_of_one_loan_cannot_attest_for_another(bench: Bench) -> None:
    """T42: neither the token nor the path moves an instance to somebody else's allowance."""
    mine, theirs = bench.lend(), bench.lend()
    toy = Toy(mine)
    statement = toy.attest_statement(toy.take_challenge())
    assert theirs.attest(statement, token=mine.token).status_code == 404
    assert theirs.attest(statement).json()["code"] == "wrong_loan"
    assert not theirs.show()["instances"]


def test_no_key_leaves_without_its_entry_and_refusals_have_theirs(bench: Bench) -> None:
    lent = bench.lend()
    toy = lent.boot()
    released = [entry for entry in bench.audit() if entry["kind"] == "key_released"]
    assert [entry["subject"] for entry in released] == [toy.id]
    assert released[0]["details"]["model"] == bench.digest
    bad = Toy(lent, debug=True)
    lent.attest(bad.attest_statement(bad.take_challenge()))
    last = bench.audit()[-1]
    assert last["kind"] == "attestation_refused"
    assert "debug_enabled" in last["details"]["codes"]


def test_no_audit_no_answer(bench: Bench) -> None:
    """Where the checkpoint cannot be written no key leaves, and the refusal says to try again."""
    lent = bench.lend()
    toy = Toy(lent)
    statement = toy.attest_statement(toy.take_challenge())
    checkpoint = bench.home / "checkpoint.json"
    checkpoint.unlink()
    checkpoint.mkdir()
    (checkpoint / "in-the-way").write_bytes(b"")
    answer = lent.attest(statement)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    (checkpoint / "in-the-way").unlink()
    checkpoint.rmdir()


def test_an_empty_reference_set_is_no_policy(bench: Bench) -> None:
    policy = simulated_policy(SOFTWARE).to_json()
    policy["tees"]["simulated"]["measurement"] = {"one_of": []}  # type: ignore[index, call-overload]
    answer = bench.post("/v1/loans", bench.loan_body(policy=policy))
    assert answer.status_code == 400


def test_a_policy_without_a_rule_for_a_required_claim_admits_nobody(bench: Bench) -> None:
    policy = simulated_policy(SOFTWARE).to_json()
    del policy["tees"]["simulated"]["measurement"]  # type: ignore[index, union-attr]
    lent = Lent(bench, bench.post("/v1/loans", bench.loan_body(policy=policy)).json())
    toy = Toy(lent)
    answer = lent.attest(toy.attest_statement(toy.take_challenge()))
    assert "policy_incomplete" in {item["code"] for item in answer.json()["reasons"]}


def test_open_challenges_of_a_loan_are_bounded(bench: Bench) -> None:
    lent = bench.lend()
    answers = [lent.challenge().status_code for _ in range(70)]
    assert answers[:60] == [200] * 60
    assert answers[-1] == 429


def test_reference_values_of_other_software_refuse(bench: Bench) -> None:
    other = simulated_policy(replace(SOFTWARE, python="3.13"))
    lent = bench.lend(policy=other.to_json())
    toy = Toy(lent)
    answer = lent.attest(toy.attest_statement(toy.take_challenge()))
    assert {"measurement_mismatch", "host_data_mismatch"} & {item["code"] for item in answer.json()["reasons"]}
