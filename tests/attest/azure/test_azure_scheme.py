"""Azure vTPM evidence over synthetic SNP and TDX: what binds the quote to the hardware, attacked link by link."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from cloister.attest.appraise import appraise
from cloister.attest.binding import ReleaseBinding, fold
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence, Nonce, TrustTier, Verdict, VerifiedClaims
from cloister.attest.rules import NotChecked
from cloister.attest.schemes.azure_vtpm import (
    AZURE_SNP_VTPM,
    AZURE_TDX_VTPM,
    AzureVtpmScheme,
    production_azure_vtpm_schemes,
)
from cloister.attest.tpm.algorithms import Alg
from cloister.attest.tpm.measured import dump_pcrs
from cloister.attest.verifier import Verifier
from cloister.errors import Malformed, Rejected, UsageError
from cloister.testing.vendors.amd import ReportValues
from cloister.testing.vendors.azure import AzureAttester, HclValues, SnpHardware, TdxHardware, hcl_report, jwk
from cloister.testing.vendors.gce import SyntheticGoogle
from cloister.testing.vendors.vtpm import SyntheticVtpm, rsa_key
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SOFTWARE = hashlib.sha256(b"software manifest").digest()
NONCE = bytes(range(32))
SNP, TDX = AzureAttester(SnpHardware(), SOFTWARE), AzureAttester(TdxHardware(), SOFTWARE)
VMS = {"snp": SNP, "tdx": TDX}
SCHEMES = {name: vm.scheme() for name, vm in VMS.items()}
PARTS = {name: vm.parts(NONCE) for name, vm in VMS.items()}
KIND = pytest.mark.parametrize("kind", VMS)


def verify(kind: str, parts: Mapping[str, bytes]) -> VerifiedClaims:
    evidence = Evidence(tee=VMS[kind].tee, payload=dump_parts(parts))
    return SCHEMES[kind].verify(evidence, VMS[kind].endorsements, NOW)


def codes(kind: str, parts: Mapping[str, bytes]) -> list[str]:
    with pytest.raises(Rejected) as refused:
        verify(kind, parts)
    return [reason.code for reason in refused.value.reasons]


@KIND
def test_genuine_evidence_is_verified_and_accepted_by_its_policy(kind: str) -> None:
    vm = VMS[kind]
    verified = verify(kind, PARTS[kind])
    assert verified.tee == {"snp": AZURE_SNP_VTPM, "tdx": AZURE_TDX_VTPM}[kind]
    assert verified.report_data == NONCE
    assert verified.claims["report_type"] == kind
    assert verified.claims["vm.secure_boot"] is True
    assert verified.claims["software"] == SOFTWARE.hex()
    assert verified.claims["secure_boot"] is True
    checks = appraise(verified, vm.policy(), SCHEMES[kind].required)
    assert [check for check in checks if check.verdict is Verdict.FAILED] == []


@KIND
def test_hardware_is_asked_what_it_needs(kind: str) -> None:
    assert set(SCHEMES[kind].needs(VMS[kind].collect(NONCE))) <= set(VMS[kind].endorsements)


@KIND
def test_without_lists_and_collateral_the_hardware_refuses_unless_told_why_not(kind: str) -> None:
    evidence = VMS[kind].collect(NONCE)
    with pytest.raises(Rejected) as refused:
        SCHEMES[kind].verify(evidence, {}, NOW)
    assert "revocation_unknown" in [reason.code for reason in refused.value.reasons]
    verified = VMS[kind].scheme(relaxed=NotChecked("a test")).verify(evidence, {}, NOW)
    assert [check for check in verified.checks if check.verdict is Verdict.NOT_CHECKED]


@KIND
def test_runtime_claims_altered_after_the_report_break_the_binding(kind: str) -> None:
    for old, new in ((b'"console-enabled": true', b'"console-enabled":false'), (b"0F0E0D0C", b"0F0E0D0B")):
        hcl = PARTS[kind]["hcl_report"]
        assert codes(kind, PARTS[kind] | {"hcl_report": hcl.replace(old, new)})[0] == "key_binding_mismatch"


@KIND
def test_another_key_in_the_runtime_claims_breaks_binding_and_signature(kind: str) -> None:
    forged = VMS[kind].claims(keys=[jwk(rsa_key(6).public_key())])
    hcl = PARTS[kind]["hcl_report"]
    swapped = hcl_report(hcl[32:1216], VMS[kind].hardware.kind, forged)
    found = codes(kind, PARTS[kind] | {"hcl_report": swapped})
    assert {"key_binding_mismatch", "tpm_signature_invalid"} == set(found)


@KIND
def test_quote_by_another_key_is_refused(kind: str) -> None:
    other = SyntheticVtpm(rsa_key(6), software=SOFTWARE)
    attest = other.quote(NONCE)
    forged = {"quote": attest, "signature_tpmt": other.sign(attest).dump()}
    assert codes(kind, PARTS[kind] | forged) == ["tpm_signature_invalid"]


@KIND
def test_report_of_another_machine_breaks_the_binding(kind: str) -> None:
    other = VMS[kind].parts(NONCE, VMS[kind].claims(user_data="01" * 64))
    hcl, claims = other["hcl_report"], VMS[kind].claims()
    inner = {role: other[role] for role in ("leaf", "intermediate", "td_quote") if role in other}
    mixed = hcl_report(hcl[32:1216], VMS[kind].hardware.kind, claims)
    assert set(codes(kind, PARTS[kind] | inner | {"hcl_report": mixed})) == {"key_binding_mismatch"}


def test_td_quote_of_another_td_breaks_the_binding_though_the_tdreport_fits() -> None:
    _, inner = TDX.hardware.report(bytes(64))
    assert codes("tdx", PARTS["tdx"] | inner) == ["key_binding_mismatch"]


def test_bytes_behind_the_digest_in_the_report_data_are_refused() -> None:
    claims = SNP.claims()
    report, _ = SNP.hardware.report(hashlib.sha256(claims).digest() + b"\x01" * 32)
    hcl = hcl_report(report, SNP.hardware.kind, claims)
    assert codes("snp", PARTS["snp"] | {"hcl_report": hcl}) == ["key_binding_mismatch"]


def test_report_that_the_guest_asked_for_itself_is_refused() -> None:
    vm = AzureAttester(SnpHardware(SNP.hardware.chip, ReportValues(vmpl=2)), SOFTWARE)
    assert codes("snp", vm.parts(NONCE)) == ["vmpl_mismatch"]


def test_hardware_report_with_a_flipped_bit_is_refused_by_the_hardware() -> None:
    hcl = bytearray(PARTS["snp"]["hcl_report"])
    hcl[32 + 0x90] ^= 1  # the measurement
    assert codes("snp", PARTS["snp"] | {"hcl_report": bytes(hcl)}) == ["signature_invalid"]


@KIND
def test_each_bit_of_the_quoted_parts_matters(kind: str) -> None:
    for role in ("quote", "signature_tpmt"):
        data = PARTS[kind][role]
        for at in range(len(data)):
            if at % (3 if len(data) < 200 else 29) == 0:
                flipped = data[:at] + bytes((data[at] ^ 1 << at % 8,)) + data[at + 1 :]
                with pytest.raises((Malformed, Rejected)):
                    verify(kind, PARTS[kind] | {role: flipped})


@KIND
def test_pcr_altered_left_out_or_put_in_is_refused(kind: str) -> None:
    pcrs = VMS[kind].vtpm.pcrs
    for changed in (pcrs | {4: bytes(32)}, {index: pcrs[index] for index in range(23)}):
        assert codes(kind, PARTS[kind] | {"pcrs": dump_pcrs(changed)}) == ["pcr_mismatch"] * (1 if 23 in changed else 2)


@KIND
def test_software_that_pcr_23_does_not_hold_is_refused(kind: str) -> None:
    assert codes(kind, PARTS[kind] | {"software": bytes(32)}) == ["pcr_mismatch"]


@KIND
def test_event_log_that_does_not_arrive_at_the_pcrs_is_refused(kind: str) -> None:
    other = SyntheticVtpm(secure_boot=False)
    assert set(codes(kind, PARTS[kind] | {"eventlog": other.event_log})) == {"pcr_mismatch"}


@KIND
def test_without_log_and_software_there_are_no_such_claims(kind: str) -> None:
    bare = {role: data for role, data in PARTS[kind].items() if role not in {"eventlog", "software"}}
    claims = verify(kind, bare).claims
    assert "secure_boot" not in claims
    assert "software" not in claims


@KIND
def test_sha1_bank_is_refused(kind: str) -> None:
    vtpm = VMS[kind].vtpm
    bank = dict.fromkeys(range(24), bytes(20))
    attest = vtpm.quote(NONCE, pcrs=bank, bank=Alg.SHA1)
    quoted = {"quote": attest, "signature_tpmt": vtpm.sign(attest).dump(), "pcrs": dump_pcrs(bank)}
    bare = {role: data for role, data in PARTS[kind].items() if role not in {"eventlog", "software"}}
    assert codes(kind, bare | quoted) == ["algorithm_not_allowed"]


@KIND
def test_sha384_bank_is_taken(kind: str) -> None:
    vtpm = VMS[kind].vtpm
    bank = vtpm.bank(Alg.SHA384)
    attest = vtpm.quote(NONCE, pcrs=bank, bank=Alg.SHA384)
    quoted = {"quote": attest, "signature_tpmt": vtpm.sign(attest).dump(), "pcrs": dump_pcrs(bank)}
    bare = {role: data for role, data in PARTS[kind].items() if role != "software"}
    assert verify(kind, bare | quoted).claims["pcr.4"] == bank[4].hex()


@KIND
def test_part_of_the_other_hardware_is_malformed(kind: str) -> None:
    other = {"snp": "tdx", "tdx": "snp"}[kind]
    for parts in (PARTS[other], PARTS[kind] | {"hcl_report": PARTS[other]["hcl_report"]}):
        with pytest.raises(Malformed):
            verify(kind, parts)


@pytest.mark.parametrize("role", ["hcl_report", "pcrs", "quote", "signature_tpmt"])
def test_missing_part_is_malformed(role: str) -> None:
    with pytest.raises(Malformed):
        verify("snp", {name: data for name, data in PARTS["snp"].items() if name != role})


def test_settings_of_another_type_make_no_claim() -> None:
    vm = AzureAttester(SNP.hardware, SOFTWARE, values=HclValues(version=1))
    vm.configuration = {"secure-boot": 1, "vmUniqueId": "A"}
    claims = verify("snp", vm.parts(NONCE)).claims
    assert "vm.secure_boot" not in claims
    assert (claims["vm.id"], claims["hcl_version"]) == ("A", 1)


@KIND
def test_release_is_verified_with_the_manifest_that_pcr_23_holds(kind: str) -> None:
    vm = VMS[kind]
    binding = ReleaseBinding(
        nonce=Nonce(bytes(32)), custodian=b"c", instance_pub=b"i", kem_pub=b"k", software=b"software manifest"
    )
    evidence = vm.collect(fold(binding.report_data(), field_bytes=vm.report_data_bytes))
    verifier = Verifier([vm.scheme()])
    result = verifier.verify(evidence, binding, vm.policy(), NOW, vm.endorsements)
    assert (result.tee, result.tier) == (vm.tee, TrustTier.AFFIRMING)
    other = replace(binding, software=b"another")
    stale = vm.collect(fold(other.report_data(), field_bytes=vm.report_data_bytes))
    with pytest.raises(Rejected) as refused:
        verifier.verify(stale, other, vm.policy(), NOW, vm.endorsements)
    assert refused.value.code == "software_mismatch"


def test_production_schemes_refuse_a_chip_and_a_platform_nobody_pinned() -> None:
    for scheme, vm in zip(production_azure_vtpm_schemes(), (SNP, TDX), strict=True):
        assert scheme.tee == vm.tee
        with pytest.raises(Rejected):
            scheme.verify(vm.collect(NONCE), vm.endorsements, NOW)


def test_scheme_over_other_hardware_is_a_mistake() -> None:
    with pytest.raises(UsageError):
        AzureVtpmScheme(SyntheticGoogle().scheme())


@KIND
def test_only_malformed_or_rejected_comes_out(kind: str) -> None:
    good = dump_parts(PARTS[kind])
    for damaged in mutated(good, count=400):
        try:
            SCHEMES[kind].verify(Evidence(tee=VMS[kind].tee, payload=damaged), VMS[kind].endorsements, NOW)
        except (Malformed, Rejected):
            continue
