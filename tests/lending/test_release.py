"""Who gets a key: every reason to say no, all at once, and what a released key is bound to (T3, T20, T42)."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cloister.attest.rats import AttestationResult, Evidence, Nonce, TeeKind, TrustTier
from cloister.crypto.sign import SigningKey, Statement
from cloister.errors import Malformed, Rejected
from cloister.lending.messages import AttestRequest, Grant
from cloister.lending.release import Denied, Grantable, decide, key_info, register, verify_attest, verify_grant
from cloister.lending.state import InstanceState, InstanceStatus, LoanState
from cloister.lending.terms import LOAN_METER, InstanceId, LoanId, ModelDigest, ModelTerms, Terms, instance_id

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = "c" * 64
CUSTODIAN = SigningKey(b"c" * 32)
KEY = SigningKey(b"i" * 32)
MODELS = (
    ModelTerms(name="one", digest=ModelDigest("1" * 64)),
    ModelTerms(name="two", digest=ModelDigest("2" * 64)),
)
TERMS = Terms(loan=LoanId("loan-" + "a" * 16), borrower="b", models=MODELS, consumers=None, max_instances=2)
LOAN = LoanState(terms=TERMS, balances={LOAN_METER: 5}, policy_digest=POLICY, block_version=1)
REQUEST = AttestRequest(
    loan=TERMS.loan,
    nonce=Nonce(bytes(32)),
    instance_pub=KEY.verify_key,
    kem_id=0x647A,
    kem_pub=b"k" * 32,
    evidence=Evidence(tee=TeeKind("simulated"), payload=b"e"),
    software=b"{}",
)
RESULT = AttestationResult(
    tee=TeeKind("simulated"),
    claims={"debug": False, "migratable": False},
    checks=(),
    bound={
        "custodian": CUSTODIAN.verify_key.raw,
        "instance_pub": KEY.verify_key.raw,
        "kem_pub": b"k" * 32,
        "software": b"{}",
    },
    tier=TrustTier.AFFIRMING,
    policy_digest=POLICY,
    verified_at=NOW,
)


def judged(
    *,
    request: AttestRequest = REQUEST,
    result: AttestationResult = RESULT,
    loan: LoanState = LOAN,
    instances: tuple[InstanceState, ...] = (),
    now: datetime = NOW,
    quiet_until: datetime | None = None,
    kept_kem: bool = False,
) -> Grantable | Denied:
    return decide(
        request,
        result,
        loan=loan,
        instances=instances,
        custodian=CUSTODIAN.verify_key,
        now=now,
        max_age=timedelta(seconds=60),
        quiet_until=quiet_until,
        kept_kem=kept_kem,
    )


def instance(name: bytes, **members: object) -> InstanceState:
    key = SigningKey(name * 32).verify_key
    state = InstanceState(
        id=instance_id(key.raw),
        loan=TERMS.loan,
        key=key,
        epoch=1,
        policy_digest=POLICY,
        attested_at=NOW,
        committed_at=NOW,
        dead_at=NOW + timedelta(seconds=61),
    )
    return replace(state, **members)  # type: ignore[arg-type]  # names are the caller's


def codes(verdict: Grantable | Denied) -> list[str]:
    assert isinstance(verdict, Denied)
    return [reason.code for reason in verdict.reasons]


def test_a_fit_enclave_gets_the_keys_for_the_keys_in_its_evidence() -> None:
    verdict = judged()
    assert isinstance(verdict, Grantable)
    assert verdict.instance == instance_id(KEY.verify_key.raw)
    assert (verdict.kem_id, verdict.kem_pub) == (0x647A, b"k" * 32)
    assert verdict.models == MODELS
    state = register(verdict, loan=LOAN, epoch=3, now=NOW)
    assert (state.limits, state.used, state.seq, state.epoch) == ({}, {}, 0, 3)


def test_release_refused_when_the_loan_is_blocked() -> None:
    assert codes(judged(loan=replace(LOAN, blocked=True))) == ["blocked"]


def test_release_refused_when_every_model_is_blocked_and_narrowed_when_one_is() -> None:
    one = replace(LOAN, blocked_models=frozenset({MODELS[0].digest}))
    verdict = judged(loan=one)
    assert isinstance(verdict, Grantable)
    assert verdict.models == MODELS[1:]
    every = frozenset(model.digest for model in MODELS)
    assert codes(judged(loan=replace(LOAN, blocked_models=every))) == ["blocked"]


def test_release_refused_when_nothing_is_left() -> None:
    assert codes(judged(loan=replace(LOAN, balances={LOAN_METER: 0}))) == ["allowance_exhausted"]
    assert codes(judged(loan=replace(LOAN, balances={}))) == ["allowance_exhausted"]


@pytest.mark.parametrize("name", ["custodian", "instance_pub", "kem_pub", "software"])
def test_t3_t5_t6_release_refused_when_the_evidence_binds_something_else(name: str) -> None:
    other = replace(RESULT, bound={**RESULT.bound, name: b"x" * 32})
    assert codes(judged(result=other)) == ["binding_mismatch"]
    missing = replace(RESULT, bound={key: value for key, value in RESULT.bound.items() if key != name})
    assert codes(judged(result=missing)) == ["binding_mismatch"]


def test_release_refused_for_another_loan() -> None:
    assert codes(judged(request=replace(REQUEST, loan=LoanId("loan-" + "b" * 16)))) == ["wrong_loan"]


@pytest.mark.parametrize("tier", [TrustTier.NONE, TrustTier.CONTRAINDICATED])
def test_release_refused_for_evidence_that_is_not_trusted(tier: TrustTier) -> None:
    assert codes(judged(result=replace(RESULT, tier=tier))) == ["evidence_not_trusted"]


@pytest.mark.parametrize("seconds", [-1, 60, 10**6])
def test_release_refused_for_a_result_of_another_time(seconds: int) -> None:
    assert codes(judged(now=NOW + timedelta(seconds=seconds))) == ["evidence_too_old"]


def test_release_refused_when_the_policy_changed_in_between() -> None:
    assert codes(judged(loan=replace(LOAN, policy_digest="d" * 64))) == ["policy_changed"]


def test_release_refused_beyond_the_number_of_instances_and_for_the_dead_no_more() -> None:
    two = (instance(b"1"), instance(b"2"))
    assert codes(judged(instances=two)) == ["too_many_instances"]
    assert isinstance(judged(instances=(two[0], replace(two[1], written_off=True))), Grantable)
    dead = (two[0], replace(two[1], dead_at=NOW))
    assert isinstance(judged(instances=dead), Grantable)
    blocked = (two[0], replace(two[1], status=InstanceStatus.BLOCKED))
    assert codes(judged(instances=blocked)) == ["too_many_instances"]  # it may serve until its lease ends


def test_release_refused_to_a_key_that_was_here_before() -> None:
    assert codes(judged(instances=(instance(b"i", written_off=True),))) == ["instance_known"]


ROLLED = replace(LOAN, terms=replace(TERMS, models=(replace(MODELS[0], replaces=(ModelDigest("0" * 64),)), MODELS[1])))


def test_a_running_instance_attests_again_while_a_newer_version_is_rolled_out() -> None:
    own = instance(b"i")
    verdict = judged(loan=ROLLED, instances=(own, instance(b"2")), kept_kem=True)  # it takes no second place
    assert isinstance(verdict, Grantable)
    assert verdict.again == own
    assert [model.digest for model in verdict.models] == ["1" * 64, "2" * 64]  # never the version that was replaced
    leased = replace(ROLLED, balances={LOAN_METER: 0})
    assert isinstance(judged(loan=leased, instances=(own,), kept_kem=True), Grantable)


@pytest.mark.parametrize(
    ("members", "loan", "kept"),
    [
        ({}, LOAN, True),  # nothing is rolled out
        ({}, ROLLED, False),  # another KEM key: another process with the same instance key
        ({"status": InstanceStatus.BLOCKED}, ROLLED, True),
        ({"status": InstanceStatus.FORKED}, ROLLED, True),
        ({"written_off": True}, ROLLED, True),
        ({"dead_at": NOW}, ROLLED, True),
        ({"loan": LoanId("loan-" + "b" * 16)}, ROLLED, True),
    ],
)
def test_nobody_else_attests_twice(members: dict[str, object], loan: LoanState, *, kept: bool) -> None:
    assert "instance_known" in codes(judged(loan=loan, instances=(instance(b"i", **members),), kept_kem=kept))


def test_a_rollout_opens_nothing_that_a_block_has_closed() -> None:
    own = (instance(b"i"),)
    assert codes(judged(loan=replace(ROLLED, blocked=True), instances=own, kept_kem=True)) == ["blocked"]
    newer = replace(ROLLED, blocked_models=frozenset({ModelDigest("1" * 64)}))
    verdict = judged(loan=newer, instances=own, kept_kem=True)
    assert isinstance(verdict, Grantable)
    assert [model.name for model in verdict.models] == ["two"]


def test_release_refused_while_recovering() -> None:
    assert codes(judged(quiet_until=NOW + timedelta(seconds=1))) == ["recovering"]
    assert isinstance(judged(quiet_until=NOW), Grantable)


def test_a_refusal_carries_every_reason() -> None:
    verdict = judged(
        request=replace(REQUEST, loan=LoanId("loan-" + "b" * 16)),
        result=replace(RESULT, tier=TrustTier.NONE, policy_digest="d" * 64, bound={}),
        loan=replace(LOAN, blocked=True, balances={}),
        instances=(instance(b"1"), instance(b"2")),
        now=NOW + timedelta(hours=1),
        quiet_until=NOW + timedelta(hours=2),
    )
    assert set(codes(verdict)) == {
        "wrong_loan",
        "binding_mismatch",
        "evidence_not_trusted",
        "evidence_too_old",
        "policy_changed",
        "blocked",
        "allowance_exhausted",
        "recovering",
    }


def test_t20_a_key_is_bound_to_model_loan_instance_and_version() -> None:
    models = (ModelDigest("1" * 64), ModelDigest("2" * 64))
    loans = (LoanId("loan-" + "a" * 16), LoanId("loan-" + "b" * 16))
    instances = (InstanceId("3" * 64), InstanceId("4" * 64))
    infos = {
        key_info(model=model, loan=loan, instance=name, key_version=version)
        for model, loan, name, version in itertools.product(models, loans, instances, (1, 2))
    }
    assert len(infos) == 16


def test_an_attest_request_is_signed_by_the_key_it_names() -> None:
    payload = REQUEST.dump()
    request, _ = verify_attest(Statement.sign(KEY, AttestRequest.LABEL, payload).dump())
    assert request == REQUEST
    with pytest.raises(Rejected, match="unknown_key"):
        verify_attest(Statement.sign(CUSTODIAN, AttestRequest.LABEL, payload).dump())
    forged = replace(Statement.sign(CUSTODIAN, AttestRequest.LABEL, payload), key_id=KEY.key_id)
    with pytest.raises(Rejected, match="signature_invalid"):
        verify_attest(forged.dump())
    with pytest.raises(Malformed):
        verify_attest(Statement.sign(KEY, AttestRequest.LABEL, b"{}").dump())


def test_a_grant_is_taken_as_the_answer_to_our_own_request_only() -> None:
    grant = Grant(
        instance=instance_id(KEY.verify_key.raw),
        request_digest=b"d" * 32,
        epoch=1,
        terms=TERMS,
        policy_digest=POLICY,
        result="ear",
        publisher=CUSTODIAN.verify_key,
        keys=(),
        block_version=1,
    )
    statement = Statement.sign(CUSTODIAN, Grant.LABEL, grant.dump()).dump()
    ours = {"custodian": CUSTODIAN.verify_key, "request_digest": b"d" * 32, "instance": grant.instance}
    assert verify_grant(statement, **ours) == grant  # type: ignore[arg-type]  # by name
    wrong = {
        "unknown_key": {**ours, "custodian": KEY.verify_key},
        "wrong_request": {**ours, "request_digest": b"e" * 32},
        "wrong_instance": {**ours, "instance": "0" * 64},
    }
    for code, changed in wrong.items():
        with pytest.raises(Rejected) as caught:
            verify_grant(statement, **changed)  # type: ignore[arg-type]  # by name
        assert caught.value.code == code
