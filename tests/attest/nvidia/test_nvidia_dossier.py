"""Files of devices judged: every element of a list, what stands beside a report, members nobody understands."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from cloister.attest.describe.nvidia import NvidiaReportDescriber, NvidiaRimDescriber
from cloister.attest.dossier import Case, judge, nvidia, nvidia_rim
from cloister.attest.nvidia.devicechain import Arch
from cloister.attest.schemes.nvidia import NVIDIA_GPU, NVIDIA_SWITCH
from cloister.errors import Malformed, Unavailable
from cloister.testing.vendors.nvidia import Device, NvidiaVendor
from cloister.testing.vendors.nvidia.manifests import build_manifest, sign_manifest

VENDOR = NvidiaVendor.generate()
NOW = datetime(2026, 6, 1, tzinfo=UTC)
NONCE = bytes(range(32))
SCHEMES = [VENDOR.scheme(tee, nvidia.RELAXED) for tee in (NVIDIA_GPU, NVIDIA_SWITCH)]
HOPPER, SWITCH = VENDOR.device(), VENDOR.device(Arch.LS10)
FILES = {"report_bin": HOPPER.report(NONCE), "chain": HOPPER.chain_pem}


def element(device: Device, sent: bytes = NONCE, **beside: str) -> dict[str, str]:
    report, chain = (base64.b64encode(data).decode() for data in (device.report(sent), device.chain_pem))
    return {"evidence": report, "certificate": chain, **beside}


def listed(*elements: Any) -> dict[str, bytes]:
    return {"evidence": json.dumps(list(elements)).encode()}


def opened(files: dict[str, bytes], policy: dict[str, Any] | None = None) -> Case:
    return nvidia.open_devices(files, policy or {}, SCHEMES)


def codes(files: dict[str, bytes], policy: dict[str, Any] | None = None) -> list[str]:
    """Return the reasons."""
    try:
        return [reason.code for reason in judge(opened(files, policy), NOW).reasons]
    except Malformed:
        return ["malformed"]


def test_a_list_of_devices_is_accepted_and_speaks_of_the_first() -> None:
    files = listed(element(HOPPER, arch="HOPPER", nonce=NONCE.hex()), element(SWITCH, arch="LS10"))
    case = opened(files, {"nonce": NONCE.hex()})
    assert not judge(case, NOW).reasons
    assert case.claims["driver"] == "590.12"


def test_one_bad_device_spoils_the_list() -> None:
    forged = element(HOPPER)
    forged["evidence"] = base64.b64encode(HOPPER.report(NONCE)[:-1] + b"\0").decode()
    assert codes(listed(element(SWITCH), forged)) == ["signature_invalid"]
    stale = element(SWITCH, bytes(32))
    assert codes(listed(element(HOPPER), stale), {"nonce": NONCE.hex()}) == ["nonce_mismatch"]


@pytest.mark.parametrize(
    ("beside", "code"),
    [
        ({"arch": "BLACKWELL"}, "arch_mismatch"),
        ({"nonce": "00" * 32}, "nonce_mismatch"),
        ({"driver_version": "1"}, "driver_mismatch"),
        ({"vbios_version": "96.00.A5.00.02"}, "vbios_mismatch"),
    ],
)
def test_what_stands_beside_a_report_has_to_be_what_it_says(beside: dict[str, str], code: str) -> None:
    assert codes(listed(element(HOPPER, **beside))) == [code]
    right = {"arch": "HOPPER", "nonce": NONCE.hex(), "driver_version": "590.12", "vbios_version": "96.00.a5.00.01"}
    assert codes(listed(element(HOPPER, **right))) == []


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        ({"nonce": "00"}, "nonce_mismatch"),
        ({"challenge": "00" * 32}, "nonce_mismatch"),
        ({"driver": "590.13"}, "driver_mismatch"),
        ({"driver": ["590.13", "1"]}, "driver_mismatch"),
        ({"vbios": "00"}, "vbios_mismatch"),
        ({"vbios": "96.00.A5.00.02"}, "vbios_mismatch"),
        ({"arch": "LS10"}, "arch_mismatch"),
        ({"fwid": "00" * 48}, "fwid_mismatch"),
        ({"serial": "1"}, "serial_mismatch"),
        ({"project": ["X"]}, "project_mismatch"),
        ({"measurement_64": "00" * 48}, "measurement_mismatch"),
        ({"measurement_65": "00" * 48}, "measurement_mismatch"),
        ({"n_measurements": 63}, "n_measurements_mismatch"),
    ],
)
def test_members_of_a_policy_bite(policy: dict[str, Any], code: str) -> None:
    assert codes(FILES, policy) == [code]


def test_members_of_a_policy_pass_where_they_are_right() -> None:
    wanted = {
        "nonce": NONCE.hex(),
        "driver": ["590.13", "590.12"],
        "vbios": "00a5009601000000",
        "arch": "HOPPER",
        "n_measurements": 64,
        "measurement_1": HOPPER.measurements[1].hex(),
        "project": "G520",
    }
    assert codes(FILES, wanted) == []


@pytest.mark.parametrize(
    "policy", [{"colour": "green"}, {"nonce": 5}, {"nonce": "xyz"}, {"project": []}, {"driver": []}]
)
def test_a_member_nobody_understands_is_undecided(policy: dict[str, Any]) -> None:
    with pytest.raises(Unavailable):
        nvidia.open_case(FILES, policy)


def test_files_that_are_missing_or_nobody_looks_at_are_undecided() -> None:
    for files in ({}, {"chain": FILES["chain"]}, {**FILES, "root": b""}, {"evidence": b"[]", "chain": b""}):
        with pytest.raises(Unavailable):
            nvidia.open_case(files, {})


def test_manifests_are_compared_and_claimed() -> None:
    rim = VENDOR.vbios_rim(HOPPER)
    case = opened({**FILES, "vbios_rim": rim})
    assert not judge(case, NOW).reasons
    assert case.claims["vbios_rim_mismatching_indices"] == []
    assert case.claims["vbios_rim"]["active"] == 12
    other = VENDOR.vbios_rim(HOPPER, version="1")
    assert codes({**FILES, "vbios_rim": other}) == ["collateral_mismatch"]


@pytest.mark.parametrize(
    "files",
    [
        listed(),
        listed(*[element(SWITCH)] * 33),
        listed({"evidence": "AA=="}),
        listed({"evidence": "*", "certificate": "AA=="}),
        {"evidence": b"{"},
        {"evidence": b"7"},
        {"evidence": b"\xff"},
    ],
)
def test_what_is_no_list_of_devices_is_malformed(files: dict[str, bytes]) -> None:
    assert codes(files) == ["malformed"]


def test_a_manifest_alone_is_judged_under_the_pinned_root() -> None:
    rim, root = VENDOR.driver_rim(HOPPER), VENDOR.rim_root.certificate
    good = nvidia_rim.open_rim({"rim": rim, "root": root.pem}, {"version": "590.12"}, root)
    assert not judge(good, NOW).reasons
    assert good.claims["active"] == 22
    other = NvidiaVendor.generate().rim_root.certificate.pem
    for files, policy, code in (
        ({"rim": rim, "root": other}, {}, "untrusted_root"),
        ({"rim": rim}, {"version": "1"}, "collateral_mismatch"),
        ({"rim": rim.replace(b'revision="r1"', b'revision="r2"')}, {}, "rim_signature_invalid"),
        ({"rim": NvidiaVendor.generate().driver_rim(HOPPER)}, {}, "untrusted_root"),
    ):
        assert [reason.code for reason in judge(nvidia_rim.open_rim(files, policy, root), NOW).reasons] == [code]
    with pytest.raises(Unavailable):
        nvidia_rim.open_case({"rim": rim}, {"colour": "green"})


def test_reports_and_manifests_are_explained_field_by_field() -> None:
    reports, rims = NvidiaReportDescriber(), NvidiaRimDescriber()
    files = listed(element(HOPPER), element(SWITCH))["evidence"]
    for data in (FILES["report_bin"], files):
        assert reports.recognises(data)
        assert all(field.meaning for field in reports.describe(data).fields)
    names = {field.name: field.value for field in reports.describe(files).fields}
    assert names["device 1: driver_version"] == "590.12"
    assert names["device 2: vbios"] == "96.10.55.00.01"
    rim = VENDOR.vbios_rim(HOPPER)
    assert rims.recognises(rim)
    assert not rims.recognises(files)
    assert not reports.recognises(rim)
    shown = {field.name: field.meaning for field in rims.describe(rim).fields}
    assert shown["index 12"] == "golden values of measurement 13"
    assert shown["index 7"] == "not compared"
    floors = sign_manifest(build_manifest("1", "GH100", {}, floors={77: 5}), VENDOR.signer(), ())
    assert {field.name: field.value for field in rims.describe(floors).fields}["index 4173"] == "5"
    for files in (listed()["evidence"], listed({"evidence": "*", "certificate": "AA=="})["evidence"]):
        with pytest.raises(Malformed):
            reports.describe(files)
    with pytest.raises(Malformed):
        reports.describe(b"\x12" + FILES["report_bin"][1:])
    with pytest.raises(Malformed):
        reports.describe(FILES["report_bin"][:37] + b"\x12" + FILES["report_bin"][38:])


def test_nothing_of_ours_is_below_nvidias_own_roots() -> None:
    for case in (nvidia.open_case(FILES, {}), nvidia_rim.open_case({"rim": VENDOR.driver_rim(HOPPER)}, {})):
        assert [reason.code for reason in judge(case, NOW).reasons] == ["untrusted_root"]
