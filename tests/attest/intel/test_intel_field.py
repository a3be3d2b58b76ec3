"""Members of a policy as other projects spell them: prefixes on hex, bounds by their ends, one attribute by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloister.attest.dossier.sgx import open_case as open_sgx
from cloister.attest.dossier.tdx import TD_DEFAULT
from cloister.attest.dossier.tdx import open_case as open_tdx
from cloister.attest.rules import AtLeast, Exact, NotChecked, OneOf
from cloister.errors import Unavailable
from cloister.testing.vendors.intel import SyntheticIntel
from cloister.testing.vendors.intel.bodies import EnclaveBody, TdBody

if TYPE_CHECKING:
    from cloister.attest.rules import Rule
    from cloister.wire import Json

VENDOR = SyntheticIntel.generate()
SGX, TDX = ({"quote": VENDOR.quote(body).dump()} for body in (EnclaveBody(), TdBody(kind=3)))


@pytest.mark.parametrize(
    ("member", "value", "rules"),
    [
        ("mrtd", "0x" + "AB" * 48, {"mrtd": Exact("ab" * 48)}),
        ("mrtd", ["0x" + "AB" * 48, "cd" * 48], {"mrtd": OneOf(("ab" * 48, "cd" * 48))}),
        ("tee_tcb_svn_min", "0x0501", {"tee_tcb_svn.0": AtLeast(5), "tee_tcb_svn.1": AtLeast(1)}),
        ("minimum_tcb_eval_number", 20, {"tcb.eval_number": AtLeast(20)}),
        ("rtmr", {"rtmr1": "00" * 48}, {"rtmr1": Exact("00" * 48)}),
        ("sept_ve_disable", False, {"td_attributes.sept_ve_disable": Exact(value=False)}),
        ("require_sept_ve_disable", True, {"td_attributes.sept_ve_disable": Exact(value=True)}),
        (
            "require_sept_ve_disable",
            False,
            {"td_attributes.sept_ve_disable": NotChecked("not required by the policy")},
        ),
    ],
)
def test_spellings_of_a_member_are_one_rule(member: str, value: Json, rules: dict[str, Rule]) -> None:
    assert open_tdx(TDX, {member: value}).rules == {**TD_DEFAULT, **rules}


def test_a_bound_of_an_enclave_may_stand_behind_its_name() -> None:
    assert open_sgx(SGX, {"isvsvn_min": 3}).rules == {"debug": Exact(value=False), "isvsvn": AtLeast(3)}


@pytest.mark.parametrize("value", ["0x" + "00" * 64, "0x00", "00" * 64])
def test_report_data_may_have_a_prefix_and_be_filled_up(value: str) -> None:
    (bound,) = open_sgx(SGX, {"user_data": value}).bound
    assert bound.code == "report_data_mismatch"
    assert bound.got == bound.want


@pytest.mark.parametrize(
    ("member", "value"),
    [("require_rain", True), ("require_debug", False), ("rain_min", 1), ("rtmrs", {}), ("rtmrs", {"rtmr4": "00"})],
)
def test_what_nobody_understands_is_not_passed_over(member: str, value: Json) -> None:
    with pytest.raises(Unavailable):
        open_tdx(TDX, {member: value})
