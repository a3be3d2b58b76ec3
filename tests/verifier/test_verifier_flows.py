"""Both models over a real socket: what an attester, a Relying Party and a reader of tokens see."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from verifier_kit import AUDIENCE, SIMULATED, Clock, Desk, desk, evidence_json

import vendor_kit
from cloister.attest.binding import ServiceBinding
from cloister.attest.devices import dump_devices
from cloister.attest.ear import SUBMOD
from cloister.attest.policy import Policy
from cloister.attest.rules import Exact
from cloister.attest.tokens.jws import Jws
from cloister.verifier.ring import Ring
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NONCE = b"relying party's nonce"


def claims_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Jws.parse(token.encode(), what="token", cap=1 << 20).payload)
    return found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk(tmp_path_factory.mktemp("home"), service="requests_per_minute = 100000") as found:
        yield found


def test_an_attester_takes_a_challenge_and_carries_a_result_away(served: Desk) -> None:
    nonce = served.nonce()
    answer = served.post("/v1/attest", served.asked(nonce=nonce, data=b"a public key", audience=AUDIENCE))
    assert answer.status_code == 200, answer.text
    said = answer.json()
    claims = claims_of(said["token"])
    assert (said["status"], said["id"]) == ("warning", claims["jti"])
    assert (claims["iss"], claims["aud"], claims["eat_nonce"]) == (served.url, AUDIENCE, dump_b64u(nonce))
    assert claims["nbf"] == claims["iat"]
    assert claims["exp"] - claims["iat"] == 300
    bound = claims["submods"][SUBMOD]["ear_verifier_claims"]["bound_sha256"]
    assert bound["data"] == hashlib.sha256(b"a public key").hexdigest()
    assert claims["submods"][SUBMOD]["ear_verifier_claims"]["checks"] == []  # brief, for readers that take few bytes
    assert len(said["token"]) < 2000


def test_a_relying_party_has_evidence_verified_over_a_nonce_of_its_own(served: Desk) -> None:
    answer = served.post("/v1/verify", served.asked(nonce=NONCE))
    claims = claims_of(answer.json()["token"])
    assert claims["eat_nonce"] == dump_b64u(NONCE)
    assert "aud" not in claims
    assert "sub" not in claims
    checks = claims["submods"][SUBMOD]["ear_verifier_claims"]["checks"]
    assert {check["subject"] for check in checks} >= {"report_data", "measurement", "report signature"}


def test_a_relying_party_may_bring_a_policy_and_gets_no_identity_by_it(served: Desk) -> None:
    side = served.sides[SIMULATED]
    body = {**served.asked(nonce=NONCE), "policy": side.policy.to_json()}
    claims = claims_of(served.post("/v1/verify", body).json()["token"])
    assert claims["submods"][SUBMOD]["ear_appraisal_policy_ids"] == [f"sha256:{side.policy.digest}"]
    assert "aud" not in claims
    assert served.post("/v1/verify", {**body, "audience": AUDIENCE}).json()["code"] == "malformed"
    attest = {**served.asked(), "policy": side.policy.to_json()}
    assert served.post("/v1/attest", attest).status_code == 400  # an attester does not choose what it is judged by


def test_a_nonce_as_other_attesters_put_it_is_accepted_where_somebody_says_so(served: Desk) -> None:
    body = served.asked(nonce=NONCE, binding="carried")
    assert served.post("/v1/verify", body).status_code == 200
    assert served.post("/v1/verify", {**body, "binding": "service"}).json()["code"] == "report_data_mismatch"
    assert served.post("/v1/verify", {**body, "data": dump_b64u(b"x")}).status_code == 400


def test_a_carried_nonce_that_is_longer_than_the_field_is_not_cut(tmp_path: Path) -> None:
    with desk(tmp_path, "tpm", clock=Clock(stands_at=vendor_kit.side("tpm").now)) as found:
        side = found.sides["tpm"]
        evidence = side.collect(b"n" * side.scheme.report_data_bytes)
        body = {"binding": "carried", "evidence": evidence_json(evidence), "policy": "tpm"}
        assert found.post("/v1/verify", {**body, "nonce": dump_b64u(b"n" * 32)}).status_code == 200
        answer = found.post("/v1/verify", {**body, "nonce": dump_b64u(b"n" * 33)})
        assert answer.json()["code"] == "report_data_mismatch"


def test_the_bare_token_comes_to_who_asks_for_it(served: Desk) -> None:
    answer = served.post("/v1/attest", served.asked(), accept="application/eat+jwt")
    assert answer.headers["content-type"] == "application/eat+jwt"
    assert claims_of(answer.text)["iss"] == served.url


def test_a_refusal_is_a_problem_or_a_token_that_says_no_and_is_nobodys_identity(served: Desk) -> None:
    body = served.asked(nonce=NONCE)
    wrong = {**body, "nonce": dump_b64u(b"another nonce")}
    problem = served.post("/v1/verify", wrong)
    assert (problem.status_code, problem.json()["code"]) == (403, "report_data_mismatch")
    assert problem.headers["content-type"] == "application/problem+json"
    answer = served.post("/v1/verify", {**wrong, "refusal": "token", "audience": AUDIENCE})
    assert (answer.status_code, answer.json()["status"]) == (200, "contraindicated")
    claims = claims_of(answer.json()["token"])
    appraisal = claims["submods"][SUBMOD]
    assert appraisal["ear_status"] == "contraindicated"
    assert appraisal["ear_attester_claims"] == {}
    assert [check["code"] for check in appraisal["ear_verifier_claims"]["checks"]] == ["report_data_mismatch"]
    assert "aud" not in claims
    assert "sub" not in claims


def test_what_nobody_here_can_read_is_no_verdict(served: Desk) -> None:
    body = served.asked(nonce=NONCE)
    answer = served.post("/v1/verify", {**body, "evidence": {**body["evidence"], "tee": "z80"}, "refusal": "token"})
    assert (answer.status_code, answer.json()["code"]) == (422, "unsupported_tee")


def test_the_subject_is_the_same_for_the_same_software_under_the_same_policy(served: Desk) -> None:
    one, two = (claims_of(served.token(audience=AUDIENCE))["sub"] for _ in range(2))
    assert one == two
    policy, tee, digest = one.split(":")
    measurement = vendor_kit.claims(SIMULATED).claims["measurement"]
    assert (policy, tee) == (SIMULATED, SIMULATED)
    assert digest == hashlib.sha256(f'{{"measurement":"{measurement}"}}'.encode()).hexdigest()
    assert len(one) <= 127


def test_composite_evidence_is_verified_whole(tmp_path: Path) -> None:
    """A CPU and its GPU: each a submodule, both over one challenge; the device's evidence is part of what is bound."""
    gpu, cpu = vendor_kit.side("nvidia-gpu"), vendor_kit.side("snp")
    with desk(tmp_path, "snp", "nvidia-gpu", clock=Clock(stands_at=vendor_kit.NOW)) as found:
        both = {**cpu.policy.tees, **gpu.policy.tees}
        policy = Policy(version=1, tees=both)
        loose = ServiceBinding(nonce=NONCE, data=b"key")
        device = gpu.collect(loose.device_field(gpu.scheme.report_data_bytes))
        whole = ServiceBinding(nonce=NONCE, data=b"key", devices=dump_devices([device]))
        body = {
            "data": dump_b64u(b"key"),
            "devices": [evidence_json(device)],
            "evidence": evidence_json(cpu.collect(whole.field(64))),
            "nonce": dump_b64u(NONCE),
            "policy": policy.to_json(),
        }
        answer = found.post("/v1/verify", body)
        assert answer.status_code == 200, answer.text
        assert set(claims_of(answer.json()["token"])["submods"]) == {SUBMOD, "nvidia-gpu0"}
        assert found.post("/v1/verify", {**body, "devices": []}).json()["code"] == "report_data_mismatch"


@pytest.mark.parametrize("name", [name for name in vendor_kit.NAMES if " " not in name])
def test_evidence_of_every_kind_gets_its_result(name: str, tmp_path: Path) -> None:
    with desk(tmp_path, name, clock=Clock(stands_at=vendor_kit.side(name).now)) as found:
        answer = found.post("/v1/attest", found.asked(name, audience=AUDIENCE))
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] in {"affirming", "warning"}
        tampered = found.asked(name)
        payload = tampered["evidence"]["payload"]
        middle = len(payload) // 2
        flipped = payload[:middle] + ("A" if payload[middle] != "A" else "B") + payload[middle + 1 :]
        answer = found.post("/v1/attest", {**tampered, "evidence": {**tampered["evidence"], "payload": flipped}})
        assert answer.status_code in {400, 403, 422}, answer.text


def test_keys_at_rest_are_private_and_never_printed(served: Desk) -> None:
    path = served.home / "signing-keys.json"
    assert path.stat().st_mode & 0o777 == 0o600
    ring = Ring.parse(path.read_bytes())
    assert "private" not in repr(ring)
    assert all(set(key.jwk()) == {"alg", "crv", "kid", "kty", "use", "x", "y"} for key in ring.keys)


def test_metrics_say_how_it_went_and_nothing_else(tmp_path: Path) -> None:
    with desk(tmp_path) as found:
        body = found.asked(nonce=NONCE)
        found.post("/v1/verify", body)
        found.post("/v1/verify", {**body, "nonce": dump_b64u(b"another nonce")})
        found.post("/v1/verify", b"{}")
        found.token()
        metrics = found.opened.metrics
        said = {
            (model, outcome): metrics.value("cloister_attestation_results_total", (model, outcome))
            for model in ("attest", "verify")
            for outcome in ("warning", "refused", "malformed", "undecided")
        }
        assert {key for key, value in said.items() if value} == {
            ("verify", "warning"), ("verify", "refused"), ("verify", "malformed"), ("attest", "warning"),
        }  # fmt: skip
        assert metrics.value("cloister_attestation_requests_total", ("verify", "4xx")) == 2
        assert metrics.value("cloister_attestation_running") == 0
        assert sum(metrics.bars("cloister_attestation_seconds", "verify").counts) == 3


def test_a_policy_that_refuses_says_every_reason(served: Desk) -> None:
    side = served.sides[SIMULATED]
    tee = side.policy.tees[side.tee]
    rules = {**tee.rules, "measurement": Exact("00" * 48), "debug": Exact(value=True)}
    policy = Policy(version=1, tees={side.tee: type(tee)(rules)})
    answer = served.post("/v1/verify", {**served.asked(nonce=NONCE), "policy": policy.to_json()})
    assert {item["code"] for item in answer.json()["reasons"]} == {"measurement_mismatch", "debug_enabled"}
