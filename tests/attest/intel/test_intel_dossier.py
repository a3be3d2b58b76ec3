"""Cases of SGX, TDX and boot logs: what each member of a policy object becomes, and what nobody understands."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from cloister.attest.dossier import judge
from cloister.attest.dossier.sgx import open_case as open_sgx
from cloister.attest.dossier.tdx import TD_DEFAULT
from cloister.attest.dossier.tdx import open_case as open_tdx
from cloister.attest.dossier.tdx_eventlog import open_case as open_log
from cloister.attest.rules import AtLeast, AtMost, Exact, NoneOf, NotChecked, OneOf
from cloister.errors import Rejected, Unavailable
from cloister.testing.vendors.intel import SyntheticIntel
from cloister.testing.vendors.intel.bodies import EnclaveBody, TdBody
from cloister.testing.vendors.intel.eventlogs import ccel

if TYPE_CHECKING:
    from cloister.attest.rules import Rule
    from cloister.wire import Json

NOW = datetime(2026, 6, 1, tzinfo=UTC)
VENDOR = SyntheticIntel.generate()
MRTD = TdBody().mrtd.hex()
SGX_FILES = {"quote": VENDOR.quote(EnclaveBody()).dump(), "collateral": VENDOR.published(tdx=False).dump()}
TDX_FILES = {"quote": VENDOR.quote(TdBody(kind=3)).dump(), "collateral": VENDOR.published(tdx=True).dump()}
LOG = ccel([(1, b"firmware")], size=900)


@pytest.mark.parametrize(
    ("member", "value", "rules"),
    [
        ("tcb_status_allowed", ["UpToDate", "OutOfDate"], {"tcb_status": OneOf(("UpToDate", "OutOfDate"))}),
        ("tcb_status", "UpToDate", {"tcb_status": Exact("UpToDate")}),
        ("mrtd", [MRTD.upper()], {"mrtd": OneOf((MRTD,))}),
        ("measurement", MRTD, {"mrtd": Exact(MRTD)}),
        ("mr_seam", "ab" * 48, {"mrseam": Exact("ab" * 48)}),
        ("rtmrs", {"0": "00" * 48, "3": ["11" * 48]}, {"rtmr0": Exact("00" * 48), "rtmr3": OneOf(("11" * 48,))}),
        ("rtmrs", ["00" * 48], {"rtmr0": Exact("00" * 48)}),
        ("min_tee_tcb_svn", "0501", {"tee_tcb_svn.0": AtLeast(5), "tee_tcb_svn.1": AtLeast(1)}),
        ("min_tee_tcb_svn", {"2": 7}, {"tee_tcb_svn.2": AtLeast(7)}),
        ("min_tcb_eval_number", 20, {"tcb.eval_number": AtLeast(20)}),
        ("max_tcb_age_days", 90, {"tcb.platform_age": AtMost(90)}),
        ("advisory_ids_denied", ["INTEL-SA-00615"], {"advisory_ids": NoneOf(("INTEL-SA-00615",))}),
        ("fmspc_denied", "00806f050000", {"fmspc": NoneOf(("00806f050000",))}),
        ("allowed_tcb_status", ["UpToDate"], {"tcb_status": OneOf(("UpToDate",))}),
        ("allow_debug", True, {"debug": NotChecked("allowed by the policy")}),
        ("debug_allowed", False, {"debug": Exact(value=False)}),
        ("xfam", "e702060000000000", {"xfam": Exact("e702060000000000")}),
        ("td_attributes", ["0000001000000000"], {"td_attributes": OneOf(("0000001000000000",))}),
        ("qe_status", "UpToDate", {"tcb_status.qe": Exact("UpToDate")}),
        ("version", 4, {"quote_version": Exact(4)}),
    ],
)
def test_members_of_a_policy_become_rules(member: str, value: Json, rules: dict[str, Rule]) -> None:
    assert open_tdx(TDX_FILES, {member: value}).rules == {**TD_DEFAULT, **rules}


def test_measurement_of_an_enclave_is_its_mrenclave() -> None:
    assert open_sgx(SGX_FILES, {"measurement": "00" * 32, "min_isvsvn": 3}).rules == {
        "debug": Exact(value=False),
        "isvsvn": AtLeast(3),
        "mrenclave": Exact("00" * 32),
    }


def test_a_service_td_by_name_takes_the_place_of_none() -> None:
    rules = open_tdx(TDX_FILES, {"mrservicetd": "ab" * 48}).rules
    assert rules["mrservicetd"] == Exact("ab" * 48)
    assert "service_td" not in rules


@pytest.mark.parametrize(
    ("member", "value", "code", "same"),
    [
        ("report_data", "00" * 64, "report_data_mismatch", True),
        ("report_data", "01" * 64, "report_data_mismatch", False),
        ("nonce", "00" * 32, "nonce_mismatch", True),
        ("challenge", "11" * 32, "nonce_mismatch", False),
        ("nonce", ["00" * 64, "22" * 64], "nonce_mismatch", True),
    ],
)
def test_nonces_are_compared_whole_with_zeros_behind_shorter_ones(
    member: str,
    value: Json,
    code: str,
    same: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    (bound,) = open_sgx(SGX_FILES, {member: value}).bound
    assert bound.code == code
    assert (bound.got == bound.want) is same


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("colour", "blue"),
        ("mrenclave", "00" * 32),
        ("collateral", "some"),
        ("collateral", 1),
        ("rtmrs", {"9": ""}),
        ("rtmrs", "x"),
        ("min_mrtd", "00"),
        ("min_tee_tcb_svn", "zz"),
        ("min_tee_tcb_svn", {"0": "x"}),
        ("min_wonder", 1),
        ("allow_wonders", True),
        ("wonders_allowed", ["x"]),
        ("tcb_status_allowed", []),
        ("tcb_status_allowed", [None]),
        ("nonce", 7),
        ("tcb_status", None),
    ],
)
def test_a_member_nobody_understands_is_never_passed_over(member: str, value: Json) -> None:
    with pytest.raises(Unavailable):
        open_tdx(TDX_FILES, {member: value})


def test_files_that_are_missing_or_that_nobody_looks_at_are_no_verdict() -> None:
    for files in ({}, {"quote": SGX_FILES["quote"], "ccel": LOG}):
        with pytest.raises(Unavailable):
            open_sgx(files, {})


def test_claims_are_what_the_bytes_say_though_nobody_trusts_the_root() -> None:
    case = open_tdx(TDX_FILES, {})
    judgement = judge(case, NOW)
    assert {reason.code for reason in judgement.reasons} == {"untrusted_root"}
    assert judgement.claims["tcb_status"] == "UpToDate"
    assert judgement.claims["tee_tcb_svn2"] == TdBody().tee_tcb_svn2.hex()
    assert "tcb_status_dcap" not in judgement.claims


def test_claims_of_collateral_are_left_out_where_it_is_about_another_platform_or_unreadable() -> None:
    spec = VENDOR.published(tdx=False)
    spec.tcb_info["version"] = 2
    for collateral in (TDX_FILES["collateral"], spec.dump()):
        case = open_sgx({"quote": SGX_FILES["quote"], "collateral": collateral}, {})
        assert "tcb_status" not in case.claims
        assert judge(case, NOW).reasons


def test_a_case_without_collateral_is_refused_unless_the_policy_does_without() -> None:
    files = {"quote": SGX_FILES["quote"]}
    assert "revocation_unknown" in {reason.code for reason in judge(open_sgx(files, {}), NOW).reasons}
    chain_only = judge(open_sgx(files, {"collateral": "none: check signature chain only"}), NOW)
    assert {reason.code for reason in chain_only.reasons} == {"untrusted_root"}


def test_a_log_is_compared_with_the_registers_that_were_chosen() -> None:
    files = {"quote": TDX_FILES["quote"], "ccel": LOG}
    assert open_log(files, {}).claims["mismatching_rtmrs"] == [0]
    assert not judge(open_log(files, {"rtmrs": [1, 2, 3]}), NOW).reasons
    for chosen in ({}, {"rtmrs": [0]}, {"rtmrs": 0}):
        assert [reason.code for reason in judge(open_log(files, chosen), NOW).reasons] == ["pcr_mismatch"]


@pytest.mark.parametrize("wishes", [{"rtmrs": [4]}, {"rtmrs": []}, {"rtmrs": ["0"]}, {"colour": 1}])
def test_a_choice_of_registers_nobody_understands_is_no_verdict(wishes: dict[str, Json]) -> None:
    with pytest.raises(Unavailable):
        open_log({"quote": TDX_FILES["quote"], "ccel": LOG}, wishes)


def test_a_log_beside_an_enclave_s_quote_is_refused() -> None:
    with pytest.raises(Rejected):
        open_log({"quote": SGX_FILES["quote"], "ccel": LOG}, {})
