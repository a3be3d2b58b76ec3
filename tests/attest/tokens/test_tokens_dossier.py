"""Tokens judged from files: anchors of every form, every member of an index's policy, and what is said of refusals."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cloister.attest.dossier import Judgement, judge
from cloister.attest.dossier.token import open_case
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import TeeKind
from cloister.attest.rules import Exact
from cloister.errors import Malformed, Unavailable
from cloister.testing.vendors.tokens import TokenVendor, claims

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
VENDORS = {kind: TokenVendor.generate(TeeKind(kind)) for kind in ("maa", "ita", "confidential-space", "nras", "ear")}
BOUND = {"confidential-space": bytes(range(32)), "nras": bytes(range(32))}


def judged(
    kind: str,
    policy: dict[str, Any] | None = None,
    *,
    token: bytes | None = None,
    now: datetime = NOW,
    said: dict[str, Any] | None = None,
) -> Judgement:
    vendor = VENDORS[kind]
    report_data = BOUND.get(kind, bytes(range(64)))
    if token is None:
        payload = {**vendor.claims(report_data, NOW), **(said or {})}
        token = vendor.bundle(payload, [gpu()]) if kind == "nras" else vendor.sign(payload)
    keys = vendor.root.pem if kind == "confidential-space" else vendor.jwks()
    return judge(open_case({"token": token, "keys": keys}, policy or {}), now)


def gpu(**members: Any) -> dict[str, Any]:
    return {**claims.gpu_claims(BOUND["nras"]), "iss": VENDORS["nras"].issuer, **members}


def codes(judgement: Judgement) -> set[str]:
    return {reason.code for reason in judgement.reasons}


@pytest.mark.parametrize("kind", VENDORS)
def test_a_token_is_accepted_by_the_keys_beside_it(kind: str) -> None:
    judgement = judged(kind)
    assert codes(judgement) == set()
    assert {"alg", "exp", "iss"} < set(judgement.claims)


@pytest.mark.parametrize("kind", VENDORS)
def test_of_a_refused_token_only_the_frame_is_said(kind: str) -> None:
    judgement = judged(kind, now=NOW + timedelta(days=1))
    assert "token_expired" in codes(judgement)
    assert set(judgement.claims) == {"alg", "exp", "iss"}


def test_debugging_is_refused_by_default_and_allowed_by_the_policy() -> None:
    assert codes(judged("confidential-space", said={"dbgstat": "enabled"})) == {"debug_enabled"}
    assert codes(judged("confidential-space", {"allow_debug": True}, said={"dbgstat": "enabled"})) == set()
    assert codes(judged("confidential-space", {"allow_debug": False}, said={"dbgstat": "enabled"})) == {"debug_enabled"}
    assert codes(judged("maa", said={"x-ms-sevsnpvm-is-debuggable": True})) == {"debug_enabled"}


def test_a_failed_verdict_of_the_issuer_is_refused_by_default() -> None:
    assert codes(judged("nras", said={"x-nvidia-overall-att-result": False})) == {"result_mismatch"}
    bundle = VENDORS["nras"].bundle(VENDORS["nras"].claims(BOUND["nras"], NOW), [gpu(dbgstat="enabled")])
    assert codes(judged("nras", token=bundle)) == {"debug_enabled"}


def test_an_unknown_issuer_is_judged_by_signature_time_and_debugging() -> None:
    vendor = VENDORS["maa"]
    said: dict[str, Any] = {
        "exp": int(NOW.timestamp()) + 60,
        "iss": "AS",
        "nonce": "n",
        "jwk": vendor.jwk(certified=False),
    }
    plain = vendor.sign(said)
    assert codes(judged("maa", {"nonce": "n", "algorithms": "RS256"}, token=plain)) == set()
    assert set(judged("maa", token=plain).claims) == {"alg", "exp", "iss", "nonce", "jwk"}
    assert codes(judged("maa", token=vendor.sign({**said, "sgx_is_debuggable": True}))) == {"debug_enabled"}
    assert codes(judged("maa", token=vendor.sign({**said, "dbgstat": "enabled"}))) == {"debug_enabled"}
    assert codes(judged("ita", token=plain)) == {"algorithm_not_allowed"}


def test_a_token_that_brings_its_own_key_is_trusted_by_nobody() -> None:
    vendor = VENDORS["ear"]
    said = {**vendor.claims(bytes(64), NOW), "jwk": vendor.jwk(certified=False)}
    token = vendor.sign(said, header={"jwk": vendor.jwk(certified=False), "x5c": vendor.x5c})
    assert codes(judge(open_case({"token": token}, {}), NOW)) == {"untrusted_root"}
    assert codes(judge(open_case({"token": vendor.sign(said)}, {}), NOW)) == {"untrusted_root"}


def test_a_key_that_is_not_in_the_file_is_a_signature_that_does_not_hold() -> None:
    token = VENDORS["maa"].sign(VENDORS["maa"].claims(bytes(64), NOW), header={"kid": "rotated"})
    assert codes(judged("maa", token=token)) == {"signature_invalid"}


POLICIES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("maa", {"algorithms": ["RS256"]}, {"algorithms": ["PS256"]}),
    ("maa", {"algorithms": ["RS256", "HS256"]}, {"algorithms": ["HS256", "none"]}),
    ("confidential-space", {"aud": claims.CS_AUDIENCE}, {"aud": "https://example.test"}),
    ("confidential-space", {"audience": ["x", claims.CS_AUDIENCE]}, {"audience": ["x"]}),
    ("maa", {"iss": VENDORS["maa"].issuer}, {"issuer": "https://other.attest.azure.net"}),
    ("confidential-space", {"nonce": BOUND["nras"].hex()}, {"nonce": "00" * 32}),
    ("confidential-space", {"eat_nonce": ["x", BOUND["nras"].hex()]}, {"challenge": "00"}),
    ("ear", {"nonce": bytes(range(64)).hex()}, {"nonce": "00" * 64}),
    ("maa", {"report_data": bytes(range(64)).hex()}, {"report_data": "00" * 64}),
    ("ita", {"report_data": "7e" * 64}, {"report_data": "7f" * 64}),
    ("maa", {"measurement": [claims.MEASUREMENT]}, {"measurement": ["00" * 48]}),
    ("maa", {"x-ms-sevsnpvm-launchmeasurement": claims.MEASUREMENT}, {"x-ms-sevsnpvm-launchmeasurement": "00"}),
    ("maa", {"min_guest_svn": 7}, {"min_guest_svn": 8}),
    ("maa", {"x-ms-sevsnpvm-vmpl": 0}, {"x-ms-sevsnpvm-vmpl": False}),
    ("ita", {"tcb_status_allowed": ["UpToDate"]}, {"tcb_status_allowed": ["OutOfDate"]}),
    ("ita", {"attester_tcb_status": "UpToDate"}, {"attester_tcb_status": ["OutOfDate"]}),
    ("confidential-space", {"hwmodel": "GCP_INTEL_TDX"}, {"hwmodel": ["GCP_AMD_SEV"]}),
    ("confidential-space", {"container.image_digest": claims.IMAGE_DIGEST}, {"container.image_digest": "sha256:00"}),
    (
        "confidential-space",
        {"confidential_space.support_attributes": ["STABLE"]},
        {"confidential_space.support_attributes": ["STABLE", "BEST"]},
    ),
    ("nras", {"hwmodel": ["GH100 A01 GSP BROM"]}, {"hwmodel": ["GB100"]}),
    ("ear", {"status": ["affirming"]}, {"status": ["warning"]}),
]


@pytest.mark.parametrize(("kind", "good", "bad"), POLICIES)
def test_every_member_of_a_policy_bites(kind: str, good: dict[str, Any], bad: dict[str, Any]) -> None:
    assert codes(judged(kind, good)) == set()
    assert codes(judged(kind, bad)) != set()


def test_mismatches_have_the_names_of_the_index() -> None:
    assert codes(judged("maa", {"nonce": "00"})) == {"nonce_mismatch"}
    assert codes(judged("maa", {"report_data": "00"})) == {"report_data_mismatch"}
    assert codes(judged("maa", {"aud": "us"})) == {"audience_mismatch"}
    assert codes(judged("maa", {"iss": "us"})) == {"issuer_mismatch"}
    assert codes(judged("maa", {"x-ms-sevsnpvm-hostdata": "us"})) == {"measurement_mismatch"}
    assert codes(judged("ita", {"tdx_mrtd": "00"})) == {"measurement_mismatch"}
    assert codes(judged("ita", {"attester_tcb_status": "a"})) == {"tcb_status_not_allowed"}
    assert codes(judged("ita", {"dbgstat": "enabled"})) == {"debug_enabled"}
    assert codes(judged("maa", {"x-ms-policy-hash": "a"})) == {"policy_hash_mismatch"}


@pytest.mark.parametrize(
    "policy",
    [
        {"nobody-understands": 1},
        {"algorithms": []},
        {"algorithms": [5]},
        {"aud": 5},
        {"aud": "a", "audience": "a"},
        {"nonce": 5},
        {"report_data": 5},
        {"allow_debug": "yes"},
        {"measurement": {}},
    ],
)
def test_a_member_nobody_understands_decides_nothing(policy: dict[str, Any]) -> None:
    with pytest.raises(Unavailable):
        judged("maa", policy)


def test_a_number_that_cannot_be_compared_decides_nothing() -> None:
    vendor = VENDORS["ear"]
    with pytest.raises(Unavailable):
        judged("ear", {"big": 1}, token=vendor.sign(b'{"big":9007199254740993}'))


def test_a_policy_of_the_callers_takes_the_place_of_the_defaults() -> None:
    vendor = VENDORS["confidential-space"]
    token = vendor.sign({**vendor.claims(bytes(32), NOW), "dbgstat": "enabled"})
    case = open_case({"token": token, "keys": vendor.root.pem}, {})
    tee = TeeKind("confidential-space")
    loose = Policy(version=1, tees={tee: TeePolicy({"debug": Exact(value=True)})})
    assert judge(case, NOW, loose).reasons == ()


def test_files_that_are_missing_or_too_many_decide_nothing() -> None:
    for files in ({}, {"keys": b""}, {"token": b"", "quote": b""}):
        with pytest.raises(Unavailable):
            open_case(files, {})


def test_a_token_file_may_end_in_a_newline_and_no_more() -> None:
    vendor = VENDORS["ear"]
    token = vendor.sign(vendor.claims(bytes(64), NOW))
    assert codes(judged("ear", token=token + b"\n")) == set()
    with pytest.raises(Malformed):
        judged("ear", token=token + b"\n\nmore")


def test_a_payload_that_was_tampered_with_is_a_bad_signature_before_it_is_bad_json() -> None:
    vendor = VENDORS["ear"]
    head, body, signature = vendor.sign(b'{"iss":"a"}').split(b".")
    tampered = b".".join((head, b"A" + body[1:], signature))
    judgement = judged("ear", token=tampered)
    assert codes(judgement) == {"signature_invalid"}
    assert judgement.claims == {"alg": "ES256", "exp": None, "iss": None}
    with pytest.raises(Malformed):
        judged("ear", token=vendor.sign(b"iss"))


def test_a_claim_out_of_form_is_malformed_here_too() -> None:
    with pytest.raises(Malformed):
        judged("maa", said={"x-ms-sevsnpvm-vmpl": "0"})


def test_what_an_index_says_of_known_tokens_is_chosen_and_of_others_all() -> None:
    azurevm = replace(VENDORS["maa"], kind=replace(VENDORS["maa"].kind, claims=claims.maa_azurevm_claims))
    token = azurevm.sign(azurevm.claims(bytes(64), NOW))
    assert set(judged("maa", token=token).claims) == {
        "alg",
        "exp",
        "iss",
        "secureboot",
        "x-ms-attestation-type",
        "x-ms-azurevm-vmid",
        "x-ms-policy-hash",
    }
    assert "x-ms-sevsnpvm-vmpl" in judged("maa").claims
