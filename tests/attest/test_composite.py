"""A CPU and its devices are one attester: bound from both ends, every device appraised, none twice (T16)."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

import pytest

from cloister.attest.binding import NO_DEVICES, ChannelBinding, ReleaseBinding, fold
from cloister.attest.composite import composite_checks
from cloister.attest.devices import MAX_DEVICES, dump_devices, parse_devices
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import Evidence, Nonce, Submodule, TeeKind, TrustTier, Verdict
from cloister.attest.rules import AtLeast
from cloister.attest.schemes.nvidia import NVIDIA_GPU
from cloister.attest.schemes.snp import SNP
from cloister.attest.verifier import Verifier
from cloister.enclave.evidence import EvidenceSource
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.testing.vendors.fleet import MACHINES, Machine
from mutations import mutated

if TYPE_CHECKING:
    from cloister.attest.rats import AttestationResult, ClaimValue

SOFTWARE = b'{"v":1}'
RELEASE = ReleaseBinding(
    nonce=Nonce(b"n" * 32), custodian=b"c" * 32, instance_pub=b"i" * 32, kem_pub=b"k" * 1216, software=SOFTWARE
)
CHANNEL = ChannelBinding(nonce=Nonce(b"m" * 32), keyset=b"{}")


def _now() -> datetime:
    return datetime.now(UTC)


@cache
def machine() -> Machine:
    return MACHINES["snp+gpu"](hashlib.sha256(SOFTWARE).digest(), _now)


@cache
def collected() -> tuple[Evidence, ReleaseBinding]:
    return EvidenceSource(attester=machine().attester, devices=machine().devices).collect(RELEASE)


def _verify(
    evidence: Evidence, binding: ReleaseBinding | ChannelBinding, policy: Policy | None = None
) -> AttestationResult:
    verifier = Verifier(machine().schemes)
    return verifier.verify(evidence, binding, policy or machine().policy, _now(), machine().endorsements)


def _reattested(binding: ReleaseBinding, devices: tuple[Evidence, ...]) -> tuple[Evidence, ReleaseBinding]:
    """Return what a host that owns the devices could do: other devices, and a CPU that really binds them."""
    bound = replace(binding, devices=dump_devices(devices))
    return machine().attester.collect(fold(bound.report_data(), field_bytes=64)), bound


def _codes(evidence: Evidence, binding: ReleaseBinding, policy: Policy | None = None) -> list[str]:
    with pytest.raises(Rejected) as refused:
        _verify(evidence, binding, policy)
    return [reason.code for reason in refused.value.reasons]


def test_every_device_is_a_submodule_and_the_result_says_what_binds_them() -> None:
    result = _verify(*collected())
    assert [(item.name, item.tee) for item in result.submodules] == [
        ("nvidia-gpu0", NVIDIA_GPU),
        ("nvidia-gpu1", NVIDIA_GPU),
    ]
    assert result.claims["devices.nvidia_gpu"] == 2
    assert result.bound["devices"] == collected()[1].devices
    said = {check.subject: check.verdict for check in result.checks if check.code == "composite_mismatch"}
    assert said == {
        "devices in the cpu's report data": Verdict.PASSED,
        "nonce and keys in every device": Verdict.PASSED,
        "every device once": Verdict.PASSED,
        "devices in this machine": Verdict.NOT_CHECKED,
        "one mode of all gpus": Verdict.PASSED,
        "wiring of gpus": Verdict.NOT_CHECKED,
    }
    assert {item.claims["device"] for item in result.submodules} == {"412921ce551e4eeda3", "412921ce551e4eeda4"}


def test_a_consumers_channel_binds_devices_too() -> None:
    evidence, binding = EvidenceSource(attester=machine().attester, devices=machine().devices).collect(CHANNEL)
    assert len(_verify(evidence, binding).submodules) == 2
    with pytest.raises(Rejected):
        _verify(evidence, replace(binding, devices=NO_DEVICES))


def test_t16_device_evidence_of_another_nonce_is_refused() -> None:
    other = replace(RELEASE, nonce=Nonce(b"x" * 32))
    stale = tuple(device.collect(other.device_report_data()[:32]) for device in machine().devices)
    assert _codes(*_reattested(RELEASE, stale)) == ["report_data_mismatch"]


def test_t16_device_evidence_made_for_another_enclaves_keys_is_refused() -> None:
    other = replace(RELEASE, kem_pub=b"z" * 1216)
    stolen = tuple(device.collect(other.device_report_data()[:32]) for device in machine().devices)
    assert _codes(*_reattested(RELEASE, stolen)) == ["report_data_mismatch"]


def test_t16_devices_swapped_after_the_cpu_reported_are_refused() -> None:
    evidence, binding = collected()
    first, second = parse_devices(binding.devices)
    for devices in ((second, first), (first,), (first, first), ()):
        assert "report_data_mismatch" in _codes(evidence, replace(binding, devices=dump_devices(devices)))


def test_t16_one_device_twice_is_not_two() -> None:
    first, _ = parse_devices(collected()[1].devices)
    assert _codes(*_reattested(RELEASE, (first, first))) == ["composite_mismatch"]


@pytest.mark.parametrize("binding", [RELEASE, CHANNEL], ids=["release", "channel"])
def test_t16_a_genuine_gpu_in_the_place_of_the_cpu_is_refused(binding: ReleaseBinding | ChannelBinding) -> None:
    """The owner of a GPU needs no TEE to have it sign a nonce: keys would go to whatever code asked."""
    alone = machine().devices[0].collect(fold(binding.report_data(), field_bytes=32))
    assert _codes(alone, binding) == ["composite_mismatch"]
    devices = Policy(version=1, tees={NVIDIA_GPU: machine().policy.tees[NVIDIA_GPU]})
    assert _verify(alone, binding, devices).tee == NVIDIA_GPU  # a policy that is about devices by themselves


def test_devices_left_out_are_missed_where_the_policy_counts_them() -> None:
    first, _ = parse_devices(collected()[1].devices)
    assert _codes(*_reattested(RELEASE, (first,))) == ["devices_mismatch"]
    assert _codes(*_reattested(RELEASE, ())) == ["claim_missing"]
    rules = dict(machine().policy.tees[SNP].rules)
    loose = Policy(
        version=1,
        tees={**machine().policy.tees, SNP: TeePolicy({**rules, "devices.nvidia_gpu": AtLeast(1)})},
    )
    assert len(_verify(*_reattested(RELEASE, (first,)), loose).submodules) == 1


def test_a_device_that_no_policy_names_is_refused_never_passed_over() -> None:
    alone = Policy(version=1, tees={SNP: machine().policy.tees[SNP]})
    assert _codes(*collected(), alone) == ["tee_not_allowed"]


def test_one_bad_device_refuses_the_machine_and_is_named() -> None:
    first, second = parse_devices(collected()[1].devices)
    broken = Evidence(tee=second.tee, payload=second.payload[:-2000] + bytes(2000))
    with pytest.raises((Rejected, Malformed)):
        _verify(*_reattested(RELEASE, (first, broken)))
    denied = dict(machine().policy.tees[NVIDIA_GPU].rules)
    del denied["device"]
    with pytest.raises(Rejected) as refused:
        _verify(
            *collected(),
            Policy(version=1, tees={SNP: machine().policy.tees[SNP], NVIDIA_GPU: TeePolicy(denied)}),
        )
    assert refused.value.message.startswith("nvidia-gpu0 refused")


def test_what_devices_need_is_asked_for_before_and_its_absence_is_unavailable() -> None:
    evidence, binding = collected()
    needs = Verifier(machine().schemes).needs(evidence, binding.devices)
    assert {"amd/turin/crl"} < set(needs)
    assert sum(name.startswith("nvidia/rim/") for name in needs) == 2
    for name in needs:
        less = {key: value for key, value in machine().endorsements.items() if key != name}
        with pytest.raises(Unavailable):
            Verifier(machine().schemes).verify(evidence, binding, machine().policy, _now(), less)


def test_a_device_with_something_unchecked_lowers_the_whole() -> None:
    from cloister.attest.rules import NotChecked  # noqa: PLC0415 - next to its one use

    rules = {**machine().policy.tees[NVIDIA_GPU].rules, "device": NotChecked("any of this fleet")}
    loose = Policy(version=1, tees={**machine().policy.tees, NVIDIA_GPU: TeePolicy(rules)})
    assert _verify(*collected(), loose).tier is TrustTier.WARNING


def _device(tee: str, **claims: ClaimValue) -> Submodule:
    return Submodule(name=f"{tee}0", tee=TeeKind(tee), claims=claims, checks=(), tier=TrustTier.AFFIRMING)


def _said(*devices: Submodule) -> dict[str, Verdict]:
    return {check.subject: check.verdict for check in composite_checks(devices)}


def test_gpus_in_different_modes_are_refused() -> None:
    one, other = _device("nvidia-gpu", device="a", cc_mode="spt"), _device("nvidia-gpu", device="b", cc_mode="ppcie")
    assert _said(one, one)["one mode of all gpus"] is Verdict.PASSED
    assert _said(one, other)["one mode of all gpus"] is Verdict.FAILED


def test_a_device_wired_to_one_that_is_not_there_is_refused() -> None:
    gpu = _device("nvidia-gpu", device="a", pdi="aa", switches=("cc",))
    switch = _device("nvidia-switch", device="c", pdi="cc", gpus=("aa",))
    assert _said(gpu, switch)["wiring of gpus and switches"] is Verdict.PASSED
    other = _device("nvidia-switch", device="c", pdi="cc", gpus=("aa", "bb"))
    assert _said(gpu, other)["wiring of gpus and switches"] is Verdict.FAILED
    stranger = _device("nvidia-gpu", device="a", pdi="aa", switches=("cc", "dd"))
    assert _said(stranger, switch)["wiring of gpus and switches"] is Verdict.FAILED
    assert _said(gpu)["wiring of gpus"] is Verdict.NOT_CHECKED


def test_devices_out_of_form_are_malformed() -> None:
    honest = collected()[1].devices
    assert dump_devices(parse_devices(honest)) == honest
    for bad in (
        b"x",
        honest[:-1],
        honest + b"\0",
        honest[:17] + b"\x02" + honest[18:],
        honest[:18] + b"\0" + honest[19:],
    ):
        with pytest.raises(Malformed):
            parse_devices(bad)
    with pytest.raises(UsageError):
        dump_devices([Evidence(tee=TeeKind("nvidia-gpu"), payload=b"")] * (MAX_DEVICES + 1))


def test_ten_thousand_damaged_device_lists_are_malformed_or_taken() -> None:
    small = dump_devices([Evidence(tee=TeeKind("nvidia-gpu"), payload=bytes(range(64)))] * 3)
    for data in mutated(small):
        try:
            parse_devices(data)
        except Malformed:
            continue
