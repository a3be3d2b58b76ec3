"""T50: whether memory can be copied is said by the vendor's root, TEE by TEE, and doubted everywhere else."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from cloister.attest.clones import clone_doubts
from cloister.attest.rats import AttestationResult, TeeKind, TrustTier
from cloister.attest.schemes import KINDS, required_claims

if TYPE_CHECKING:
    from cloister.attest.rats import ClaimValue

PROVEN: dict[str, dict[str, ClaimValue]] = {
    "azure-snp-vtpm": {"debug": False, "migratable": False},
    "azure-tdx-vtpm": {"debug": False, "td_attributes.migratable": False},
    "nitro": {"debug": False},
    "sgx": {"debug": False},
    "snp": {"debug": False, "migratable": False},
    "tdx": {"debug": False, "td_attributes.migratable": False},
}


def result(tee: str, claims: dict[str, ClaimValue]) -> AttestationResult:
    return AttestationResult(
        tee=TeeKind(tee), claims=claims, checks=(), bound={}, tier=TrustTier.AFFIRMING, policy_digest="0" * 64,
        verified_at=datetime(2026, 11, 21, tzinfo=UTC),
    )  # fmt: skip


@pytest.mark.parametrize("tee", PROVEN)
def test_a_copy_is_excluded_where_every_claim_says_so(tee: str) -> None:
    assert clone_doubts(result(tee, PROVEN[tee])) == ()


@pytest.mark.parametrize(("tee", "claim"), [(tee, claim) for tee, claims in PROVEN.items() for claim in claims])
@pytest.mark.parametrize("value", [True, None, 0, "false"])
def test_a_claim_that_says_otherwise_or_nothing_is_a_doubt(tee: str, claim: str, value: ClaimValue | None) -> None:
    claims = {name: said for name, said in PROVEN[tee].items() if name != claim}
    if value is not None:
        claims[claim] = value
    assert [reason.subject for reason in clone_doubts(result(tee, claims))] == [claim]


@pytest.mark.parametrize("tee", sorted({*KINDS, "simulated", "unheard"} - set(PROVEN)))
def test_every_other_tee_is_doubted_whatever_it_claims(tee: str) -> None:
    claims: dict[str, ClaimValue] = {"debug": False, "migratable": False, "td_attributes.migratable": False}
    assert [reason.code for reason in clone_doubts(result(tee, claims))] == ["clone_possible"]


@pytest.mark.parametrize("tee", sorted(PROVEN))
def test_every_claim_that_is_asked_for_is_one_a_policy_of_that_tee_must_rule_on(tee: str) -> None:
    assert set(PROVEN[tee]) <= set(required_claims()[TeeKind(tee)])
