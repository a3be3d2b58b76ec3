"""SNP reports: every field of every version is read from its place, and what is reserved has to be zero."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloister.attest.amd.bits import PLATFORM_BITS, POLICY_BITS
from cloister.attest.amd.claims import claims_of
from cloister.attest.amd.products import Product, product_of_cpuid, product_of_name
from cloister.attest.amd.report import REPORT_BYTES, Cpuid, Firmware, Report, SigningKey
from cloister.attest.amd.tcb import Tcb
from cloister.attest.amd.vek import Vek
from cloister.attest.policy import CLAIM_NAME
from cloister.errors import Malformed, UsageError
from cloister.testing.vendors.amd import Chip, ReportValues, SyntheticAmd

CHIPS = {product: Chip(SyntheticAmd.generate(product)) for product in Product}
MILAN = CHIPS[Product.MILAN]
TELLING = ReportValues(
    guest_svn=7,
    policy=0x0302_1F,
    family_id=b"\x01" * 16,
    image_id=b"\x02" * 16,
    vmpl=3,
    platform_info=0xA5,
    key_info=0b11,
    report_data=b"\x03" * 64,
    measurement=b"\x04" * 48,
    host_data=b"\x05" * 32,
    id_key_digest=b"\x06" * 48,
    author_key_digest=b"\x07" * 48,
    report_id=b"\x08" * 32,
    report_id_ma=b"\x09" * 32,
    reported_tcb={"bl": 1, "tee": 2, "snp": 3, "ucode": 4},
    current_tcb={"bl": 5, "tee": 6, "snp": 7, "ucode": 8},
    committed_tcb={"bl": 9, "tee": 10, "snp": 11, "ucode": 12},
    launch_tcb={"bl": 13, "tee": 14, "snp": 15, "ucode": 16},
    current=Firmware(1, 2, 3),
    committed=Firmware(4, 5, 6),
    launch_mitigation=1 << 63 | 2,
    current_mitigation=3,
)
SINCE_3 = {"cpuid.family", "cpuid.model", "cpuid.stepping"}
SINCE_5 = {"mitigation.launch", "mitigation.launch_1", "mitigation.launch_63"} | {
    f"mitigation.current{bit}" for bit in ("", "_0", "_1")
}


def claims(chip: Chip, values: ReportValues) -> dict[str, object]:
    return dict(claims_of(Report.parse(chip.report(values)), Vek.parse(chip.leaf())))


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_every_field_is_read_from_its_place(version: int) -> None:
    report = Report.parse(MILAN.report(replace(TELLING, version=version)))
    for name in ("guest_svn", "policy", "family_id", "image_id", "vmpl", "platform_info", "key_info", "report_data"):
        assert getattr(report, name) == getattr(TELLING, name)
    for name in ("measurement", "host_data", "id_key_digest", "author_key_digest", "report_id", "report_id_ma"):
        assert getattr(report, name) == getattr(TELLING, name)
    for name in ("current", "committed"):
        assert getattr(report, name) == getattr(TELLING, name)
    assert report.version == version
    assert report.chip_id == MILAN.chip_id
    assert report.author_key_en
    assert report.mask_chip_key
    assert report.signing_key is SigningKey.VCEK
    assert (report.cpuid is None) == (version == 2)
    assert (report.launch_mitigation, report.current_mitigation) == ((1 << 63 | 2, 3) if version == 5 else (None, None))
    assert report.product is (None if version == 2 else Product.MILAN)
    for name in ("reported_tcb", "current_tcb", "committed_tcb", "launch_tcb"):
        assert Tcb.read(getattr(report, name), Product.MILAN).parts == getattr(TELLING, name)


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_claims_have_names_a_policy_can_use_and_the_values_of_the_fields(version: int) -> None:
    found = claims(MILAN, replace(TELLING, version=version))
    assert all(CLAIM_NAME.fullmatch(name) for name in found)
    assert (found.keys() >= SINCE_3) == (version >= 3)
    assert (found.keys() & SINCE_5 == SINCE_5) == (version == 5)
    assert found["tcb.ucode"] == 4
    assert found["current_tcb.bl"] == 5
    assert found["committed_tcb.snp"] == 11
    assert found["launch_tcb.tee"] == 14
    assert (found["current_firmware"], found["committed_firmware"]) == (0x010203, 0x040506)
    assert (found["policy.abi_major"], found["policy.abi_minor"]) == (2, 0x1F)
    assert found["product"] == "milan"
    assert found["product_name"] == "Milan-B0"
    if version == 5:
        assert found["mitigation.launch"] == "8000000000000002"
        assert "mitigation.current_2" not in found


@pytest.mark.parametrize("bit", POLICY_BITS, ids=lambda bit: bit.name)
def test_each_policy_bit_is_a_claim_of_its_own(bit: object) -> None:
    everything = sum(1 << item.place for item in POLICY_BITS) | 1 << 17
    alone = claims(MILAN, ReportValues(policy=1 << bit.place | 1 << 17))  # type: ignore[attr-defined]
    without = claims(MILAN, ReportValues(policy=everything & ~(1 << bit.place)))  # type: ignore[attr-defined]
    assert [item for item in POLICY_BITS if alone[item.claim]] == [bit]
    assert [item for item in POLICY_BITS if not without[item.claim]] == [bit]


@pytest.mark.parametrize("bit", PLATFORM_BITS, ids=lambda bit: bit.name)
def test_each_platform_bit_is_a_claim_of_its_own(bit: object) -> None:
    alone = claims(MILAN, ReportValues(platform_info=1 << bit.place))  # type: ignore[attr-defined]
    assert [item for item in PLATFORM_BITS if alone[item.claim]] == [bit]


def test_turin_has_its_own_order_of_levels_and_a_level_more() -> None:
    levels = {"fmc": 1, "bl": 2, "tee": 3, "snp": 4, "ucode": 5}
    tcb = Tcb.make(Product.TURIN, levels)
    assert tcb.raw == bytes((1, 2, 3, 4, 0, 0, 0, 5))
    assert Tcb.make(Product.GENOA, {"bl": 2, "tee": 3, "snp": 4, "ucode": 5}).raw == bytes((2, 3, 0, 0, 0, 0, 4, 5))
    assert claims(CHIPS[Product.TURIN], ReportValues(launch_tcb=levels))["launch_tcb.fmc"] == 1
    with pytest.raises(UsageError, match="want levels"):
        Tcb.make(Product.GENOA, {"fmc": 1})


def test_lines_of_processors_by_cpuid_and_by_name() -> None:
    lines = {(0x19, 0x01): "Milan", (0x19, 0x11): "Genoa", (0x19, 0xA0): "Genoa", (0x1A, 0x02): "Turin"}
    lines |= {(0x1A, 0x11): "Turin"}
    for (family, model), name in lines.items():
        assert product_of_cpuid(family, model) is Product(name)
    for family, model in ((0x17, 0x31), (0x19, 0x20), (0x19, 0x50), (0x1A, 0x50), (0, 0)):
        assert product_of_cpuid(family, model) is None
    assert product_of_name("Milan-B0") is Product.MILAN
    assert product_of_name("Siena") is Product.GENOA
    assert product_of_name("Venice-A0") is None


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_every_reserved_byte_is_missed_when_it_is_not_zero(version: int) -> None:
    reserved = {*range(0x4C, 0x50), 0x1EB, 0x1EF, *range(0x208, 0x2A0), *range(0x330, REPORT_BYTES)}
    reserved |= set(range(0x188 if version == 2 else 0x18B, 0x1A0))
    reserved |= set(range(0x1F8, 0x208)) if version < 5 else set()
    genuine = MILAN.report(ReportValues(version=version, signature_algorithm=1))
    assert not Report.parse(genuine).reserved
    for place in reserved:
        damaged = bytearray(genuine)
        damaged[place] = 0x80
        assert Report.parse(bytes(damaged)).reserved, hex(place)


def test_unknown_bits_of_policy_and_key_info_are_missed() -> None:
    for policy in (1 << 16, 1 << 17 | 1 << 26, 1 << 17 | 1 << 63):
        assert Report.parse(MILAN.report(ReportValues(policy=policy))).reserved == ("POLICY",)
    assert Report.parse(MILAN.report(ReportValues(key_info=1 << 5))).reserved == ("KEY_INFO",)
    assert Report.parse(MILAN.report(ReportValues(key_info=2 << 2))).signing_key is None
    assert Report.parse(MILAN.report(ReportValues(key_info=7 << 2))).signing_key is SigningKey.NONE


def test_a_report_of_another_size_is_malformed() -> None:
    genuine = MILAN.report()
    for size in range(REPORT_BYTES):
        with pytest.raises(Malformed):
            Report.parse(genuine[:size])
    with pytest.raises(Malformed):
        Report.parse(genuine + b"\x00")


def test_a_stepping_is_told_and_not_judged() -> None:
    found = claims(MILAN, ReportValues(cpuid=Cpuid(0x19, 0x01, 9)))
    assert found["cpuid.stepping"] == 9
