"""A machine with one thing wrong gets no key, whatever else is right, and is told why."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from flow_house import open_house

from cloister.errors import Rejected
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("hardware", ["nitro", "sgx", "snp+gpu", "tdx"])
@asynchronous
async def test_no_key_for_a_machine_with_one_thing_wrong(hardware: str, tmp_path: Path) -> None:
    async with open_house(tmp_path, hardware=hardware) as house:
        await house.lend(5)
        honest = house.machine
        assert honest is not None
        assert len(honest.faults) == 3
        for name, fault in honest.faults.items():
            house.machine = replace(honest, attester=fault.attester, devices=fault.devices)
            with pytest.raises(Rejected) as refused:
                async with house.enclave():
                    pass
            assert {reason.code for reason in refused.value.reasons} == fault.codes, name
        house.machine = honest
        async with house.enclave():
            assert (await house.get(f"/v1/loans/{house.loan}"))["instances"][0]["tee"] == honest.tee
