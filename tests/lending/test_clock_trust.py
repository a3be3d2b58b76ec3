"""Whose clock counts: decided over what was attested, never over what an enclave says (T37)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from cloister.attest.rats import AttestationResult, TeeKind, TrustTier
from cloister.attest.schemes.table import MAKERS
from cloister.lending.clock_trust import CLOCK_TEES, COUNTED_CLOCKS, ClockPolicy, judge_clock

if TYPE_CHECKING:
    from cloister.attest.rats import ClaimValue

MEASUREMENT = "ab" * 48
EVERYTHING = ClockPolicy(tees=CLOCK_TEES, secure_tsc=frozenset({MEASUREMENT}))
GOOD: dict[str, dict[str, ClaimValue]] = {
    "nitro": {"debug": False},
    "simulated": {"debug": False, "migratable": False},
    "snp": {"debug": False, "measurement": MEASUREMENT},
    "tdx": {"debug": False, "td_attributes.migratable": False},
}


def result(tee: str, claims: dict[str, ClaimValue]) -> AttestationResult:
    return AttestationResult(
        tee=TeeKind(tee),
        claims=claims,
        checks=(),
        bound={},
        tier=TrustTier.AFFIRMING,
        policy_digest="0" * 64,
        verified_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize("tee", sorted(CLOCK_TEES))
def test_a_clock_that_the_tee_keeps_from_the_host_is_trusted(tee: str) -> None:
    assert judge_clock(result(tee, GOOD[tee]), EVERYTHING).trusted


@pytest.mark.parametrize("tee", sorted({*MAKERS, TeeKind("something-new"), TeeKind("")} - {*CLOCK_TEES}))
def test_a_tee_without_a_rule_is_untrusted_and_says_why(tee: str) -> None:
    standing = judge_clock(result(tee, GOOD["tdx"] | GOOD["snp"] | {"migratable": False}), EVERYTHING)
    assert not standing.trusted
    assert standing.code == "no_rule"
    assert standing.why


@pytest.mark.parametrize(("tee", "claim"), [(tee, claim) for tee, claims in GOOD.items() for claim in claims])
def test_each_claim_is_needed_missing_or_of_another_value_there_is_no_trust(tee: str, claim: str) -> None:
    bad: tuple[ClaimValue, ...] = (True, 0, "", "false", "cd" * 48)
    for claims in (
        {name: value for name, value in GOOD[tee].items() if name != claim},
        *({**GOOD[tee], claim: value} for value in bad),
    ):
        assert not judge_clock(result(tee, claims), EVERYTHING).trusted, claims


def test_snp_counts_only_measurements_that_were_computed_with_secure_tsc() -> None:
    standing = judge_clock(result("snp", GOOD["snp"]))
    assert (standing.trusted, standing.code) == (False, "clock_of_host")


def test_a_custodian_that_sets_nothing_does_not_count_on_nitro() -> None:
    assert judge_clock(result("nitro", GOOD["nitro"])).code == "not_counted"
    assert COUNTED_CLOCKS.tees < CLOCK_TEES


def test_what_an_enclave_says_about_its_clock_counts_for_nothing() -> None:
    said: dict[str, ClaimValue] = {"debug": False, "clock": "trusted", "clock_trusted": True, "secure_tsc": True}
    for tee in (*MAKERS, "snp", "tdx"):
        assert not judge_clock(result(tee, said), EVERYTHING).trusted or tee == "nitro"
