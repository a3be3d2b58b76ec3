"""Levels and statuses: Intel's rules by example, and by thousands of platforms judged by another verifier too."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from cloister.attest.intel.assess import assess
from cloister.attest.intel.collateral import Collateral
from cloister.attest.intel.pck import Pck
from cloister.attest.intel.quote import Quote
from cloister.attest.intel.second import second_opinion
from cloister.attest.intel.tcb import PLATFORM_STATUSES, TcbLevel, TcbStatus, converge, match_level, relaunch
from cloister.errors import Malformed
from cloister.testing.vendors.intel import SyntheticIntel
from cloister.testing.vendors.intel.bodies import EnclaveBody, TdBody
from cloister.testing.vendors.intel.documents import component_level, tcb_level

if TYPE_CHECKING:
    from cloister.attest.intel.assess import Assessment
    from cloister.attest.intel.second import Opinion
    from cloister.testing.vendors.intel.vendor import CollateralSpec

NOW = datetime(2026, 6, 1, tzinfo=UTC)
VENDOR = SyntheticIntel.generate()
PCK = Pck.parse(VENDOR.pck.certificate)
S = TcbStatus
PLATFORMS = 300


def level(sgx: int, pcesvn: int, tdx: tuple[int, ...] = (), status: TcbStatus = S.UP_TO_DATE) -> TcbLevel:
    return TcbLevel(
        sgx=(sgx, *[0] * 15), pcesvn=pcesvn, tdx=(*tdx, *[0] * (16 - len(tdx))), date=NOW, status=status, advisories=()
    )


def test_the_highest_level_reached_counts_whatever_the_order() -> None:
    high, low = level(5, 11), level(4, 10)
    for levels in ([high, low], [low, high]):
        assert match_level(levels, (5, *[0] * 15), 11) is high
        assert match_level(levels, (5, *[0] * 15), 10) is low
        assert match_level(levels, (4, *[9] * 15), 99) is low
        assert match_level(levels, (3, *[9] * 15), 99) is None


def test_a_single_component_below_misses_the_level() -> None:
    wanted = TcbLevel(sgx=(1,) * 16, pcesvn=1, tdx=(), date=NOW, status=S.UP_TO_DATE, advisories=())
    for index in range(16):
        have = tuple(0 if place == index else 9 for place in range(16))
        assert match_level([wanted], have, 9) is None


def test_svns_of_the_module_count_in_the_level_only_for_major_version_zero() -> None:
    wanted = level(0, 0, (5, 0, 2))
    assert match_level([wanted], [0] * 16, 0, bytes((4, 0, 2)) + bytes(13)) is None
    assert match_level([wanted], [0] * 16, 0, bytes((4, 1, 2)) + bytes(13)) is wanted
    assert match_level([wanted], [0] * 16, 0, bytes((4, 1, 1)) + bytes(13)) is None


@pytest.mark.parametrize(
    ("platform", "component", "merged"),
    [
        (S.UP_TO_DATE, S.OUT_OF_DATE, S.OUT_OF_DATE),
        (S.SW_HARDENING_NEEDED, S.OUT_OF_DATE, S.OUT_OF_DATE),
        (S.CONFIGURATION_NEEDED, S.OUT_OF_DATE, S.OUT_OF_DATE_CONFIGURATION_NEEDED),
        (S.CONFIGURATION_AND_SW_HARDENING_NEEDED, S.OUT_OF_DATE, S.OUT_OF_DATE_CONFIGURATION_NEEDED),
        (S.OUT_OF_DATE_CONFIGURATION_NEEDED, S.OUT_OF_DATE, S.OUT_OF_DATE_CONFIGURATION_NEEDED),
        (S.TD_RELAUNCH_ADVISED, S.UP_TO_DATE, S.TD_RELAUNCH_ADVISED),
        (S.SW_HARDENING_NEEDED, S.UP_TO_DATE, S.SW_HARDENING_NEEDED),
        (S.CONFIGURATION_NEEDED, S.REVOKED, S.REVOKED),
    ],
)
def test_only_a_stale_or_revoked_component_changes_the_status(
    platform: TcbStatus, component: TcbStatus, merged: TcbStatus
) -> None:
    assert converge(platform, component) is merged


@pytest.mark.parametrize(
    ("launched", "current", "status"),
    [
        (S.OUT_OF_DATE, S.UP_TO_DATE, S.TD_RELAUNCH_ADVISED),
        (S.OUT_OF_DATE, S.CONFIGURATION_NEEDED, S.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED),
        (S.OUT_OF_DATE_CONFIGURATION_NEEDED, S.UP_TO_DATE, S.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED),
        (S.OUT_OF_DATE, S.OUT_OF_DATE, S.OUT_OF_DATE),
        (S.UP_TO_DATE, S.OUT_OF_DATE, S.UP_TO_DATE),
    ],
)
def test_a_td_on_an_updated_module_is_advised_to_launch_again(
    launched: TcbStatus, current: TcbStatus, status: TcbStatus
) -> None:
    assert relaunch(launched, current) is status


def some_collateral(rng: random.Random, *, tdx: bool) -> CollateralSpec:
    spec = VENDOR.published(tdx=tdx)
    words = [item.value for item in PLATFORM_STATUSES]
    levels = []
    for _ in range(rng.randrange(1, 5)):
        sgx = [max(0, value - rng.choice((0, 0, 0, 1)) + (rng.random() < 0.01)) for value in VENDOR.platform.components]
        tdx_part = (rng.choice((2, 3, 5, 6)), 0, rng.choice((1, 2, 2, 3)), *[0] * 13) if tdx else None
        advisories = rng.sample(["INTEL-SA-00001", "INTEL-SA-00002", "INTEL-SA-00003"], rng.randrange(3))
        levels.append(
            tcb_level(sgx, 11 - rng.choice((0, 0, 1, -1)), rng.choice(words), tdx=tdx_part, advisories=advisories)
        )
    spec.tcb_info["tcbLevels"] = levels
    identities = spec.tcb_info.get("tdxModuleIdentities", [])
    assert isinstance(identities, list)
    for identity in identities:
        identity["tcbLevels"] = some_component_levels(rng)
    spec.qe_identity["tcbLevels"] = some_component_levels(rng)
    return spec


def some_component_levels(rng: random.Random) -> list[object]:
    words = ("UpToDate", "UpToDate", "OutOfDate", "OutOfDate", "Revoked")
    kept = (6, 4, 2)[-rng.randrange(1, 4) :]
    return [component_level(isvsvn, rng.choice(words), advisories=["INTEL-SA-00004"]) for isvsvn in kept]


def agrees(ours: Assessment, theirs: Opinion) -> bool:
    if theirs.accepted:
        same = ours.status is not None and theirs.status == ours.status.value
        return same and tuple(sorted(theirs.advisories)) == ours.advisories
    if ours.status is None:
        return any(
            word in theirs.refusal for word in ("No matching", "below minimum", "No TDX module", "current TDX TCB")
        )
    return ours.status is TcbStatus.REVOKED and "Revoked" in theirs.refusal


def test_thousands_of_platforms_have_the_status_the_second_verifier_gives_them() -> None:
    rng = random.Random(11)
    bodies: list[EnclaveBody | TdBody] = [EnclaveBody(), TdBody()]
    svns = [bytes(svn) + bytes(13) for svn in ((5, 1, 2), (3, 1, 2), (5, 0, 2), (2, 3, 1), (7, 2, 2))]
    bodies += [TdBody(kind=rng.choice((3, 4)), tee_tcb_svn=one, tee_tcb_svn2=two) for one in svns for two in svns[:4]]
    quotes = [Quote.parse(VENDOR.quote(body).dump()) for body in bodies]
    seen = set()
    for _ in range(PLATFORMS):
        quote = rng.choice(quotes)
        collateral = Collateral.parse(some_collateral(rng, tdx=quote.tee != 0).dump())
        ours = assess(quote, PCK, collateral)
        assert agrees(ours, second_opinion(quote, collateral, VENDOR.root.certificate, NOW))
        seen.add(ours.status)
    assert len(seen) > 6


def test_a_status_nobody_knows_is_malformed() -> None:
    for member, levels in (
        ("tcb_info", [tcb_level([0] * 16, 0, "Wonderful")]),
        ("qe_identity", [component_level(0, "ConfigurationNeeded")]),
    ):
        spec = VENDOR.published(tdx=False)
        getattr(spec, member)["tcbLevels"] = levels
        with pytest.raises(Malformed, match="unknown status"):
            Collateral.parse(spec.dump())


@pytest.mark.parametrize(
    ("member", "change"),
    [
        ("tcb_info", {"tcbType": 1}),
        ("tcb_info", {"tcbLevels": [tcb_level([0] * 15, 0)]}),
        ("tcb_info", {"tcbLevels": [tcb_level([0] * 16, 0, advisories=["x\x1b[2J"])]}),
        ("tcb_info", {"tcbLevels": [tcb_level([0] * 16, 0, advisories=["of no form"])]}),
        ("tcb_info", {"fmspc": "00"}),
        ("tcb_info", {"issueDate": "yesterday"}),
        ("qe_identity", {"mrsigner": "zz"}),
        ("qe_identity", {"isvprodid": -1}),
        ("qe_identity", {"tcbLevels": {}}),
    ],
)
def test_documents_out_of_form_are_malformed(member: str, change: dict[str, object]) -> None:
    spec = VENDOR.published(tdx=False)
    getattr(spec, member).update(change)
    with pytest.raises(Malformed):
        Collateral.parse(spec.dump())
