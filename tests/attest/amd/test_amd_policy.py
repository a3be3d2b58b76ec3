"""SNP under a policy: deny-lists by family and chip, what has to have a rule, and what an index asks for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from cloister.attest.amd.claims import MASKED_CHIP, REQUIRED, claims_of
from cloister.attest.amd.products import Product
from cloister.attest.amd.report import REPORT_BYTES, Report
from cloister.attest.amd.vek import Vek
from cloister.attest.appraise import appraise
from cloister.attest.dossier.snp import _read, index_claims, open_case
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import Verdict, VerifiedClaims
from cloister.attest.rules import AtLeast, Exact, NoneOf, NotChecked, OneOf, Rule
from cloister.attest.schemes.snp import SNP, SnpScheme
from cloister.errors import Malformed, Rejected, Unavailable
from cloister.testing.vendors.amd import AmdAttester, Chip, ReportValues, SyntheticAmd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.wire import Json

NOW = datetime(2026, 11, 28, tzinfo=UTC)
AMD = SyntheticAmd.generate()
CHIP = Chip(AMD)
ATTESTER = AmdAttester(CHIP)


def judged(attester: AmdAttester, scheme: SnpScheme, changed: Mapping[str, Rule] | None = None) -> list[str]:
    """Return the codes of the failed checks under the attester's policy with ``changed`` rules."""
    found = scheme.verify(attester.collect(bytes(64)), attester.endorsements, NOW)
    rules = {**attester.policy().tees[SNP].rules, **(changed or {})}
    checks = appraise(found, Policy(version=1, tees={SNP: TeePolicy(rules)}), scheme.required)
    return [check.code for check in checks if check.verdict is Verdict.FAILED]


@pytest.mark.parametrize("product", Product)
def test_an_attester_s_policy_accepts_what_it_makes(product: Product) -> None:
    vendor = SyntheticAmd.generate(product)
    for csp in ("", "CN=cloud.example"):
        assert judged(AmdAttester(Chip(vendor, csp=csp)), vendor.scheme()) == []


def test_a_family_whose_root_leaked_is_refused_by_its_name() -> None:
    denied = {"product": NoneOf(("milan",))}
    assert judged(ATTESTER, AMD.scheme(), denied) == ["product_mismatch"]
    genoa = SyntheticAmd.generate(Product.GENOA)
    assert judged(AmdAttester(Chip(genoa)), genoa.scheme(), denied) == []


def test_a_chip_is_refused_by_its_id_also_where_the_platform_hides_it() -> None:
    denied: dict[str, Rule] = {"chip_id": NoneOf((CHIP.chip_id.hex(), MASKED_CHIP))}
    hidden = AmdAttester(CHIP, ReportValues(chip_id=bytes(64)))
    cloud = AmdAttester(Chip(AMD, csp="CN=cloud.example"))
    for attester in (ATTESTER, hidden, cloud):
        assert judged(attester, AMD.scheme(), denied) == ["chip_id_mismatch"]
    assert judged(AmdAttester(Chip(AMD, number=2)), AMD.scheme(), denied) == []


@pytest.mark.parametrize(
    ("values", "code"),
    [
        (ReportValues(policy=0xB0000), "debug_enabled"),
        (ReportValues(policy=0x70000), "migratable"),
        (ReportValues(measurement=bytes(48)), "measurement_mismatch"),
        (ReportValues(host_data=b"\x01" * 32), "host_data_mismatch"),
        (ReportValues(vmpl=1), "vmpl_mismatch"),
    ],
)
def test_a_guest_that_is_not_the_one_wanted_is_refused_by_its_name(values: ReportValues, code: str) -> None:
    rules = ATTESTER.policy().tees[SNP].rules
    found = AMD.scheme().verify(AmdAttester(CHIP, values).collect(bytes(64)), AMD.endorsements, NOW)
    checks = appraise(found, Policy(version=1, tees={SNP: TeePolicy(rules)}), AMD.scheme().required)
    assert [check.code for check in checks if check.verdict is Verdict.FAILED] == [code]


def test_older_firmware_is_out_of_date() -> None:
    older = AmdAttester(Chip(AMD, levels={"bl": 4, "tee": 0, "snp": 23, "ucode": 219}))
    assert judged(older, AMD.scheme(), ATTESTER.policy().tees[SNP].rules) == ["tcb_out_of_date"]


@pytest.mark.parametrize("claim", sorted(REQUIRED))
def test_a_policy_without_a_rule_for_what_matters_is_incomplete(claim: str) -> None:
    found = AMD.scheme().verify(ATTESTER.collect(bytes(64)), AMD.endorsements, NOW)
    rules = {name: rule for name, rule in ATTESTER.policy().tees[SNP].rules.items() if name != claim}
    checks = appraise(found, Policy(version=1, tees={SNP: TeePolicy(rules)}), AMD.scheme().required)
    assert [check.code for check in checks if check.verdict is Verdict.FAILED] == ["policy_incomplete"]


def test_a_rule_about_a_mitigation_fails_where_it_is_missing() -> None:
    wanted = {"mitigation.current_1": Exact(value=True)}
    assert judged(ATTESTER, AMD.scheme(), wanted) == []
    assert judged(AmdAttester(CHIP, ReportValues(current_mitigation=1)), AMD.scheme(), wanted) == ["claim_missing"]
    assert judged(AmdAttester(CHIP, ReportValues(version=3)), AMD.scheme(), wanted) == ["claim_missing"]


# --- files -----------------------------------------------------------------------------------------------------------

REPORT, VEK = Report.parse(CHIP.report(ReportValues(report_data=b"\xaa" * 32 + bytes(32)))), Vek.parse(CHIP.certificate)
MEASUREMENT = "5a" * 48


def asked(member: str, value: Json) -> list[str]:
    """Return the codes with which the report fails one member of an index's policy object."""
    rules, bound = _read(REPORT, {member: value})
    found = VerifiedClaims(tee=SNP, claims=claims_of(REPORT, VEK), report_data=REPORT.report_data, checks=())
    checks = appraise(found, Policy(version=1, tees={SNP: TeePolicy(rules)}), frozenset()) if rules else ()
    codes = [check.code for check in checks if check.verdict is Verdict.FAILED]
    return codes + [item.code for item in bound if item.got != item.want]


@pytest.mark.parametrize(
    ("member", "good", "bad", "code"),
    [
        ("measurement", [MEASUREMENT.upper(), "00" * 48], ["00" * 48], "measurement_mismatch"),
        ("measurement_allowed", [MEASUREMENT], ["11" * 48], "measurement_mismatch"),
        ("host_data", "00" * 32, "01" * 32, "host_data_mismatch"),
        ("chip_id", CHIP.chip_id.hex(), "00" * 64, "chip_id_mismatch"),
        ("chip_id_denied", ["00" * 64], CHIP.chip_id.hex(), "chip_id_mismatch"),
        ("product", "Milan", "Genoa", "product_mismatch"),
        ("product", ["Milan-B0"], ["Milan-B1"], "product_name_mismatch"),
        ("products_allowed", ["Genoa", "Milan"], ["Turin"], "product_mismatch"),
        ("product_denied", "Genoa", ["Milan", "Turin"], "product_mismatch"),
        ("vmpl", 0, 1, "vmpl_mismatch"),
        ("vmpl_allowed", [0, 1], [1, 2], "vmpl_mismatch"),
        ("max_vmpl", 0, -1, ""),
        ("min_guest_svn", 1, 2, "svn_too_low"),
        ("min_tcb", {"ucode": 219, "snp": 24}, {"ucode": 220}, "tcb_out_of_date"),
        ("min_committed_tcb", {"bl": 4}, {"bl": 5}, "tcb_out_of_date"),
        ("min_current_tcb", {"bl": 4}, {"bl": 5}, "tcb_out_of_date"),
        ("min_launch_tcb", {"bl": 4}, {"bl": 5}, "tcb_out_of_date"),
        ("reported_tcb", {"tee": 0}, {"tee": 1}, "tcb_out_of_date"),
        ("min_build", "1.55.29", "1.58.4", "current_firmware_mismatch"),
        ("current_build", "1.58.3", "1.58.2", "current_firmware_mismatch"),
        ("policy", "0x30000", "0x3001f", "guest_policy_mismatch"),
        ("policy", 0x30000, 0, "guest_policy_mismatch"),
        ("policy_bits", {"smt": True, "debug": False}, {"smt": False}, "policy_mismatch"),
        ("platform_info", "0x25", "0x27", "platform_info_mismatch"),
        ("platform_bits", {"alias_check_complete": True}, {"tsme_en": True}, "platform_mismatch"),
        ("migrate_ma", False, True, "migratable"),
        ("debug", False, True, "debug_enabled"),
        ("author_key_en", 0, 1, "author_key_en_mismatch"),
        ("signing_key", "VCEK", ["VLEK"], "signing_key_mismatch"),
        ("version", [3, 5], 3, "version_mismatch"),
        ("report_data", "aa" * 32, "aa" * 31, "report_data_mismatch"),
        ("nonce", "aa" * 32 + "00" * 32, "bb" * 32, "nonce_mismatch"),
        ("challenge", ["aa" * 32, "bb" * 32], ["cc" * 32], "nonce_mismatch"),
    ],
)
def test_members_of_an_index_s_policy_are_rules(member: str, good: Json, bad: Json, code: str) -> None:
    assert asked(member, good) == []
    if code:
        assert asked(member, bad) == [code]
    else:
        with pytest.raises(Unavailable):
            asked(member, bad)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("weather", "fine"),
        ("min_tcb", 7),
        ("policy_bits", {"sunny": True}),
        ("policy", "many"),
        ("min_build", "new"),
        ("nonce", 7),
        ("measurement", []),
        ("measurement", None),
        ("measurement", {"a": 1}),
    ],
)
def test_members_that_nobody_understands_are_never_passed_over(member: str, value: Json) -> None:
    with pytest.raises(Unavailable):
        asked(member, value)


def test_debug_is_refused_unless_a_member_allows_it() -> None:
    debugged = replace(REPORT, policy=0xB0000)
    found = VerifiedClaims(tee=SNP, claims=claims_of(debugged, VEK), report_data=bytes(64), checks=())
    rules, _ = _read(debugged, {})
    failed = appraise(found, Policy(version=1, tees={SNP: TeePolicy(rules)}), frozenset())
    assert [check.code for check in failed if check.verdict is Verdict.FAILED] == ["debug_enabled"]
    assert _read(debugged, {"allow_debug": True}) == ({}, ())


def test_files_are_judged_against_amd_s_pinned_roots() -> None:
    parts = CHIP.parts()
    case = open_case(parts, {})
    assert case.claims == index_claims(Report.parse(parts["report"]), VEK)
    assert case.claims["product"] == "Milan-B0"
    with pytest.raises(Rejected, match="untrusted_root"):
        case.verify(NOW)


def test_files_that_are_missing_unknown_or_cut_are_told_apart() -> None:
    parts = CHIP.parts()
    with pytest.raises(Unavailable, match="no file leaf"):
        open_case({"report": parts["report"]}, {})
    with pytest.raises(Unavailable, match="nobody looks at"):
        open_case({**parts, "quote": b""}, {})
    with pytest.raises(Unavailable, match="require_crl"):
        open_case(parts, {"require_crl": "perhaps"})
    for size in (0, 1000, REPORT_BYTES - 1):
        with pytest.raises(Malformed):
            open_case({**parts, "report": parts["report"][:size]}, {})


def test_the_rules_of_an_attester_are_bounds_and_sets() -> None:
    rules = ATTESTER.policy().tees[SNP].rules
    assert rules["tcb.ucode"] == AtLeast(219)
    assert rules["product"] == OneOf(("milan",))
    assert not any(isinstance(rule, NotChecked) for rule in rules.values())
