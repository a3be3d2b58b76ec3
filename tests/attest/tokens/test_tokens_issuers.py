"""Tokens of every kind, end to end: what an attester binds comes out, what a policy wants is there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from cloister.attest.binding import ReleaseBinding, fold
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence, Nonce, TeeKind, TrustTier, Verdict
from cloister.attest.rules import NotChecked
from cloister.attest.schemes.token import (
    Issuer,
    JwksAt,
    PinnedKeys,
    PinnedRoots,
    TokenScheme,
    production_confidential_space_scheme,
    production_ita_scheme,
    production_maa_scheme,
    production_nras_scheme,
)
from cloister.attest.tokens.keyset import KeySet
from cloister.attest.verifier import Verifier
from cloister.errors import Malformed, Rejected, UsageError
from cloister.testing.vendors.tokens import TokenVendor, claims

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.attest.rats import VerifiedClaims

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
KINDS = ("maa", "ita", "confidential-space", "nras", "ear")
VENDORS = {kind: TokenVendor.generate(TeeKind(kind)) for kind in KINDS}
BOUND = {"maa": bytes(range(64)), "ita": bytes(range(64)), "ear": bytes(range(64))}


def bound(kind: str) -> bytes:
    return BOUND.get(kind, bytes(range(32)))


def evidence(vendor: TokenVendor, token: bytes) -> Evidence:
    return Evidence(tee=vendor.kind.profile.tee, payload=dump_parts({"token": token}))


def verified(vendor: TokenVendor, token: bytes, now: datetime = NOW) -> VerifiedClaims:
    return vendor.scheme().verify(evidence(vendor, token), vendor.endorsements, now)


def refusal(vendor: TokenVendor, token: bytes, now: datetime = NOW) -> set[str]:
    with pytest.raises(Rejected) as caught:
        verified(vendor, token, now)
    return {reason.code for reason in caught.value.reasons}


def changed(vendor: TokenVendor, **members: Any) -> bytes:
    """Return a token with members changed; None leaves one out. Names have underscores for their hyphens."""
    payload = vendor.claims(bound(vendor.kind.profile.tee), NOW)
    for name, value in members.items():
        key = next((key for key in payload if key.replace("-", "_").replace(".", "_") == name), name)
        payload[key] = value
        if value is None:
            del payload[key]
    if vendor.kind.profile.devices:
        gpu = {**claims.gpu_claims(bound("nras")), "iss": payload.get("iss")}
        return vendor.bundle(payload, [gpu])
    return vendor.sign(payload)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_releases_under_its_policy_and_says_whose_word_it_is(kind: str) -> None:
    vendor = VENDORS[kind]
    binding = ReleaseBinding(
        nonce=Nonce(bytes(32)), custodian=b"c" * 32, instance_pub=b"i" * 32, kem_pub=b"k" * 32, software=b"{}"
    )
    attester = vendor.attester(lambda: NOW)
    collected = attester.collect(fold(binding.report_data(), field_bytes=attester.report_data_bytes))
    verifier = Verifier([vendor.scheme()])
    assert set(verifier.needs(collected)) <= set(vendor.endorsements)
    result = verifier.verify(collected, binding, vendor.policy(), NOW, vendor.endorsements)
    assert result.tier is TrustTier.WARNING
    (line,) = [check for check in result.checks if check.subject == "hardware"]
    assert line.verdict is Verdict.NOT_CHECKED
    assert vendor.issuer in line.note


@pytest.mark.parametrize("kind", KINDS)
def test_report_data_is_what_the_attester_chose(kind: str) -> None:
    vendor = VENDORS[kind]
    found = verified(vendor, vendor.token(bound(kind), NOW))
    assert found.report_data == bound(kind)
    assert vendor.scheme().required <= set(found.claims)
    assert found.claims["age"] == 0
    assert found.claims["issuer"] == vendor.issuer


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_of_another_time_is_refused(kind: str) -> None:
    vendor = VENDORS[kind]
    token = vendor.token(bound(kind), NOW)
    assert refusal(vendor, token, NOW + timedelta(hours=1)) == {"token_expired"}
    assert refusal(vendor, token, NOW - timedelta(seconds=6)) == {"token_not_yet_valid"}
    assert verified(vendor, token, NOW - timedelta(seconds=5)).claims["age"] == 0
    assert verified(vendor, token, NOW + timedelta(minutes=59)).claims["age"] == 59 * 60


@pytest.mark.parametrize("kind", ["maa", "ita", "confidential-space", "nras"])
def test_a_token_without_an_end_is_refused(kind: str) -> None:
    assert refusal(VENDORS[kind], changed(VENDORS[kind], exp=None)) == {"claim_missing"}


def test_a_result_without_an_end_shows_that_and_has_an_age() -> None:
    vendor = VENDORS["ear"]
    found = verified(vendor, changed(vendor, exp=None), NOW + timedelta(days=400))
    assert found.claims["age"] == 400 * 24 * 3600
    assert any(check.code == "token_expired" and check.verdict is Verdict.NOT_CHECKED for check in found.checks)


def test_a_result_issued_later_is_no_start_but_nbf_is_one() -> None:
    vendor = VENDORS["ear"]
    later = int(NOW.timestamp()) + 3600
    assert verified(vendor, changed(vendor, iat=later, nbf=None)).claims["age"] == 0
    assert refusal(vendor, changed(vendor, nbf=later)) == {"token_not_yet_valid"}
    assert refusal(VENDORS["maa"], changed(VENDORS["maa"], iat=later)) == {"token_not_yet_valid"}


@pytest.mark.parametrize("value", [-1, True, "soon", 10**12, [1]])
@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
def test_a_time_that_is_none_is_malformed(name: str, value: object) -> None:
    with pytest.raises(Malformed):
        verified(VENDORS["maa"], changed(VENDORS["maa"], **{name: value}))


def test_a_time_may_be_a_fraction() -> None:
    vendor = VENDORS["maa"]
    token = changed(vendor, exp=NOW.timestamp() + 0.5)
    assert verified(vendor, token).claims["age"] == 0
    assert refusal(vendor, token, NOW + timedelta(seconds=0.5)) == {"token_expired"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_word_of_another_issuer_is_refused(kind: str) -> None:
    vendor = VENDORS[kind]
    for name in ("https://attacker.example", None, 5):
        assert refusal(vendor, changed(vendor, iss=name)) == {"issuer_mismatch"}


def test_an_issuer_speaks_with_its_own_keys_alone() -> None:
    one, other = VENDORS["maa"], TokenVendor.generate(TeeKind("maa"))
    scheme = TokenScheme(
        one.kind.profile,
        [
            Issuer(name=one.issuer, keys=PinnedKeys(KeySet.parse(one.jwks()))),
            Issuer(name="https://other.attest.azure.net", keys=PinnedKeys(KeySet.parse(other.jwks()))),
        ],
        audiences=NotChecked("none"),
    )
    assert scheme.verify(evidence(one, one.token(bound("maa"), NOW)), {}, NOW).tee == "maa"
    with pytest.raises(Rejected, match="signature_invalid"):
        scheme.verify(evidence(one, other.token(bound("maa"), NOW)), {}, NOW)


def test_an_audience_is_a_string_or_one_of_several() -> None:
    vendor = VENDORS["confidential-space"]
    ours = claims.CS_AUDIENCE
    assert verified(vendor, changed(vendor, aud=["https://other.example", ours])).claims["audience"] == (
        ours,
        "https://other.example",
    )
    for aud in ("https://other.example", ["https://other.example"], [], None, f"{ours}/"):
        assert refusal(vendor, changed(vendor, aud=aud)) == {"audience_mismatch"}
    for odd in ([5], {"a": 1}, 5):
        with pytest.raises(Malformed):
            verified(vendor, changed(vendor, aud=odd))


MAA_FORMS: dict[str, tuple[Callable[[bytes], dict[str, Any]], str]] = {
    "azurevm": (claims.maa_azurevm_claims, claims.MEASUREMENT),
    "sevsnpvm": (claims.maa_snp_claims, claims.MEASUREMENT),
    "sgx": (claims.maa_sgx_claims, claims.MRENCLAVE),
    "tdxvm": (claims.maa_tdx_claims, claims.MEASUREMENT),
}


@pytest.mark.parametrize("form", MAA_FORMS)
def test_every_form_of_azure_attestation_is_read(form: str) -> None:
    make, measurement = MAA_FORMS[form]
    vendor = replace(VENDORS["maa"], kind=replace(VENDORS["maa"].kind, claims=make))
    found = verified(vendor, vendor.token(bound("maa"), NOW))
    assert found.report_data == bound("maa")
    assert found.claims["attestation_type"] == form
    assert found.claims["measurement"] == measurement
    assert found.claims["debug"] is False


def test_a_plain_virtual_machine_has_no_measurement_and_no_word_on_debugging() -> None:
    vendor = replace(VENDORS["maa"], kind=replace(VENDORS["maa"].kind, claims=claims.maa_azurevm_claims))
    found = verified(vendor, changed(vendor, x_ms_isolation_tee=None))
    assert "measurement" not in found.claims
    assert "debug" not in found.claims


DEBUGGED: list[tuple[str, Callable[[bytes], dict[str, Any]], dict[str, Any]]] = [
    ("maa", claims.maa_snp_claims, {"x_ms_sevsnpvm_is_debuggable": True}),
    ("maa", claims.maa_sgx_claims, {"x_ms_sgx_is_debuggable": True}),
    ("maa", claims.maa_tdx_claims, {"tdx_td_attributes_debug": True}),
    ("maa", claims.maa_tdx_claims, {"dbgstat": "enabled"}),
    ("ita", claims.ita_claims, {"dbgstat": "enabled"}),
    ("ita", claims.ita_claims, {"tdx_is_debuggable": True}),
    ("ita", claims.ita_claims, {"tdx_td_attributes_debug": True}),
    ("ita", claims.ita_claims, {"sgx_is_debuggable": True}),
    ("confidential-space", claims.confidential_space_claims, {"dbgstat": "enabled"}),
]


@pytest.mark.parametrize(("kind", "make", "members"), DEBUGGED)
def test_any_word_of_debugging_is_debugging(
    kind: str, make: Callable[[bytes], dict[str, Any]], members: dict[str, Any]
) -> None:
    vendor = replace(VENDORS[kind], kind=replace(VENDORS[kind].kind, claims=make))
    assert verified(vendor, changed(vendor, **members)).claims["debug"] is True


def test_a_virtual_machine_on_debugged_hardware_is_debugged() -> None:
    vendor = replace(VENDORS["maa"], kind=replace(VENDORS["maa"].kind, claims=claims.maa_azurevm_claims))
    tee = {**claims.maa_snp_claims(bytes(64)), "x-ms-sevsnpvm-is-debuggable": True}
    assert verified(vendor, changed(vendor, x_ms_isolation_tee=tee)).claims["debug"] is True


def test_the_hardware_below_a_virtual_machine_binds_nothing_for_its_client() -> None:
    vendor = replace(VENDORS["maa"], kind=replace(VENDORS["maa"].kind, claims=claims.maa_azurevm_claims))
    assert verified(vendor, changed(vendor, x_ms_runtime={"client-payload": {}})).report_data == b""


def test_trust_authority_of_version_two_is_read_below_and_says_what_is_not() -> None:
    vendor = replace(VENDORS["ita"], kind=replace(VENDORS["ita"].kind, claims=claims.ita_v2_claims))
    found = verified(vendor, vendor.token(bound("ita"), NOW))
    assert found.report_data == bound("ita")
    assert found.claims["measurement"] == claims.MEASUREMENT
    assert (found.claims["gpu_result"], found.claims["gpu_debug"]) == (True, False)
    assert [check.subject for check in found.checks if check.code == "submodule_not_appraised"] == ["tpm"]


def test_without_held_data_trust_authority_binds_user_data_or_report_data() -> None:
    vendor = VENDORS["ita"]
    chosen = "ab" * 64
    assert verified(vendor, changed(vendor, attester_held_data=None)).report_data.hex() == "7e" * 64
    user_data = {"user-data": chosen}
    found = verified(vendor, changed(vendor, attester_held_data=None, attester_runtime_data=user_data))
    assert found.report_data.hex() == chosen


@pytest.mark.parametrize("nonce", [["00" * 32, "11" * 32], "AB" * 32, "00" * 31, [], None, "x" * 64])
@pytest.mark.parametrize("kind", ["confidential-space"])
def test_several_nonces_or_other_text_bind_nothing(kind: str, nonce: object) -> None:
    assert verified(VENDORS[kind], changed(VENDORS[kind], eat_nonce=nonce)).report_data == b""


def test_one_nonce_in_an_array_binds() -> None:
    vendor = VENDORS["confidential-space"]
    assert verified(vendor, changed(vendor, eat_nonce=["22" * 32])).report_data.hex() == "22" * 32


def ear(vendor: TokenVendor, **submods: dict[str, Any]) -> VerifiedClaims:
    return verified(vendor, changed(vendor, submods=submods))


def test_one_bad_submodule_shows_in_every_set_of_a_result() -> None:
    vendor = VENDORS["ear"]
    good = {"ear.status": "affirming", "ear.trustworthiness-vector": {"hardware": 2}}
    bad = {"ear_status": "contraindicated", "ear_trustworthiness_vector": {"hardware": 96}}
    found = ear(vendor, a=good, b=bad).claims
    assert found["status"] == ("affirming", "contraindicated")
    assert found["trust_hardware"] == ("affirming", "contraindicated")
    assert found["submods"] == ("a", "b")


@pytest.mark.parametrize(
    ("value", "tier"),
    [
        *((value, "none") for value in (-1, 0, 1)),
        *((value, "affirming") for value in (2, 31, -2, -32)),
        *((value, "warning") for value in (32, 95, -33, -96)),
        *((value, "contraindicated") for value in (96, 127, -97, -128)),
    ],
)
def test_a_status_is_never_better_than_its_vector(value: int, tier: str) -> None:
    appraisal = {"ear.status": "affirming", "ear.trustworthiness-vector": {"executables": value}}
    found = ear(VENDORS["ear"], a=appraisal).claims
    assert found["trust_executables"] == (tier,)
    assert found["status"] == ("affirming" if tier == "none" else tier,)
    silent = {"ear.status": "none", "ear.trustworthiness-vector": {"executables": value}}
    assert ear(VENDORS["ear"], a=silent).claims["status"] == ("none" if tier in {"none", "affirming"} else tier,)


@pytest.mark.parametrize(
    "appraisal",
    [
        {},
        {"ear.status": "fine"},
        {"ear.status": 3},
        {"ear.status": True},
        {"ear.status": "affirming", "ear_status": "affirming"},
        {"ear.status": "affirming", "ear.trustworthiness-vector": {"hardware": 128}},
        {"ear.status": "affirming", "ear.trustworthiness-vector": {"hardware": "2"}},
        {"ear.status": "affirming", "ear.trustworthiness-vector": []},
    ],
)
def test_an_appraisal_out_of_form_is_malformed(appraisal: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        ear(VENDORS["ear"], a=appraisal)


@pytest.mark.parametrize(
    "members",
    [
        {"x_ms_sevsnpvm_launchmeasurement": "5a" * 47},
        {"x_ms_sevsnpvm_launchmeasurement": 5},
        {"x_ms_sevsnpvm_vmpl": -1},
        {"x_ms_sevsnpvm_vmpl": 1.5},
        {"x_ms_sevsnpvm_vmpl": False},
        {"x_ms_sevsnpvm_is_debuggable": "false"},
        {"x_ms_compliance_status": "a\u202eb"},
        {"dbgstat": "perhaps"},
    ],
)
def test_a_claim_of_another_type_is_malformed(members: dict[str, Any]) -> None:
    vendor = VENDORS["maa"]
    with pytest.raises(Malformed):
        verified(vendor, changed(vendor, **members))


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        ("ita", {"policy_ids_matched": {"id": "a"}}),
        ("ita", {"policy_ids_matched": [{"version": "v1"}]}),
        ("ita", {"attester_advisory_ids": "none"}),
        ("ita", {"attester_held_data": None, "attester_runtime_data": {"user-data": "00"}}),
        ("confidential-space", {"submods": {"container": {"image_signatures": {}}}}),
        ("confidential-space", {"swversion": {}}),
        ("ear", {"submods": []}),
        ("ear", {"submods": {}}),
        ("ear", {"submods": {"a": "affirming"}}),
        ("ear", {"ear_verifier_id": {}, "ear.verifier-id": {}}),
        ("ear", {"ear_status": "perhaps"}),
    ],
)
def test_a_claim_of_another_shape_is_malformed(kind: str, members: dict[str, Any]) -> None:
    vendor = VENDORS[kind]
    payload = {**vendor.claims(bound(kind), NOW), **members}
    with pytest.raises(Malformed):
        verified(vendor, vendor.sign(payload))


def test_a_status_of_the_whole_counts_with_those_of_its_parts() -> None:
    vendor = VENDORS["ear"]
    assert verified(vendor, changed(vendor, ear_status="warning")).claims["status"] == ("affirming", "warning")


def test_a_container_started_with_what_cannot_be_written_canonically_is_malformed() -> None:
    vendor = VENDORS["confidential-space"]
    said = b'{"iss":"' + vendor.issuer.encode() + b'","aud":"https://custodian.example","exp":4e9,"submods":'
    with pytest.raises(Malformed):
        verified(vendor, vendor.sign(said + b'{"container":{"args":[9007199254740993]}}}'))


def test_an_integer_that_no_policy_can_name_is_malformed() -> None:
    vendor = VENDORS["maa"]
    said = b'{"iss":"' + vendor.issuer.encode() + b'","exp":4e9,"x-ms-sevsnpvm-vmpl":9007199254740992}'
    with pytest.raises(Malformed):
        verified(vendor, vendor.sign(said))


def test_numbers_beyond_a_double_are_read_where_no_claim_of_ours_is_made_of_them() -> None:
    vendor = VENDORS["maa"]
    said = b'{"iss":"' + vendor.issuer.encode() + b'","exp":4e9,"big":' + b"9" * 40 + b',"small":-1.5}'
    assert verified(vendor, vendor.sign(said)).report_data == b""


def test_production_schemes_name_their_issuers_and_keys() -> None:
    maa = production_maa_scheme(["sharedweu.weu.attest.azure.net"])
    vendor = VENDORS["maa"]
    token = changed(vendor, iss="https://sharedweu.weu.attest.azure.net")
    assert maa.needs(evidence(vendor, token)) == ("tokens/jwks/sharedweu.weu.attest.azure.net",)
    assert maa.needs(evidence(vendor, changed(vendor))) == ()
    found = maa.verify(evidence(vendor, token), {"tokens/jwks/sharedweu.weu.attest.azure.net": vendor.jwks()}, NOW)
    assert any(check.code == "untrusted_root" and check.verdict is Verdict.NOT_CHECKED for check in found.checks)
    with pytest.raises(Rejected, match="unknown_key"):
        maa.verify(evidence(vendor, token), {}, NOW)
    ita = production_ita_scheme()
    assert ita.needs(evidence(VENDORS["ita"], changed(VENDORS["ita"]))) == (
        "tokens/jwks/portal.trustauthority.intel.com",
    )
    nras = production_nras_scheme()
    assert nras.needs(evidence(VENDORS["nras"], changed(VENDORS["nras"]))) == (
        "tokens/jwks/nras.attestation.nvidia.com",
    )
    space = production_confidential_space_scheme([claims.CS_AUDIENCE])
    assert space.needs(evidence(VENDORS["confidential-space"], changed(VENDORS["confidential-space"]))) == ()
    token = VENDORS["confidential-space"].token(bound("confidential-space"), NOW)
    with pytest.raises(Rejected, match="untrusted_root"):
        space.verify(evidence(VENDORS["confidential-space"], token), {}, NOW)


def test_a_scheme_that_would_trust_nobody_or_anybody_is_refused() -> None:
    profile = VENDORS["maa"].kind.profile
    none = NotChecked("none")
    pinned = Issuer(name="a", keys=PinnedKeys(KeySet.parse(VENDORS["maa"].jwks())))
    for issuers in (
        [],
        [pinned, pinned],
        [Issuer(name="a", keys=PinnedRoots(()))],
        [Issuer(name="a", keys=JwksAt(host="a", roots=()))],
    ):
        with pytest.raises(UsageError):
            TokenScheme(profile, issuers, audiences=none)
    with pytest.raises(UsageError):
        TokenScheme(profile, [pinned], audiences=())
    with pytest.raises(UsageError):
        TokenScheme(profile, [pinned], audiences=none, algorithms=frozenset({"HS256", "none"}))
