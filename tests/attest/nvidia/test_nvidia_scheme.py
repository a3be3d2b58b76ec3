"""GPUs and switches end to end: what is genuine passes, and each thing that is not has its reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.x509 import ocsp

from cloister.attest.binding import ChannelBinding, fold
from cloister.attest.nvidia.devicechain import Arch
from cloister.attest.nvidia.evidence import dump_nvidia_evidence
from cloister.attest.nvidia.opaque import FieldType
from cloister.attest.policy import CLAIM_NAME, Policy, TeePolicy
from cloister.attest.rats import Evidence, TeeKind, TrustTier, Verdict
from cloister.attest.rules import Exact, NotChecked
from cloister.attest.schemes.nvidia import (
    NVIDIA_GPU,
    NVIDIA_SWITCH,
    NvidiaScheme,
    Relaxed,
    production_nvidia_schemes,
    rim_needs,
)
from cloister.attest.verifier import Verifier
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.testing.vendors.nvidia import NvidiaVendor
from cloister.testing.vendors.nvidia.device import attestation_key
from cloister.testing.vendors.nvidia.issuing import answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.rats import VerifiedClaims
    from cloister.testing.vendors.nvidia import Device

VENDOR = NvidiaVendor.generate()
NOW = datetime(2026, 6, 1, tzinfo=UTC)
NONCE = bytes(range(32))
ATTESTERS = {arch: VENDOR.attester(arch) for arch in Arch}
HOPPER = VENDOR.device()
SIGNER = VENDOR.signer()
RIMS = {"driver_rim": VENDOR.driver_rim(HOPPER, signer=SIGNER), "vbios_rim": VENDOR.vbios_rim(HOPPER, signer=SIGNER)}
ANSWERS = VENDOR.answers(HOPPER) | VENDOR.rim_answers(SIGNER.certificate)
WHY = NotChecked("not the point of this test")
DEMANDED = Relaxed()
RELAXED = Relaxed(revocation=WHY, rim_revocation=WHY, driver_rim=WHY, vbios_rim=WHY)


def evidence(device: Device = HOPPER, tee: TeeKind = NVIDIA_GPU, **along: bytes) -> Evidence:
    return Evidence(tee=tee, payload=dump_nvidia_evidence(device.report(NONCE), device.chain_pem, **along))


def verify(
    sent: Evidence, endorsements: Mapping[str, bytes] = ANSWERS, relaxed: Relaxed = DEMANDED, now: datetime = NOW
) -> VerifiedClaims:
    return VENDOR.scheme(sent.tee, relaxed).verify(sent, endorsements, now)


def codes(
    sent: Evidence, endorsements: Mapping[str, bytes] = ANSWERS, relaxed: Relaxed = DEMANDED, now: datetime = NOW
) -> list[str]:
    with pytest.raises(Rejected) as refused:
        verify(sent, endorsements, relaxed, now)
    return [reason.code for reason in refused.value.reasons]


@pytest.mark.parametrize("arch", Arch)
def test_a_genuine_device_passes_with_its_manifests_and_answers(arch: Arch) -> None:
    attester = ATTESTERS[arch]
    sent = attester.collect(NONCE)
    scheme = VENDOR.scheme(attester.tee)
    assert set(scheme.needs(sent)) <= set(attester.endorsements)
    verified = scheme.verify(sent, attester.endorsements, NOW)
    assert verified.report_data == NONCE
    assert verified.claims["arch"] == arch.value
    assert verified.claims["rim.vbios"] == "match"
    assert scheme.required <= set(verified.claims)
    assert all(CLAIM_NAME.fullmatch(name) for name in verified.claims)
    assert {check.verdict for check in verified.checks} == {Verdict.PASSED}


def test_claims_say_which_device_and_which_versions() -> None:
    claims = verify(evidence(**RIMS)).claims
    assert claims["device"] == "412921ce551e4eeda3"
    assert claims["pdi"] == "2921ce551e4eeda3"
    assert claims["chip"] == "GH100"
    assert (claims["driver"], claims["vbios"], claims["cc_mode"]) == ("590.12", "96.00.A5.00.01", "spt")
    assert (claims["project"], claims["project_sku"], claims["chip_sku"]) == ("G520", "0200", "885")
    assert claims["rim.driver"] == claims["rim.vbios"] == "match"
    assert "gpus" not in claims
    switch = ATTESTERS[Arch.LS10]
    claims = VENDOR.scheme(NVIDIA_SWITCH).verify(switch.collect(NONCE), switch.endorsements, NOW).claims
    assert claims["lock_status"] == "0100"
    assert "driver" not in claims


@pytest.mark.parametrize("arch", Arch)
def test_the_whole_procedure_accepts_and_binds_the_nonce(arch: Arch) -> None:
    attester = ATTESTERS[arch]
    verifier = Verifier([VENDOR.scheme(NVIDIA_GPU), VENDOR.scheme(NVIDIA_SWITCH)])
    binding = ChannelBinding(nonce=NONCE, keyset=b"k" * 32)
    sent = attester.collect(fold(binding.report_data(), field_bytes=32))
    result = verifier.verify(sent, binding, attester.policy(), NOW, attester.endorsements)
    assert result.tier is TrustTier.AFFIRMING
    with pytest.raises(Rejected) as refused:
        verifier.verify(attester.collect(NONCE), binding, attester.policy(), NOW, attester.endorsements)
    assert refused.value.code == "report_data_mismatch"
    with pytest.raises(Unavailable, match="nvidia/rim/NV_"):
        verifier.verify(sent, binding, attester.policy(), NOW, {})
    with pytest.raises(UsageError):
        attester.collect(NONCE + b"\0")


def test_a_policy_without_device_or_versions_is_incomplete() -> None:
    attester = ATTESTERS[Arch.HOPPER]
    binding = ChannelBinding(nonce=NONCE, keyset=b"k" * 32)
    policy = Policy(version=1, tees={NVIDIA_GPU: TeePolicy({"rim.driver": Exact("match")})})
    with pytest.raises(Rejected) as refused:
        Verifier([VENDOR.scheme()]).verify(
            attester.collect(fold(binding.report_data(), field_bytes=32)), binding, policy, NOW, attester.endorsements
        )
    missing = {reason.subject for reason in refused.value.reasons if reason.code == "policy_incomplete"}
    assert missing == {"arch", "device", "driver", "vbios"}


def test_needs_leaves_out_manifests_that_were_sent_along() -> None:
    names = VENDOR.scheme().needs(evidence())
    assert names[:2] == ("nvidia/rim/NV_GPU_DRIVER_GH100_590.12", "nvidia/rim/NV_GPU_VBIOS_G520_0200_885_9600A50001")
    assert set(names[2:]) == set(VENDOR.answers(HOPPER))
    with_rims = VENDOR.scheme().needs(evidence(**RIMS))
    assert set(with_rims) == set(ANSWERS)
    assert set(rim_needs(RIMS["driver_rim"])) == set(VENDOR.rim_answers(SIGNER.certificate))
    assert VENDOR.scheme(relaxed=RELAXED).needs(evidence()) == ()


def test_what_is_relaxed_shows_in_every_result() -> None:
    checks = verify(evidence(), {}, RELAXED).checks
    skipped = [check for check in checks if check.verdict is Verdict.NOT_CHECKED]
    assert {check.code for check in skipped} == {"revocation_unknown", "measurement_mismatch"}
    assert {check.note for check in skipped} == {WHY.why}


def test_what_is_relaxed_is_judged_all_the_same_where_it_is_there() -> None:
    other = VENDOR.driver_rim(HOPPER, version="1.0")
    assert codes(evidence(driver_rim=other), {}, RELAXED) == ["collateral_mismatch"]
    revoked = answer(VENDOR.rom().certificate, VENDOR.provisioner, status=ocsp.OCSPCertStatus.REVOKED)
    assert codes(evidence(ocsp=revoked), {}, RELAXED) == ["revoked"]


def test_a_device_of_the_other_kind_is_refused() -> None:
    switch = VENDOR.device(Arch.LS10)
    assert codes(evidence(switch, NVIDIA_GPU), {}, RELAXED) == ["chain_invalid"]
    assert codes(evidence(HOPPER, NVIDIA_SWITCH), {}, RELAXED) == ["chain_invalid"]


def test_a_device_of_another_vendor_is_refused() -> None:
    assert codes(evidence(NvidiaVendor.generate().device()), {}, RELAXED) == ["untrusted_root"]


def test_the_report_of_one_chip_with_the_chain_of_another_is_refused() -> None:
    stolen = replace(HOPPER, chain=VENDOR.device().chain)
    assert codes(evidence(stolen), {}, RELAXED) == ["signature_invalid"]


def test_firmware_that_does_not_hold_the_key_is_refused() -> None:
    for fwid in (bytes(48), b"", HOPPER.fields[FieldType.FWID][:47]):
        device = replace(HOPPER, fields={**HOPPER.fields, FieldType.FWID: fwid})
        assert codes(evidence(device), {}, RELAXED) == ["key_binding_mismatch"]
    bare = VENDOR.device(leaf=attestation_key(HOPPER.issuer, Arch.HOPPER, fwid=None), rom=HOPPER.issuer)
    assert codes(evidence(bare), {}, RELAXED) == ["key_binding_mismatch"]


def test_a_driver_that_does_not_name_its_firmware_passes() -> None:
    fields = {kind: value for kind, value in HOPPER.fields.items() if kind != FieldType.FWID}
    assert verify(evidence(replace(HOPPER, fields=fields)), {}, RELAXED).claims["fwid"]


def test_a_manifest_that_is_not_there_is_refused() -> None:
    assert codes(evidence(driver_rim=RIMS["driver_rim"])) == ["rim_missing"]
    assert codes(evidence()) == ["rim_missing", "rim_missing"]


def test_a_measurement_that_no_manifest_knows_is_refused() -> None:
    for index in (1, 22):
        device = replace(HOPPER, measurements={**HOPPER.measurements, index: bytes(48)})
        assert codes(evidence(device, **RIMS)) == ["measurement_mismatch"]
    unknown_to_both = replace(HOPPER, measurements={**HOPPER.measurements, 64: bytes(48)})
    assert verify(evidence(unknown_to_both, **RIMS))


@pytest.mark.parametrize("part", ["driver_rim", "vbios_rim"])
def test_a_manifest_of_another_version_or_chip_is_refused(part: str) -> None:
    make = VENDOR.driver_rim if part == "driver_rim" else VENDOR.vbios_rim
    for other in ({"version": "590.13"}, {"product": "GB100"}):
        rim = make(HOPPER, signer=SIGNER, **other)
        assert codes(evidence(**RIMS | {part: rim})) == ["collateral_mismatch"]


def test_an_index_in_both_manifests_is_a_conflict() -> None:
    vbios_twice = {
        "driver_rim": VENDOR.vbios_rim(HOPPER, signer=SIGNER, version="590.12"),
        "vbios_rim": RIMS["vbios_rim"],
    }
    assert codes(evidence(**vbios_twice)) == ["rim_conflict"]


def test_a_manifest_of_another_vendor_is_refused() -> None:
    other = NvidiaVendor.generate()
    rim = other.driver_rim(HOPPER)
    assert codes(evidence(**RIMS | {"driver_rim": rim})) == ["untrusted_root"]


def test_a_manifest_that_was_altered_is_refused() -> None:
    rim = RIMS["driver_rim"].replace(b'revision="r1"', b'revision="r2"')
    assert codes(evidence(**RIMS | {"driver_rim": rim})) == ["rim_signature_invalid"]


def test_a_manifest_whose_signer_ended_is_refused() -> None:
    ended = VENDOR.signer((datetime(2024, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)))
    rim = VENDOR.driver_rim(HOPPER, signer=ended)
    assert codes(evidence(**RIMS | {"driver_rim": rim})) == ["rim_cert_expired"]


@pytest.mark.parametrize("name", ANSWERS, ids=range(len(ANSWERS)))
def test_every_certificate_below_a_root_needs_an_answer(name: str) -> None:
    fewer = {other: data for other, data in ANSWERS.items() if other != name}
    found = codes(evidence(**RIMS), fewer)
    assert set(found) == {"revocation_unknown"}


def test_revoked_certificates_are_refused_and_hold_has_to_be_said() -> None:
    pairs = (
        (HOPPER.issuer, VENDOR.provisioner),
        (VENDOR.provisioner, VENDOR.identity),
        (VENDOR.identity, VENDOR.device_root),
    )
    for subject, issuer in pairs:
        name = f"nvidia/ocsp/{subject.certificate.x509.serial_number:x}"
        options = {"status": ocsp.OCSPCertStatus.REVOKED, "reason": x509.ReasonFlags.certificate_hold}
        held = ANSWERS | {name: answer(subject.certificate, issuer, **options)}
        assert codes(evidence(**RIMS), held) == ["revoked"]
        checks = verify(evidence(**RIMS), held, Relaxed(hold=WHY)).checks
        skipped = [check.code for check in checks if check.verdict is Verdict.NOT_CHECKED]
        assert skipped == ["revoked"]


def test_a_revoked_signer_of_manifests_is_refused() -> None:
    name = f"nvidia/ocsp/{SIGNER.certificate.x509.serial_number:x}"
    gone = answer(SIGNER.certificate, VENDOR.rim_authority, status=ocsp.OCSPCertStatus.REVOKED)
    assert codes(evidence(**RIMS), ANSWERS | {name: gone}) == ["revoked", "revoked"]


def test_an_answer_that_is_no_answer_is_malformed() -> None:
    name = next(iter(VENDOR.answers(HOPPER)))
    with pytest.raises(Malformed):
        verify(evidence(**RIMS), ANSWERS | {name: b"\x30\x03\x02\x01\x00"})


def test_all_reasons_are_named_not_the_first() -> None:
    device = replace(
        HOPPER,
        chain=VENDOR.device().chain,
        measurements={**HOPPER.measurements, 1: bytes(48)},
        fields={**HOPPER.fields, FieldType.FWID: bytes(48)},
    )
    assert codes(evidence(device, **RIMS), {}, RELAXED) == [
        "key_binding_mismatch",
        "signature_invalid",
        "measurement_mismatch",
    ]


def test_nothing_is_valid_before_it_is() -> None:
    early = datetime(2019, 1, 1, tzinfo=UTC)
    assert codes(evidence(**RIMS), ANSWERS, now=early) == ["cert_not_yet_valid"] * 3


@pytest.mark.parametrize(
    "payload", [b"", dump_nvidia_evidence(b"", b""), dump_nvidia_evidence(HOPPER.report(NONCE), b"")]
)
def test_what_is_no_evidence_is_malformed(payload: bytes) -> None:
    with pytest.raises(Malformed):
        verify(Evidence(tee=NVIDIA_GPU, payload=payload))


def test_a_scheme_without_roots_or_for_another_tee_is_a_mistake() -> None:
    root = (VENDOR.device_root.certificate,)
    for tee, devices, rims in ((NVIDIA_GPU, (), root), (NVIDIA_GPU, root, ()), (TeeKind("tpm"), root, root)):
        with pytest.raises(UsageError):
            NvidiaScheme(tee, device_roots=devices, rim_roots=rims)


def test_a_production_build_trusts_nvidia_alone() -> None:
    gpus, switches = production_nvidia_schemes(RELAXED)
    assert (gpus.tee, switches.tee) == (NVIDIA_GPU, NVIDIA_SWITCH)
    assert gpus.report_data_bytes == 32
    assert not gpus.software_claims
    with pytest.raises(Rejected) as refused:
        gpus.verify(evidence(), {}, NOW)
    assert refused.value.code == "untrusted_root"


def test_a_chain_upside_down_is_refused_as_a_chain() -> None:
    upside_down = replace(HOPPER, chain=tuple(reversed(HOPPER.chain)))
    assert codes(evidence(upside_down), {}, RELAXED)[0] == "chain_invalid"


def test_another_product_of_the_vendor_is_refused() -> None:
    card = VENDOR.device(leaf=attestation_key(HOPPER.issuer, Arch.HOPPER, name="CX7 A01 FW"), rom=HOPPER.issuer)
    assert "unsupported_format" in codes(evidence(card), {}, RELAXED)
