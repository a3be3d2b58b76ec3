"""The vector says what was proven of each kind, warns where something is weak, and says nothing beyond."""

from __future__ import annotations

import pytest

from cloister.attest.rats import Check, TeeKind, Verdict
from cloister.attest.schemes import KINDS
from cloister.attest.trust_vector import WARNS, trust_vector


def _checks(*passed: str, skipped: tuple[str, ...] = ()) -> list[Check]:
    found = [Check(code=f"{name}_mismatch", subject=name, verdict=Verdict.PASSED) for name in passed]
    return found + [Check(code=code, subject="s", verdict=Verdict.NOT_CHECKED, note="why") for code in skipped]


SNP, TDX, TPM = TeeKind("snp"), TeeKind("tdx"), TeeKind("tpm")


def test_nothing_compared_affirms_no_software_and_no_instance() -> None:
    for kind in KINDS:
        assert not {"executables", "configuration", "instance-identity"} & set(trust_vector(kind, {}, []))


@pytest.mark.parametrize("missing", ["mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"])
def test_executables_need_every_register_of_the_boot(missing: str) -> None:
    names = {"mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"}
    assert trust_vector(TDX, {}, _checks(*names))["executables"] == 3
    assert "executables" not in trust_vector(TDX, {}, _checks(*names - {missing}))


@pytest.mark.parametrize("code", ["revocation_unknown", "untrusted_root", "revoked", "chain_invalid"])
def test_t14_hardware_warns_where_revocation_or_the_chain_was_left_out(code: str) -> None:
    assert trust_vector(SNP, {}, _checks())["hardware"] == 2
    assert trust_vector(SNP, {}, _checks(skipped=(code,)))["hardware"] == WARNS


def test_t8_hardware_warns_where_a_policy_tolerates_an_old_tcb_or_advisories() -> None:
    assert trust_vector(TDX, {"tcb_status": "UpToDate", "advisory_ids": ()}, [])["hardware"] == 2
    assert trust_vector(TDX, {"tcb_status": "OutOfDate", "advisory_ids": ()}, [])["hardware"] == WARNS
    assert trust_vector(TDX, {"tcb_status": "UpToDate", "advisory_ids": ("INTEL-SA-00615",)}, [])["hardware"] == WARNS


def test_a_simulated_tee_never_has_genuine_hardware() -> None:
    assert "hardware" not in trust_vector(TeeKind("simulated"), {}, _checks("measurement", "chip_id", "hardware"))


def test_memory_is_opaque_only_where_it_is_encrypted() -> None:
    opaque = {kind for kind in KINDS if "runtime-opaque" in trust_vector(kind, {}, [])}
    assert opaque == {"azure-snp-vtpm", "azure-tdx-vtpm", "cca", "nvidia-gpu", "sgx", "snp", "tdx"}


def test_a_token_is_its_issuers_word_and_nothing_of_it_is_affirmed_by_us() -> None:
    for kind in ("maa", "ita", "nras", "confidential-space"):
        assert trust_vector(TeeKind(kind), {}, _checks("measurement", "software", "host_data")) == {}


def test_a_tpms_hardware_needs_the_whole_boot_chain() -> None:
    boot = {f"pcr.{index}" for index in range(8)}
    assert "hardware" not in trust_vector(TPM, {}, _checks(*boot - {"pcr.4"}))
    assert trust_vector(TPM, {}, _checks(*boot))["hardware"] == 2
