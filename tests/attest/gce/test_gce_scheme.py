"""GCE vTPM evidence over a synthetic cloud: certificate, key, quote, boot, attacked one by one."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloister.attest.appraise import appraise
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence, Verdict, VerifiedClaims
from cloister.attest.schemes.gce_vtpm import GCE_VTPM, GceVtpmScheme, production_gce_vtpm_scheme
from cloister.attest.tpm.algorithms import Alg
from cloister.attest.tpm.measured import dump_pcrs
from cloister.attest.tpm.quote import ATTESTATION_KEY
from cloister.attest.tpm.structures import Attribute
from cloister.errors import Malformed, Rejected, UsageError
from cloister.testing.vendors.gce import NOT_AFTER, NOT_BEFORE, GceAttester, Instance, SyntheticGoogle, certificate
from cloister.testing.vendors.vtpm import SyntheticVtpm, rsa_key
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SOFTWARE = hashlib.sha256(b"software manifest").digest()
NONCE = bytes(range(32))
GOOGLE = SyntheticGoogle.generate()
VM = GceAttester(GOOGLE, SOFTWARE)
SCHEME = GOOGLE.scheme()
PARTS = VM.parts(NONCE)


def verify(parts: Mapping[str, bytes], now: datetime = NOW) -> VerifiedClaims:
    return SCHEME.verify(Evidence(tee=GCE_VTPM, payload=dump_parts(parts)), {}, now)


def codes(parts: Mapping[str, bytes], now: datetime = NOW) -> list[str]:
    with pytest.raises(Rejected) as refused:
        verify(parts, now)
    return [reason.code for reason in refused.value.reasons]


def chained(**faults: object) -> dict[str, bytes]:
    return PARTS | {"chain": GOOGLE.chain(VM.leaf(**faults))}


@pytest.mark.parametrize("key", [None, ec.generate_private_key(ec.SECP256R1())], ids=["rsa", "ecc"])
def test_genuine_evidence_is_verified_and_accepted_by_its_policy(key: ec.EllipticCurvePrivateKey | None) -> None:
    vm = GceAttester(GOOGLE, SOFTWARE, key=key)
    verified = SCHEME.verify(vm.collect(NONCE), vm.endorsements, NOW)
    assert verified.report_data == NONCE
    assert verified.claims["instance"] == str(Instance().instance)
    assert (verified.claims["zone"], verified.claims["secure_boot"]) == (Instance().zone, True)
    checks = appraise(verified, vm.policy(), SCHEME.required)
    assert [check for check in checks if check.verdict is Verdict.FAILED] == []
    assert SCHEME.needs(vm.collect(NONCE)) == ()


def test_result_says_that_memory_is_not_protected() -> None:
    skipped = {check.code for check in verify(PARTS).checks if check.verdict is Verdict.NOT_CHECKED}
    assert skipped == {"memory_not_protected", "revocation_unknown"}


FAULTS = {
    "key that encrypts": ({"signing": False}, "chain_invalid"),
    "key that issues": ({"cert_sign": True}, "chain_invalid"),
    "an authority": ({"authority": True}, "chain_invalid"),
    "no instance": ({"extensions": ()}, "chain_invalid"),
    "another signer": ({"signer": rsa_key(6)}, "untrusted_root"),
    "another issuer": ({"issuer": GOOGLE.root_name}, "untrusted_root"),
    "another subject": ({"subject": Instance(instance=7).subject}, "chain_invalid"),
    "another zone": ({"subject": Instance(zone="us-east1-a").subject}, "chain_invalid"),
    "another project": ({"subject": Instance(project="other").subject}, "chain_invalid"),
}


@pytest.mark.parametrize(("fault", "want"), FAULTS.values(), ids=FAULTS)
def test_certificate_out_of_form_is_refused(fault: dict[str, object], want: str) -> None:
    assert codes(chained(**fault)) == [want]


def test_instance_outside_production_is_refused() -> None:
    vm = GceAttester(GOOGLE, SOFTWARE, Instance(properties=(0, False)))
    assert codes(vm.parts(NONCE)) == ["chain_invalid"]


@pytest.mark.parametrize(("now", "want"), [(NOT_BEFORE - DAY, "cert_not_yet_valid"), (NOT_AFTER + DAY, "cert_expired")])
def test_certificate_outside_its_window_is_refused(now: datetime, want: str) -> None:
    assert codes(PARTS, now) == [want]


def test_certificate_for_another_key_is_refused() -> None:
    other = certificate(rsa_key(6), GOOGLE.issue(VM.instance))
    assert codes(PARTS | {"chain": GOOGLE.chain(other)}) == ["key_binding_mismatch"]


def test_chain_to_a_root_nobody_pinned_is_refused() -> None:
    scheme = production_gce_vtpm_scheme()
    with pytest.raises(Rejected) as refused:
        scheme.verify(VM.collect(NONCE), {}, NOW)
    assert refused.value.code == "untrusted_root"


def test_scheme_without_roots_is_a_mistake() -> None:
    with pytest.raises(UsageError):
        GceVtpmScheme([])


@pytest.mark.parametrize("lost", [Attribute.RESTRICTED, Attribute.FIXED_TPM, Attribute.SIGN])
def test_key_that_signs_anything_is_refused(lost: Attribute) -> None:
    public = VM.vtpm.public(ATTESTATION_KEY & ~lost)
    assert codes(PARTS | {"ak_public_tpmt": public.dump()}) == ["ak_attributes_invalid"]


def test_bare_key_is_malformed() -> None:
    with pytest.raises(Malformed):
        verify(PARTS | {"ak_public_tpmt": VM.leaf().public_key_der})


def test_quote_by_another_key_is_refused() -> None:
    other = SyntheticVtpm(rsa_key(6), software=SOFTWARE)
    attest = other.quote(NONCE)
    assert codes(PARTS | {"quote": attest, "signature_tpmt": other.sign(attest).dump()}) == ["signature_invalid"]


def test_signature_in_another_scheme_than_the_keys_is_refused() -> None:
    signature = VM.vtpm.sign(PARTS["quote"], scheme=Alg.RSAPSS)
    assert codes(PARTS | {"signature_tpmt": signature.dump()}) == ["algorithm_not_allowed"]


def test_pcr_software_or_log_of_another_boot_is_refused() -> None:
    assert codes(PARTS | {"pcrs": dump_pcrs(VM.vtpm.pcrs | {0: bytes(32)})}) == ["pcr_mismatch"]
    assert codes(PARTS | {"software": bytes(32)}) == ["pcr_mismatch"]
    assert set(codes(PARTS | {"eventlog": SyntheticVtpm(secure_boot=False).event_log})) == {"pcr_mismatch"}


def test_every_failure_is_told_not_only_the_first() -> None:
    parts = chained(signer=rsa_key(6)) | {"pcrs": dump_pcrs(VM.vtpm.pcrs | {0: bytes(32)})}
    assert set(codes(parts)) == {"untrusted_root", "pcr_mismatch"}


def test_software_digest_of_a_wrong_size_is_malformed() -> None:
    with pytest.raises(Malformed):
        verify(PARTS | {"software": bytes(31)})


@pytest.mark.parametrize("role", ["ak_public_tpmt", "chain", "pcrs", "quote", "signature_tpmt"])
def test_missing_part_is_malformed(role: str) -> None:
    with pytest.raises(Malformed):
        verify({name: data for name, data in PARTS.items() if name != role})


def test_each_bit_of_the_signed_parts_matters() -> None:
    for role in ("ak_public_tpmt", "quote", "signature_tpmt"):
        data = PARTS[role]
        for at in range(0, len(data), 3):
            flipped = data[:at] + bytes((data[at] ^ 1 << at % 8,)) + data[at + 1 :]
            with pytest.raises((Malformed, Rejected)):
                verify(PARTS | {role: flipped})


def test_instance_is_bound_by_the_certificate_alone() -> None:
    moved = replace(GOOGLE.issue(VM.instance), subject=Instance(zone="us-east1-a").subject)
    chain = GOOGLE.chain(certificate(rsa_key(0), moved))
    assert codes(PARTS | {"chain": chain}) == ["chain_invalid"]


def test_only_malformed_or_rejected_comes_out() -> None:
    for damaged in mutated(dump_parts(PARTS), count=400):
        try:
            SCHEME.verify(Evidence(tee=GCE_VTPM, payload=damaged), {}, NOW)
        except (Malformed, Rejected):
            continue
