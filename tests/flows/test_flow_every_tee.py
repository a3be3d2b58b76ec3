"""The whole story on every TEE: release, verify, ask; and refused where the hardware is not as it must be.

Vendors are synthetic: structurally exact evidence under roots of the test's own. Everything else is the product.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from flow_house import open_house, row

from cloister.attest.ear import verify_ear
from cloister.attest.endorse import Given
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import TeeKind
from cloister.attest.rules import NoneOf
from cloister.attest.schemes.nvidia import NVIDIA_GPU
from cloister.attest.schemes.snp import SNP
from cloister.errors import Rejected, Unavailable
from cloister.testing.vendors.fleet import MACHINES
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("hardware", sorted(MACHINES))
@asynchronous
async def test_lend_release_verify_and_ask_on(hardware: str, tmp_path: Path) -> None:
    async with open_house(tmp_path, hardware=hardware) as house:
        await house.lend(5)
        async with house.enclave(), await house.client() as client:
            assert client.enclave.result.tee == house.machine.tee
            answer = await client.infer("digits", row(2))
            assert (answer.label, answer.remaining) == ("class-2", 4)
            released = (await house.get(f"/v1/loans/{house.loan}"))["instances"][0]
            assert released["tee"] == house.machine.tee
            assert len(client.enclave.result.submodules) == len(house.machine.devices)


@asynchronous
async def test_the_custodians_result_names_every_device(tmp_path: Path) -> None:
    async with open_house(tmp_path, hardware="snp+gpu") as house:
        await house.lend(5)
        async with house.enclave() as enclave:
            ear = verify_ear(enclave._booted.grant.result, [house.key], house.clock())
            assert set(ear.submodules) == {"nvidia-gpu0", "nvidia-gpu1"}
            assert {device.tee for device in ear.submodules.values()} == {NVIDIA_GPU}
            assert ear.claims["devices.nvidia_gpu"] == 2


@asynchronous
async def test_t16_a_host_that_hides_a_gpu_gets_no_key(tmp_path: Path) -> None:
    async with open_house(tmp_path, hardware="snp+gpu") as house:
        await house.lend(5)
        house.machine = replace(house.machine, devices=house.machine.devices[:1])
        with pytest.raises(Rejected) as refused:
            async with house.enclave():
                pass
        assert {reason.code for reason in refused.value.reasons} == {"devices_mismatch"}


@asynchronous
async def test_t12_a_processor_line_whose_root_key_leaked_gets_no_key_by_name(tmp_path: Path) -> None:
    async with open_house(tmp_path, hardware="snp") as house:
        rules = {**house.machine.policy.tees[SNP].rules, "product": NoneOf(("turin", "milan"))}
        house.machine = replace(house.machine, policy=Policy(version=1, tees={SNP: TeePolicy(rules)}))
        await house.lend(5)
        with pytest.raises(Rejected) as refused:
            async with house.enclave():
                pass
        assert {reason.code for reason in refused.value.reasons} == {"product_mismatch"}


@pytest.mark.parametrize("hardware", ["tdx", "sgx", "snp", "snp+gpu"])
@asynchronous
async def test_t15_without_endorsements_nothing_is_released(hardware: str, tmp_path: Path) -> None:
    async with open_house(tmp_path, hardware=hardware) as house:
        house.service.context.endorsements = Given({})
        await house.lend(5)
        with pytest.raises(Unavailable):
            async with house.enclave():
                pass


@pytest.mark.parametrize("hardware", ["tdx", "nitro"])
@asynchronous
async def test_evidence_of_a_tee_that_the_loan_does_not_name_is_refused(hardware: str, tmp_path: Path) -> None:
    async with open_house(tmp_path, hardware=hardware) as house:
        honest = house.machine
        rules = next(iter(honest.policy.tees.values()))
        house.machine = replace(honest, policy=Policy(version=1, tees={TeeKind("sgx"): rules}))
        await house.lend(5)
        with pytest.raises(Rejected) as refused:
            async with house.enclave():
                pass
        assert {reason.code for reason in refused.value.reasons} == {"tee_not_allowed"}
