"""SPDM reports: exact to the last byte, every field where it belongs, every bit under the signature."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cloister.attest.nvidia.devicechain import Arch
from cloister.attest.nvidia.opaque import FieldType, parse_opaque
from cloister.attest.nvidia.report import Report, verify_signature
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.nvidia import NvidiaVendor

if TYPE_CHECKING:
    from cloister.testing.vendors.nvidia import Device

VENDOR = NvidiaVendor.generate()
HOPPER, SWITCH, BLACKWELL = (VENDOR.device(arch) for arch in (Arch.HOPPER, Arch.LS10, Arch.BLACKWELL))
SMALL = replace(HOPPER, measurements={index: HOPPER.measurements[index] for index in (1, 2, 64)})
NONCE = bytes(range(32))
GOOD = HOPPER.report(NONCE)
RECORD = 37 + 8  # where the first measurement block begins


def changed(at: int, value: bytes, report: bytes = GOOD) -> bytes:
    return report[:at] + value + report[at + len(value) :]


def test_a_report_says_what_the_device_is() -> None:
    report = Report.parse(GOOD)
    assert report.request.nonce == NONCE
    assert (report.driver, report.vbios, report.mode) == ("590.12", "96.00.A5.00.01", "spt")
    assert len(report.response.measurements) == 64
    assert report.wired_switches == ("3a53b743d811e977",)
    assert not report.nvdec0_disabled
    assert report.driver_rim_id("GH100") == "NV_GPU_DRIVER_GH100_590.12"
    assert report.vbios_rim_id(switch=False) == "NV_GPU_VBIOS_G520_0200_885_9600A50001"


def test_a_switch_spells_its_version_as_text_and_names_its_gpus() -> None:
    report = Report.parse(SWITCH.report(NONCE))
    assert (report.driver, report.vbios, report.mode) == ("", "96.10.55.00.01", "")
    assert report.vbios_rim_id(switch=True) == "NV_SWITCH_BIOS_5612_0002_890_9610550001"
    assert len(report.wired_gpus) == 8
    assert report.wired_gpus[0] == "0001020304050607"


def test_a_blackwell_driver_manifest_is_named_by_the_chip_in_the_report() -> None:
    assert Report.parse(BLACKWELL.report(NONCE)).driver_rim_id("GB100") == "NV_GPU_CC_DRIVER_GB100_590.12"


@pytest.mark.parametrize("device", [HOPPER, SWITCH, BLACKWELL, replace(HOPPER, versioned=True)])
def test_the_key_of_the_chip_signed_request_and_response(device: Device) -> None:
    verify_signature(Report.parse(device.report(NONCE)), device.leaf.certificate)


def test_the_versioned_layout_says_the_same() -> None:
    old, new = Report.parse(GOOD), Report.parse(replace(HOPPER, versioned=True).report(NONCE))
    assert {kind: field.value for kind, field in new.opaque.fields.items()} == {
        kind: field.value for kind, field in old.opaque.fields.items()
    }
    assert new.opaque.major == 2


def test_every_byte_with_a_bit_flipped_is_refused() -> None:
    small = SMALL.report(NONCE)
    for at in range(len(small)):
        flipped = changed(at, bytes((small[at] ^ 1 << at % 8,)), small)
        with pytest.raises((Malformed, Rejected)):
            verify_signature(Report.parse(flipped), HOPPER.leaf.certificate)


def test_a_report_cut_anywhere_is_malformed() -> None:
    small = SMALL.report(NONCE)
    for size in range(len(small)):
        with pytest.raises(Malformed):
            Report.parse(small[:size])


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("bytes after the end", GOOD + b"\0"),
        ("no signature asked for", changed(2, b"\x00")),
        ("another request", changed(1, b"\xe1")),
        ("another response", changed(38, b"\x61")),
        ("answer from another slot", changed(40, b"\x01")),
        ("no block", changed(41, b"\x00")),
        ("one block less than there are", changed(41, b"\x3f")),
        ("one block more than there are", changed(41, b"\x41")),
        ("record of no byte", changed(42, b"\x00\x00\x00")),
        ("record of 2**24-1 bytes", changed(42, b"\xff\xff\xff")),
        ("block of index 0", changed(RECORD, b"\x00")),
        ("two blocks of one index", changed(RECORD, b"\x02")),
        ("another specification", changed(RECORD + 1, b"\x02")),
        ("block shorter than its value", changed(RECORD + 2, b"\x32\x00")),
        ("block of 65535 bytes", changed(RECORD + 2, b"\xff\xff")),
        ("value of 65535 bytes", changed(RECORD + 5, b"\xff\xff")),
        ("value of no byte", changed(RECORD + 5, b"\x00\x00")),
        ("opaque data of 65535 bytes", changed(RECORD + 64 * 55 + 32, b"\xff\xff")),
        ("opaque data of no byte", changed(RECORD + 64 * 55 + 32, b"\x00\x00")),
        ("more than a report can have", bytes(16 * 1024 + 1)),
    ],
)
def test_what_is_out_of_form_is_malformed(what: str, data: bytes) -> None:  # noqa: ARG001 - names the case
    with pytest.raises(Malformed):
        Report.parse(data)


@pytest.mark.parametrize("at", [0, 37])
@pytest.mark.parametrize("version", [0x00, 0x10, 0x12, 0xFF])
def test_another_version_of_spdm_is_unsupported(at: int, version: int) -> None:
    with pytest.raises(Rejected) as refused:
        Report.parse(changed(at, bytes((version,))))
    assert refused.value.code == "unsupported_format"


def test_a_report_over_one_block_alone_is_unsupported() -> None:
    with pytest.raises(Rejected) as refused:
        Report.parse(changed(3, b"\x01"))
    assert refused.value.code == "unsupported_format"


def test_a_field_that_comes_twice_is_malformed() -> None:
    field = b"\x03\x00\x02\x00\x31\x00"
    with pytest.raises(Malformed, match="twice"):
        parse_opaque(field + field)


def test_fields_nobody_named_are_kept() -> None:
    assert parse_opaque(b"\xe7\x03\x01\x00\x07").fields[999].value == b"\x07"


@pytest.mark.parametrize(
    "data",
    [
        b"\x22\x00\x02\x00\x03\x00",  # legacy layout, version 3
        b"\x22\x00\x09\x00" + b"\xff" * 9,  # and one of 72 bits
        b"NVDAOD\x01\x00\x02\x00\x00\x00",  # another profile
        b"NVDAOD\x00\x00\x03\x00\x00\x00",  # a newer layout
    ],
)
def test_a_newer_layout_of_fields_is_unsupported(data: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        parse_opaque(data)
    assert refused.value.code == "unsupported_format"


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_versioned_header_cut_short_is_malformed(cut: int) -> None:
    with pytest.raises(Malformed):
        parse_opaque(b"NVDAOD\x00\x00\x02\x00\x00\x00"[:cut])


def test_a_version_that_would_steer_a_terminal_does_not() -> None:
    device = replace(HOPPER, fields={**HOPPER.fields, FieldType.DRIVER_VERSION: b"1\x1b[2J\xff"})
    report = Report.parse(device.report(NONCE))
    assert report.driver == "1\ufffd[2J\ufffd"
    with pytest.raises(Malformed, match="manifest"):
        report.driver_rim_id("GH100")


def test_modes_have_names_and_an_unknown_one_is_invalid() -> None:
    for flag, want in ((b"\0\0", "mpt"), (b"\1\0", "spt"), (b"\2\0", "ppcie"), (b"\3\0", "invalid"), (b"", "mpt")):
        device = replace(HOPPER, fields={**HOPPER.fields, FieldType.FEATURE_FLAG: flag})
        assert Report.parse(device.report(NONCE)).mode == want


def test_one_digest_stands_for_all_measurements() -> None:
    other = replace(HOPPER, measurements={**HOPPER.measurements, 64: bytes(48)})
    digest = Report.parse(GOOD).measurements_digest
    assert digest == Report.parse(HOPPER.report(bytes(32))).measurements_digest
    assert digest != Report.parse(other.report(NONCE)).measurements_digest


def test_a_block_may_be_a_value_instead_of_a_digest() -> None:
    blocks = Report.parse(changed(RECORD + 4, b"\x83")).response.measurements
    assert (blocks[1].raw, blocks[1].kind, blocks[2].raw) == (True, 3, False)


def test_a_device_without_fields_has_no_versions() -> None:
    report = Report.parse(replace(HOPPER, fields={}).report(NONCE))
    assert (report.driver, report.vbios, report.mode, report.fwid) == ("", "", "", None)
    assert not report.opaque.fields
