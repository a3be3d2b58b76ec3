"""The one procedure, attacked: own roots, other nonces, swapped keys, bad settings, missing rules."""

from __future__ import annotations

import json
import runpy
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloister.attest.binding import NO_DEVICES, ChannelBinding, ReleaseBinding, fold
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import (
    MAX_EVIDENCE_BYTES,
    Check,
    Evidence,
    Nonce,
    TeeKind,
    TrustTier,
    Verdict,
    VerifiedClaims,
)
from cloister.attest.rules import AtLeast, Exact, NotChecked, OneOf, Rule
from cloister.attest.schemes import production_schemes
from cloister.attest.software import SoftwareManifest
from cloister.attest.verifier import Verifier
from cloister.crypto.sign import VerifyKey
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.testing.simulated import (
    SIMULATED,
    SimulatedAttester,
    SimulatedRoot,
    SimulatedScheme,
    simulated_measurement,
    simulated_policy,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = datetime(2026, 7, 1, tzinfo=UTC)
ROOT = SimulatedRoot(b"\x01" * 32)
SOFTWARE = SoftwareManifest(
    code="ab" * 32, python="3.11.9", packages={"numpy": "2.2.0"}, settings={"max_batch": 8, "profile": "production"}
)
POLICY = simulated_policy(SOFTWARE)
VERIFIER = Verifier([SimulatedScheme(ROOT.public)])
RELEASE = ReleaseBinding(
    nonce=Nonce(b"\x11" * 32),
    custodian=b"\x12" * 32,
    instance_pub=b"\x13" * 32,
    kem_pub=b"\x14" * 1216,
    software=SOFTWARE.dump(),
)
CHANNEL = ChannelBinding(nonce=Nonce(b"\x21" * 32), keyset=b'{"v":1}', devices=NO_DEVICES)
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "evidence-simulated" / "vectors.json").read_text())


def _attester(software: SoftwareManifest = SOFTWARE, **claims: Any) -> SimulatedAttester:
    return SimulatedAttester(ROOT, software, b"\x0c" * 32, **claims)


def _collect(binding: ReleaseBinding | ChannelBinding, attester: SimulatedAttester | None = None) -> Evidence:
    return (attester or _attester()).collect(fold(binding.report_data(), field_bytes=64))


def _codes(
    evidence: Evidence,
    binding: ReleaseBinding | ChannelBinding = RELEASE,
    policy: Policy = POLICY,
    verifier: Verifier = VERIFIER,
) -> list[str]:
    with pytest.raises(Rejected) as refused:
        verifier.verify(evidence, binding, policy, NOW)
    return [reason.code for reason in refused.value.reasons]


def _with_rule(name: str, rule: Rule | None) -> Policy:
    rules = {**POLICY.tees[SIMULATED].rules}
    if rule is None:
        del rules[name]
    else:
        rules[name] = rule
    return Policy(version=1, tees={SIMULATED: TeePolicy(rules)})


# The vectors: written by another implementation from the specification alone.


@pytest.mark.parametrize("vector", VECTORS["cases"], ids=lambda vector: vector["name"])
def test_vector(vector: dict[str, Any]) -> None:
    vector = {**VECTORS["defaults"], **vector}
    parts = {name: bytes.fromhex(value) for name, value in vector["binding"].items()}
    binding = (ReleaseBinding if "kem_pub" in parts else ChannelBinding)(**parts)
    verifier = Verifier([SimulatedScheme(VerifyKey(bytes.fromhex(VECTORS["root"])))])
    policy = Policy.from_json(vector["policy"])
    evidence = Evidence(tee=SIMULATED, payload=bytes.fromhex(vector["evidence"]))
    try:
        result = verifier.verify(evidence, binding, policy, datetime.fromtimestamp(vector["now"], UTC))
        outcome = [result.tier.value]
    except Malformed:
        outcome = ["Malformed"]
    except Rejected as refused:
        outcome = [reason.code for reason in refused.reasons]
    assert outcome == vector["expect"]


def test_most_vectors_are_bad() -> None:
    good = [vector for vector in VECTORS["cases"] if vector["expect"] == ["warning"]]
    assert len(good) * 5 < len(VECTORS["cases"])


# What a good result says.


@pytest.mark.parametrize("binding", [RELEASE, CHANNEL], ids=["release", "channel"])
def test_honest_evidence_gives_a_result_that_says_everything_that_was_done(
    binding: ReleaseBinding | ChannelBinding,
) -> None:
    result = VERIFIER.verify(_collect(binding), binding, POLICY, NOW)
    assert (result.tee, result.policy_digest, result.verified_at) == (SIMULATED, POLICY.digest, NOW)
    assert result.claims["measurement"] == simulated_measurement(SOFTWARE)
    assert result.bound == binding.bound()
    assert {check.verdict for check in result.checks} == {Verdict.PASSED, Verdict.NOT_CHECKED}
    named = {check.subject for check in result.checks}
    assert {"report signature", "report_data", "measurement", "debug", "migratable", "svn", "chip_id"} <= named


def test_relying_parties_find_the_keys_in_the_result() -> None:
    result = VERIFIER.verify(_collect(RELEASE), RELEASE, POLICY, NOW)
    assert (result.bound["kem_pub"], result.bound["instance_pub"]) == (RELEASE.kem_pub, RELEASE.instance_pub)


def test_what_was_not_checked_stays_in_the_result_with_its_reason_and_lowers_the_tier() -> None:
    result = VERIFIER.verify(_collect(RELEASE), RELEASE, POLICY, NOW)
    skipped = {check.subject: check.note for check in result.checks if check.verdict is Verdict.NOT_CHECKED}
    assert skipped["chip_id"] == "simulated chips have no identity worth checking"
    assert "SIMULATED" in skipped["hardware"]
    assert result.tier is TrustTier.WARNING


def test_a_simulated_tee_is_never_affirmed_even_with_every_claim_checked() -> None:
    result = VERIFIER.verify(_collect(RELEASE), RELEASE, _with_rule("chip_id", Exact((b"\x0c" * 32).hex())), NOW)
    assert result.tier is TrustTier.WARNING


# T1 to T18.


def test_t1_evidence_under_a_home_made_root_is_refused() -> None:
    theirs = SimulatedAttester(SimulatedRoot(b"\x02" * 32), SOFTWARE, b"\x0c" * 32)
    assert _codes(_collect(RELEASE, theirs)) == ["untrusted_root"]


def test_t2_evidence_with_the_report_data_of_another_nonce_is_refused() -> None:
    yesterday = _collect(replace(RELEASE, nonce=Nonce(b"\x10" * 32)))
    assert _codes(yesterday) == ["report_data_mismatch"]


def test_t3_evidence_for_another_custodian_is_refused() -> None:
    assert _codes(_collect(replace(RELEASE, custodian=b"\x99" * 32))) == ["report_data_mismatch"]


@pytest.mark.parametrize("field", ["nonce", "custodian", "instance_pub", "kem_pub", "software"])
def test_t5_t6_a_flipped_bit_in_any_bound_field_is_refused(field: str) -> None:
    evidence = _collect(RELEASE)
    value = getattr(RELEASE, field)
    for bit in {*range(8), *range(8 * len(value) - 8, 8 * len(value)), *range(0, 8 * len(value), 61)}:
        flipped = bytearray(value)
        flipped[bit // 8] ^= 1 << bit % 8
        assert "report_data_mismatch" in _codes(evidence, replace(RELEASE, **{field: bytes(flipped)}))


@pytest.mark.parametrize("field", ["nonce", "keyset"])
def test_t5_a_flipped_bit_in_what_a_consumer_relies_on_is_refused(field: str) -> None:
    evidence = _collect(CHANNEL)
    value = getattr(CHANNEL, field)
    for bit in range(8 * len(value)):
        flipped = bytearray(value)
        flipped[bit // 8] ^= 1 << bit % 8
        assert _codes(evidence, replace(CHANNEL, **{field: bytes(flipped)})) == ["report_data_mismatch"]


def test_t5_bytes_moved_between_bound_fields_are_refused() -> None:
    moved = replace(RELEASE, instance_pub=RELEASE.instance_pub + RELEASE.kem_pub[:1], kem_pub=RELEASE.kem_pub[1:])
    assert _codes(_collect(RELEASE), moved) == ["report_data_mismatch"]


def test_t8_a_security_version_below_the_minimum_is_refused() -> None:
    policy = _with_rule("svn", AtLeast(3))
    VERIFIER.verify(_collect(RELEASE, _attester(svn=3)), RELEASE, policy, NOW)
    with pytest.raises(Rejected) as refused:
        VERIFIER.verify(_collect(RELEASE, _attester(svn=2)), RELEASE, policy, NOW)
    assert [(r.code, r.got, r.want) for r in refused.value.reasons] == [("svn_too_low", "2", "at least 3")]


@pytest.mark.parametrize(("claim", "code"), [("debug", "debug_enabled"), ("migratable", "migratable")])
def test_t9_a_debug_or_migratable_enclave_is_refused(claim: str, code: str) -> None:
    assert _codes(_collect(RELEASE, _attester(**{claim: True}))) == [code]


def test_t9_the_production_table_does_not_know_the_simulated_tee() -> None:
    production = Verifier(production_schemes())
    assert SIMULATED not in production.tees
    assert _codes(_collect(RELEASE), verifier=production) == ["unsupported_tee"]


def test_t9_simulated_evidence_is_refused_where_the_policy_does_not_name_it() -> None:
    tpm_only = Policy(version=1, tees={TeeKind("tpm"): TeePolicy({"device": Exact("d1")})})
    with pytest.raises(Rejected) as refused:
        VERIFIER.verify(_collect(RELEASE), RELEASE, tpm_only, NOW)
    assert [(r.code, r.got, r.want) for r in refused.value.reasons] == [("tee_not_allowed", "simulated", "tpm")]


def test_t10_one_changed_setting_is_another_digest_and_refused() -> None:
    changed = replace(SOFTWARE, settings={"max_batch": 9999, "profile": "production"})
    binding = replace(RELEASE, software=changed.dump())
    assert _codes(_collect(binding, _attester(changed)), binding) == ["host_data_mismatch"]


def test_t10_settings_that_are_sent_but_not_measured_are_refused() -> None:
    lie = replace(RELEASE, software=replace(SOFTWARE, settings={}).dump())
    assert _codes(_collect(lie), lie) == ["software_mismatch"]


def test_t12_a_chip_that_is_not_listed_is_refused() -> None:
    policy = _with_rule("chip_id", OneOf(("aa" * 32, "bb" * 32)))
    assert _codes(_collect(RELEASE), policy=policy) == ["chip_id_mismatch"]


def test_t18_a_required_claim_without_a_rule_is_refused() -> None:
    for name in sorted(SimulatedScheme.required):
        assert _codes(_collect(RELEASE), policy=_with_rule(name, None)) == ["policy_incomplete"]


def test_t18_a_rule_for_a_claim_that_nobody_makes_is_refused() -> None:
    for rule in (Exact("x"), OneOf(("x",)), AtLeast(0), NotChecked("a slip of the pen")):
        assert _codes(_collect(RELEASE), policy=_with_rule("measurment", rule)) == ["claim_missing"]


def test_t53_a_consumer_with_its_own_policy_refuses_the_image_its_custodian_likes() -> None:
    leaking = replace(SOFTWARE, code="cd" * 32)
    evidence = _collect(CHANNEL, _attester(leaking))
    VERIFIER.verify(evidence, CHANNEL, simulated_policy(leaking), NOW)
    assert _codes(evidence, CHANNEL) == ["host_data_mismatch", "measurement_mismatch"]


def test_every_mismatch_is_named_with_got_and_want_not_only_the_first() -> None:
    changed = replace(SOFTWARE, code="cd" * 32, settings={})
    evidence = _collect(
        replace(RELEASE, nonce=Nonce(bytes(32))), _attester(changed, debug=True, migratable=True, svn=0)
    )
    with pytest.raises(Rejected) as refused:
        VERIFIER.verify(evidence, RELEASE, POLICY, NOW)
    assert [reason.code for reason in refused.value.reasons] == [
        "report_data_mismatch",
        "software_mismatch",
        "debug_enabled",
        "host_data_mismatch",
        "measurement_mismatch",
        "migratable",
        "svn_too_low",
    ]
    assert all(reason.got and reason.want for reason in refused.value.reasons)
    assert "and 6 more" in str(refused.value)


def test_a_certificate_out_of_its_time_is_refused() -> None:
    attester = _attester(not_before=NOW, not_after=NOW + timedelta(days=1))
    evidence = _collect(RELEASE, attester)
    VERIFIER.verify(evidence, RELEASE, POLICY, NOW + timedelta(hours=1))
    for moment, code in ((NOW - timedelta(seconds=1), "cert_not_yet_valid"), (NOW + timedelta(days=2), "cert_expired")):
        with pytest.raises(Rejected) as refused:
            VERIFIER.verify(evidence, RELEASE, POLICY, moment)
        assert refused.value.code == code


# What a scheme may get wrong.


@dataclass(frozen=True)
class Skewed:
    """The simulated scheme with one thing wrong."""

    tee: TeeKind = SIMULATED
    report_data_bytes: int = 64
    required: frozenset[str] = SimulatedScheme.required
    software_claims: frozenset[str] = SimulatedScheme.software_claims
    wanted: tuple[str, ...] = ()
    changes: tuple[tuple[str, Any], ...] = ()

    def needs(self, evidence: Evidence) -> tuple[str, ...]:
        """Return what was asked for."""
        del evidence
        return self.wanted

    def verify(self, evidence: Evidence, endorsements: Mapping[str, bytes], now: datetime) -> VerifiedClaims:
        """Verify for real, then skew the claims."""
        real = Evidence(tee=SIMULATED, payload=evidence.payload)
        return replace(SimulatedScheme(ROOT.public).verify(real, endorsements, now), **dict(self.changes))


def test_a_missing_endorsement_is_unavailable_never_a_yes() -> None:
    verifier = Verifier([Skewed(wanted=("root-crl", "tcb-info"))])
    evidence = _collect(RELEASE)
    assert verifier.needs(evidence) == ("root-crl", "tcb-info")
    with pytest.raises(Unavailable, match="root-crl is missing"):
        verifier.verify(evidence, RELEASE, POLICY, NOW)
    with pytest.raises(Unavailable, match="tcb-info is missing"):
        verifier.verify(evidence, RELEASE, POLICY, NOW, {"root-crl": b""})
    verifier.verify(evidence, RELEASE, POLICY, NOW, {"root-crl": b"", "tcb-info": b""})


def test_a_check_that_failed_inside_the_scheme_is_refused() -> None:
    failed = (Check(code="revocation_unknown", subject="crl", verdict=Verdict.FAILED, got="none", want="a fresh one"),)
    verifier = Verifier([Skewed(changes=(("checks", failed),))])
    assert _codes(_collect(RELEASE), verifier=verifier) == ["revocation_unknown"]


def test_a_scheme_with_nothing_unchecked_is_affirmed() -> None:
    verifier = Verifier([Skewed(changes=(("checks", ()),))])
    policy = _with_rule("chip_id", Exact((b"\x0c" * 32).hex()))
    assert verifier.verify(_collect(RELEASE), RELEASE, policy, NOW).tier is TrustTier.AFFIRMING
    assert verifier.verify(_collect(RELEASE), RELEASE, POLICY, NOW).tier is TrustTier.WARNING


@pytest.mark.parametrize("report_data", [b"", b"\x00" * 32, b"\x00" * 65])
def test_report_data_of_another_length_is_refused(report_data: bytes) -> None:
    verifier = Verifier([Skewed(changes=(("report_data", report_data),))])
    assert _codes(_collect(RELEASE), verifier=verifier) == ["report_data_mismatch"]


def test_report_data_cut_to_the_field_is_refused_where_the_field_is_longer() -> None:
    short = RELEASE.report_data()[:32]
    assert _codes(_collect(RELEASE), verifier=Verifier([Skewed(changes=(("report_data", short),))])) == [
        "report_data_mismatch"
    ]
    Verifier([Skewed(report_data_bytes=32, changes=(("report_data", short),))]).verify(
        _collect(RELEASE), RELEASE, POLICY, NOW
    )


def test_claims_of_another_tee_are_a_mistake_of_ours() -> None:
    with pytest.raises(UsageError, match="returned claims of tpm"):
        Verifier([Skewed(changes=(("tee", TeeKind("tpm")),))]).verify(_collect(RELEASE), RELEASE, POLICY, NOW)


def test_evidence_over_the_cap_is_refused_before_any_scheme_sees_it() -> None:
    huge = Evidence(tee=TeeKind("nobody"), payload=bytes(MAX_EVIDENCE_BYTES + 1))
    with pytest.raises(Malformed, match="want at most"):
        VERIFIER.verify(huge, RELEASE, POLICY, NOW)
    with pytest.raises(Malformed, match="want at most"):
        VERIFIER.needs(huge)


@pytest.mark.parametrize("tee", ["", "sgx", "SIMULATED", "simulated ", "x" * 10_000])
def test_an_unknown_tee_is_refused_by_name(tee: str) -> None:
    evidence = replace(_collect(RELEASE), tee=TeeKind(tee))
    assert _codes(evidence) == ["unsupported_tee"]
    with pytest.raises(Rejected):
        VERIFIER.needs(evidence)


def test_an_empty_table_refuses_everything() -> None:
    assert _codes(_collect(RELEASE), verifier=Verifier([])) == ["unsupported_tee"]


def test_two_schemes_for_one_tee_are_a_mistake_of_ours() -> None:
    with pytest.raises(UsageError, match="two schemes"):
        Verifier([SimulatedScheme(ROOT.public), SimulatedScheme(ROOT.public)])


def test_a_naive_time_is_a_mistake_of_ours() -> None:
    with pytest.raises(UsageError, match="naive"):
        VERIFIER.verify(_collect(RELEASE), RELEASE, POLICY, datetime(2026, 7, 1))  # noqa: DTZ001 - the mistake


def test_the_vectors_are_what_their_generator_writes() -> None:
    generator = runpy.run_path(str(Path(__file__).parents[1] / "vectors" / "evidence-simulated" / "generate.py"))
    assert json.loads(json.dumps(generator["document"]())) == VECTORS
