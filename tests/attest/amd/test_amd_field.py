"""Members of a policy as other projects spell them: prefixes on hex, names of TCB parts, permissions by bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloister.attest.amd.report import Report
from cloister.attest.dossier.snp import _read
from cloister.attest.rules import AtLeast, Exact, NoneOf, OneOf
from cloister.errors import Unavailable
from cloister.testing.vendors.amd import Chip, ReportValues, SyntheticAmd

if TYPE_CHECKING:
    from cloister.attest.rules import Rule
    from cloister.wire import Json

REPORT = Report.parse(Chip(SyntheticAmd.generate()).report(ReportValues(report_data=b"\xaa" * 64)))
DEBUG: dict[str, Rule] = {"debug": Exact(value=False)}


@pytest.mark.parametrize(
    ("member", "value", "rules"),
    [
        ("host_data", "0xAB" + "00" * 31, {"host_data": Exact("ab" + "00" * 31)}),
        ("measurements", ["0x" + "5A" * 48], {"measurement": OneOf(("5a" * 48,))}),
        ("chip_id_denied", ["0x" + "11" * 64], {"chip_id": NoneOf(("11" * 64,))}),
        ("guest_svn_min", 2, {"guest_svn": AtLeast(2)}),
        ("minimum_tcb", {"bootloader": 4, "microcode": 219}, {"tcb.bl": AtLeast(4), "tcb.ucode": AtLeast(219)}),
        ("guest_policy", "0x3001f", {"guest_policy": Exact("000000000003001f")}),
        ("allow_smt", False, {"policy.smt": Exact(value=False)}),
        ("allow_smt", True, {}),
        ("allow_migration", False, {"migratable": Exact(value=False)}),
        ("require_single_socket", True, {"policy.single_socket": Exact(value=True)}),
        ("require_single_socket", False, {}),
        ("debug_allowed", False, {}),
    ],
)
def test_spellings_of_a_member_are_one_rule(member: str, value: Json, rules: dict[str, Rule]) -> None:
    assert _read(REPORT, {member: value})[0] == {**DEBUG, **rules}


def test_debug_that_is_allowed_is_not_refused() -> None:
    assert _read(REPORT, {"debug_allowed": True, "allow_debug": True})[0] == {}


def test_report_data_with_a_prefix_is_the_same_report_data() -> None:
    (bound,) = _read(REPORT, {"report_data": "0x" + "AA" * 64})[1]
    assert bound.got == bound.want


@pytest.mark.parametrize(("member", "value"), [("allow_rain", False), ("require_rain", True), ("rain_min", 1)])
def test_what_nobody_understands_is_not_passed_over(member: str, value: Json) -> None:
    with pytest.raises(Unavailable):
        _read(REPORT, {member: value})
