"""What reports from the field have that the first samples had not."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from cloister.attest.dossier import judge, nvidia
from cloister.attest.nvidia.devicechain import Arch, DeviceChain
from cloister.attest.schemes.nvidia import NVIDIA_GPU, NVIDIA_SWITCH
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.nvidia import Device, NvidiaVendor
from cloister.testing.vendors.nvidia.device import attestation_key

VENDOR = NvidiaVendor.generate()
NOW = datetime(2026, 6, 1, tzinfo=UTC)
NONCE = bytes(range(32))
HOPPER, SWITCH = VENDOR.device(), VENDOR.device(Arch.LS10)


def chain_of(chip: str) -> DeviceChain:
    device = VENDOR.device(Arch.BLACKWELL)
    leaf = attestation_key(device.issuer, Arch.BLACKWELL, name=f"{chip} A01 GSP FMC LF")
    return DeviceChain(certificates=(leaf.certificate, *device.chain[1:]))


@pytest.mark.parametrize("chip", ["GB100", "GB10B", "GB202", "GB20X"])
def test_a_chip_that_names_its_family_with_a_letter_is_a_blackwell(chip: str) -> None:
    assert chain_of(chip).arch is Arch.BLACKWELL


@pytest.mark.parametrize("chip", ["GB20", "GB20XX", "GB20x", "GR100"])
def test_another_chip_is_not_taken_for_one(chip: str) -> None:
    with pytest.raises(Rejected, match="unsupported_format"):
        _ = chain_of(chip).arch


def element(device: Device, **beside: str) -> dict[str, str]:
    report, chain = (base64.b64encode(data).decode() for data in (device.report(NONCE), device.chain_pem))
    return {"evidence": report, "certificate": chain, **beside}


def codes(document: Any, **along: bytes) -> list[str]:
    files = {"evidence": json.dumps(document).encode(), **along}
    schemes = [VENDOR.scheme(tee, nvidia.RELAXED) for tee in (NVIDIA_GPU, NVIDIA_SWITCH)]
    return [reason.code for reason in judge(nvidia.open_devices(files, {}, schemes), NOW).reasons]


def test_a_request_to_the_vendors_service_is_a_list_of_devices() -> None:
    devices = [element(HOPPER), element(HOPPER)]
    assert codes({"arch": "HOPPER", "nonce": NONCE.hex(), "evidence_list": devices}) == []
    assert codes({"arch": "LS10", "nonce": NONCE.hex(), "evidence_list": devices}) == ["arch_mismatch"] * 2
    assert codes({"nonce": "00" * 32, "evidence_list": devices}) == ["nonce_mismatch"] * 2
    assert codes({"nonce": "00" * 32, "evidence_list": [element(HOPPER, nonce=NONCE.hex())]}) == []
    assert codes({"evidence_list": [element(HOPPER), element(SWITCH)]}) == []


@pytest.mark.parametrize("inside", [[], ["report"], "report", None])
def test_a_request_without_devices_is_malformed(inside: object) -> None:
    with pytest.raises(Malformed):
        codes({"arch": "HOPPER", "evidence_list": inside})


def test_manifests_beside_a_list_are_those_of_every_device() -> None:
    assert codes([element(HOPPER)] * 2, vbios_rim=VENDOR.vbios_rim(HOPPER)) == []
    assert codes([element(HOPPER)] * 2, vbios_rim=VENDOR.vbios_rim(HOPPER, version="1")) == ["collateral_mismatch"] * 2
