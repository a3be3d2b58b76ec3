"""The TPM scheme under the Verifier: what a borrower with root on the machine would try."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from cloister.attest.binding import ReleaseBinding, fold
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import Evidence, Nonce, TrustTier
from cloister.attest.rules import NotChecked, OneOf
from cloister.attest.schemes import production_schemes
from cloister.attest.schemes.tpm import TPM_TEE, TpmScheme, tpm_policy
from cloister.attest.software import SoftwareManifest
from cloister.attest.tpm.ek import device_of
from cloister.attest.tpm.evidence import TpmEvidence
from cloister.attest.tpm.policy import software_pcr_value
from cloister.attest.tpm.quote import ATTESTATION_KEY
from cloister.attest.tpm.structures import Attribute
from cloister.attest.verifier import Verifier
from cloister.errors import Malformed, Rejected, UsageError
from tpm_kit import NOW, RSA_KEYS, Authority, SoftTpm, ak_public
from tpm_log import LOG, PCRS

if TYPE_CHECKING:
    from collections.abc import Callable

MANIFEST = SoftwareManifest(code="11" * 32, python="3.13", packages={}, settings={}).dump()
DIGEST = hashlib.sha256(MANIFEST).digest()
AUTHORITY = Authority()
TPM = SoftTpm(pcrs={23: software_pcr_value(DIGEST)})
CHAIN = (AUTHORITY.certify(TPM), AUTHORITY.certificate)
BINDING = ReleaseBinding(
    nonce=Nonce(bytes(32)), custodian=b"c" * 32, instance_pub=b"i" * 32, kem_pub=b"k" * 1216, software=MANIFEST
)
REPORT_DATA = fold(BINDING.report_data(), field_bytes=32)
BOOT = {index: (TPM.pcrs[index].hex(),) for index in range(8)}
POLICY = tpm_policy([device_of(TPM.ek)], [DIGEST.hex()], BOOT)
VERIFIER = Verifier([TpmScheme([AUTHORITY.certificate])])


def evidence(tpm: SoftTpm = TPM, nonce: bytes = REPORT_DATA, **other: Any) -> Evidence:
    parts = {"certificates": CHAIN, "software": DIGEST} | other
    return Evidence(tee=TPM_TEE, payload=tpm.evidence(nonce, **parts).dump())


def codes(shown: Evidence, policy: Policy = POLICY, binding: ReleaseBinding = BINDING, now: datetime = NOW) -> set[str]:
    with pytest.raises(Rejected) as refused:
        VERIFIER.verify(shown, binding, policy, now)
    return {reason.code for reason in refused.value.reasons}


def test_good_evidence_is_accepted_with_a_warning_that_memory_is_open() -> None:
    result = VERIFIER.verify(evidence(), BINDING, POLICY, NOW)
    assert result.claims["device"] == device_of(TPM.ek)
    assert result.claims["software"] == DIGEST.hex()
    assert result.claims["pcr.23"] == TPM.pcrs[23].hex()
    assert result.claims["firmware_version"] == "2019102300163636"
    assert result.claims["manufacturer"] == "id:53494D00"
    assert result.bound["kem_pub"] == BINDING.kem_pub
    assert result.tier is TrustTier.WARNING
    assert "memory_not_protected" in {check.code for check in result.checks}


def test_rsa_attestation_keys_are_accepted_too() -> None:
    tpm = SoftTpm(ak_key=RSA_KEYS[0], ek_key=TPM.ek_key, pcrs=dict(TPM.pcrs))
    VERIFIER.verify(evidence(tpm, certificates=(AUTHORITY.certify(tpm),)), BINDING, POLICY, NOW)


def test_a_quote_for_another_nonce_is_refused() -> None:
    other = replace(BINDING, nonce=Nonce(b"\1" * 32))
    assert codes(evidence(), binding=other) == {"report_data_mismatch"}


@pytest.mark.parametrize("nonce", [b"", REPORT_DATA[:-1], REPORT_DATA + b"\0", REPORT_DATA[:31] + b"\0"])
def test_a_nonce_of_another_length_is_another_nonce(nonce: bytes) -> None:
    assert codes(evidence(nonce=nonce)) == {"report_data_mismatch"}


@pytest.mark.parametrize("name", ["custodian", "instance_pub", "kem_pub"])
def test_a_key_swapped_by_the_host_is_refused(name: str) -> None:
    value = getattr(BINDING, name)
    flipped = replace(BINDING, **{name: bytes((value[0] ^ 1,)) + value[1:]})
    assert codes(evidence(), binding=flipped) == {"report_data_mismatch"}


def test_pcrs_other_than_quoted_are_refused() -> None:
    assert codes(evidence(pcrs=TPM.pcrs | {7: bytes(32)})) == {"pcr_mismatch"}


def test_software_other_than_measured_is_refused() -> None:
    assert codes(evidence(software=bytes(32))) == {"pcr_mismatch"}
    fewer = SoftTpm(ek_key=TPM.ek_key, ak_key=TPM.ak_key)
    del fewer.pcrs[23]
    assert codes(evidence(fewer)) == {"pcr_mismatch"}


def test_another_manifest_than_measured_is_refused() -> None:
    other = replace(BINDING, software=MANIFEST.replace(b"3.13", b"3.14"))
    shown = evidence(nonce=fold(other.report_data(), field_bytes=32))
    assert codes(shown, binding=other) == {"software_mismatch"}


def test_a_machine_that_booted_otherwise_is_refused_with_every_reason() -> None:
    evil = SoftTpm(ek_key=TPM.ek_key, ak_key=TPM.ak_key, pcrs={4: bytes(32), 7: bytes(32), 23: TPM.pcrs[23]})
    with pytest.raises(Rejected) as refused:
        VERIFIER.verify(evidence(evil), BINDING, POLICY, NOW)
    assert [(reason.code, reason.subject) for reason in refused.value.reasons] == [
        ("pcr_mismatch", "pcr.4"),
        ("pcr_mismatch", "pcr.7"),
    ]


def test_another_device_than_the_policy_names_is_refused() -> None:
    other = SoftTpm(pcrs=dict(TPM.pcrs))
    assert codes(evidence(other, certificates=(AUTHORITY.certify(other),))) == {"device_mismatch"}


def test_boot_pcrs_left_out_of_the_quote_are_missed() -> None:
    short = SoftTpm(ek_key=TPM.ek_key, ak_key=TPM.ak_key, pcrs=dict(TPM.pcrs))
    del short.pcrs[4]
    assert codes(evidence(short)) == {"claim_missing"}


def test_a_policy_that_forgets_boot_or_software_is_no_policy() -> None:
    rules = dict(POLICY.tees[TPM_TEE].rules)
    for name in ("device", "software", "pcr.0", "pcr.7"):
        fewer = Policy(version=1, tees={TPM_TEE: TeePolicy({k: v for k, v in rules.items() if k != name})})
        assert codes(evidence(), fewer) == {"policy_incomplete"}


def test_an_unmeasured_software_is_missed() -> None:
    assert codes(evidence(software=b"")) == {"claim_missing"}


def test_a_key_of_an_unknown_authority_is_refused() -> None:
    stranger = Authority()
    shown = evidence(certificates=(stranger.certify(TPM), stranger.certificate))
    assert codes(shown) == {"untrusted_root"}


def test_an_old_certificate_is_refused() -> None:
    assert codes(evidence(), now=NOW + timedelta(days=91)) == {"cert_expired"}
    assert codes(evidence(), now=NOW - timedelta(days=1)) == {"cert_not_yet_valid"}


def test_a_certified_key_that_is_not_restricted_is_refused() -> None:
    """An authority that certified carelessly does not make a forger's key good."""
    loose = SoftTpm(ek_key=TPM.ek_key, ak_key=TPM.ak_key, pcrs=dict(TPM.pcrs))
    loose.ak = ak_public(TPM.ak_key, ATTESTATION_KEY & ~Attribute.RESTRICTED)
    assert codes(evidence(loose, certificates=(AUTHORITY.certify(loose),))) == {"ak_attributes_invalid"}


def test_a_quote_signed_by_another_key_is_refused() -> None:
    attest = TPM.quote(REPORT_DATA).dump()
    forged = TPM.sign(attest, SoftTpm().ak_key).dump()
    assert codes(evidence(signature=forged)) == {"signature_invalid"}


def test_an_event_log_explains_the_quote_or_is_refused() -> None:
    tpm = SoftTpm(ek_key=TPM.ek_key, ak_key=TPM.ak_key, pcrs=PCRS | {23: TPM.pcrs[23]})
    boot = {index: (tpm.pcrs[index].hex(),) for index in range(8)}
    rules = dict(tpm_policy([device_of(TPM.ek)], [DIGEST.hex()], boot).tees[TPM_TEE].rules)
    policy = Policy(version=1, tees={TPM_TEE: TeePolicy(rules | {"secure_boot": OneOf(("x",))})})
    assert codes(evidence(tpm, event_log=LOG), policy) == {"secure_boot_mismatch"}
    policy = Policy(version=1, tees={TPM_TEE: TeePolicy(rules | {"secure_boot": NotChecked("shown")})})
    result = VERIFIER.verify(evidence(tpm, event_log=LOG), BINDING, policy, NOW)
    assert result.claims["secure_boot"] is True
    assert codes(evidence(tpm), policy) == {"claim_missing"}
    assert codes(evidence(tpm, event_log=LOG[: LOG.rindex(b"path") - 4 - 32] + bytes(32) + LOG[-8:]), policy) == {
        "pcr_mismatch"
    }


def test_tampered_log_data_says_nothing_about_secure_boot() -> None:
    name = "SecureBoot".encode("utf-16-le")
    tpm = SoftTpm(ek_key=TPM.ek_key, ak_key=TPM.ak_key, pcrs=PCRS | {23: TPM.pcrs[23]})
    shown = evidence(tpm, event_log=LOG.replace(name + b"\x01", name + b"\x00"))
    claims = TpmScheme([AUTHORITY.certificate]).verify(shown, {}, NOW).claims
    assert "secure_boot" not in claims


def test_boot_left_unchecked_needs_a_reason_and_lowers_the_tier() -> None:
    with pytest.raises(UsageError):
        tpm_policy([device_of(TPM.ek)], [DIGEST.hex()])
    loose = tpm_policy([device_of(TPM.ek)], [DIGEST.hex()], why="a bench without firmware")
    assert VERIFIER.verify(evidence(), BINDING, loose, NOW).tier is TrustTier.WARNING


def test_no_authority_is_no_scheme() -> None:
    with pytest.raises(UsageError):
        TpmScheme([])
    assert TPM_TEE not in {scheme.tee for scheme in production_schemes()}
    with pytest.raises(Malformed):
        TpmScheme([b"not a certificate"])


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"X" + data[1:],
        lambda data: data[:13] + b"\x02" + data[14:],
        lambda data: data + b"\0",
        lambda data: data[:-1],
        lambda _: b"",
    ],
)
def test_evidence_out_of_form_is_malformed(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(Malformed):
        VERIFIER.verify(Evidence(tee=TPM_TEE, payload=change(evidence().payload)), BINDING, POLICY, NOW)


def test_evidence_without_certificate_or_with_doubled_pcrs_is_malformed() -> None:
    good = TpmEvidence.parse(evidence().payload)
    with pytest.raises(Malformed, match="0 certificates"):
        TpmEvidence.parse(replace(good, certificates=()).dump())
    with pytest.raises(Malformed, match="6 certificates"):
        TpmEvidence.parse(replace(good, certificates=CHAIN * 3).dump())
    with pytest.raises(Malformed, match="software digest"):
        TpmEvidence.parse(replace(good, software=b"short").dump())
    data = replace(good, pcrs={22: bytes(32), 23: bytes(32)}).dump()
    with pytest.raises(Malformed, match="each once"):
        TpmEvidence.parse(data.replace(b"\x17" + bytes(32), b"\x16" + bytes(32)))
    with pytest.raises(Malformed, match="pcr 24"):
        TpmEvidence.parse(data.replace(b"\x17" + bytes(32), b"\x18" + bytes(32)))
    assert TpmEvidence.parse(good.dump()) == good
