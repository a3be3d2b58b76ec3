"""A proposed policy accepts the evidence it was made from, and none whose claims differ where it matters."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import evidence_index
import vendor_kit
from cloister.attest.appraise import appraise, mismatch_code
from cloister.attest.dossier.table import dossier_for
from cloister.attest.lint import Severity, lint_policy
from cloister.attest.policy import Policy
from cloister.attest.propose import propose
from cloister.attest.rats import TeeKind, Verdict, VerifiedClaims
from cloister.attest.rules import AtLeast, AtMost, Exact, NotChecked, OneOf
from cloister.attest.schemes import required_claims
from cloister.attest.verifier import Verifier
from cloister.attest.vocabulary import describe_claim
from cloister.errors import Rejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloister.attest.rats import ClaimValue
    from cloister.attest.rules import Rule
    from vendor_kit import Side

NOT_AS_IT_SHOULD_BE = {"nras of a bad switch": {"verdicts_failed": "verdicts_failed_mismatch"}}
"""Evidence that is no example: the proposal refuses it, and says why."""


def proposal(name: str) -> Policy:
    side = vendor_kit.side(name)
    return propose(vendor_kit.claims(name), side.scheme.required, version=1)


def rules_of(policy: Policy) -> Mapping[str, Rule]:
    (rules,) = policy.tees.values()
    return rules.rules


def made(claims: Mapping[str, ClaimValue], tee: str = "snp") -> VerifiedClaims:
    return VerifiedClaims(tee=TeeKind(tee), claims=claims, report_data=b"", checks=())


class Altered:
    """A scheme whose claims somebody changed after it proved them: what a policy alone has to refuse."""

    def __init__(self, side: Side, claim: str, value: ClaimValue | None) -> None:
        """Put ``value`` in place of ``claim``; None takes the claim away."""
        self.tee = side.scheme.tee
        self.report_data_bytes = side.scheme.report_data_bytes
        self.required = side.scheme.required
        self.software_claims: frozenset[str] = frozenset()
        self._side, self._claim, self._value = side, claim, value

    def needs(self, evidence: object) -> tuple[str, ...]:
        del evidence
        return ()

    def verify(self, evidence: object, endorsements: object, now: object) -> VerifiedClaims:
        del evidence, endorsements, now
        honest = vendor_kit.claims(next(name for name in vendor_kit.NAMES if vendor_kit.side(name) is self._side))
        left = {name: value for name, value in honest.claims.items() if name != self._claim}
        return replace(honest, claims=left if self._value is None else {**left, self._claim: self._value})


def others(rule: Rule, value: ClaimValue) -> Iterator[ClaimValue]:
    """Yield claims of worse evidence: what ``rule`` was made to refuse."""
    match rule:
        case Exact(want) if isinstance(want, bool):
            yield not want
        case OneOf() | Exact() if isinstance(value, str):
            yield value + "00"
            yield ("0" if value[:1] != "0" else "1") + value[1:]
        case OneOf() | Exact() if isinstance(value, tuple):
            yield (*value, "another")
            yield ("another",)
        case OneOf() | Exact() if isinstance(value, int):
            yield value + 1
        case AtLeast(least) if least:
            yield least - 1
        case AtMost(most):
            yield most + 1
        case _:
            return
    yield "of another type" if not isinstance(value, str) else 5


@pytest.mark.parametrize("name", vendor_kit.NAMES)
def test_the_proposal_accepts_the_evidence_it_was_made_from(name: str) -> None:
    side = vendor_kit.side(name)
    assert side.refusal(proposal(name)) == NOT_AS_IT_SHOULD_BE.get(name, {})


@pytest.mark.parametrize("name", vendor_kit.NAMES)
def test_the_proposal_has_a_rule_for_every_required_claim_and_none_that_does_not_bite(name: str) -> None:
    side = vendor_kit.side(name)
    rules = rules_of(proposal(name))
    assert side.scheme.required <= set(rules)
    assert not any(rule == NotChecked("proposed without an opinion: decide") for rule in rules.values())
    found = lint_policy(proposal(name), {side.tee: side.scheme.required})
    assert [item for item in found if item.severity is Severity.ERROR] == []


@pytest.mark.parametrize("name", [name for name in vendor_kit.NAMES if name not in NOT_AS_IT_SHOULD_BE])
def test_each_claim_with_a_rule_that_is_altered_is_refused_by_its_own_name(name: str) -> None:
    side = vendor_kit.side(name)
    policy, evidence = proposal(name), side.evidence()
    altered = 0
    for claim, rule in rules_of(policy).items():
        for value in others(rule, vendor_kit.claims(name).claims[claim]):
            with pytest.raises(Rejected) as refused:
                Verifier([Altered(side, claim, value)]).verify(evidence, vendor_kit.BINDING, policy, side.now)
            assert {item.subject: item.code for item in refused.value.reasons} == {claim: mismatch_code(claim)}
            altered += 1
    assert altered >= 2 * len([rule for rule in rules_of(policy).values() if isinstance(rule, OneOf)])


@pytest.mark.parametrize("name", [name for name in vendor_kit.NAMES if name not in NOT_AS_IT_SHOULD_BE])
def test_each_claim_with_a_rule_that_is_taken_away_is_missed(name: str) -> None:
    side = vendor_kit.side(name)
    policy, evidence = proposal(name), side.evidence()
    for claim in rules_of(policy):
        with pytest.raises(Rejected) as refused:
            Verifier([Altered(side, claim, None)]).verify(evidence, vendor_kit.BINDING, policy, side.now)
        assert {item.subject: item.code for item in refused.value.reasons} == {claim: "claim_missing"}


def test_proposals_of_recorded_evidence_accept_it_or_say_what_is_wrong_with_it() -> None:
    if not evidence_index.index():
        pytest.skip(f"no recorded evidence at {evidence_index.FOLDER}")
    proposed = 0
    for entry in evidence_index.index():
        if entry["expect"] != "ok":
            continue
        case = dossier_for(entry["tee"]).open(evidence_index.files_of(entry), entry["policy"])
        verified = case.verify(evidence_index.at(entry))
        required = required_claims().get(verified.tee, frozenset()) & set(verified.claims)
        try:
            policy = propose(verified, required, version=1)
        except UsageError:
            assert {describe_claim(verified.tee, name).rule for name in verified.claims} == {"omit"}
            continue
        failed = [item for item in appraise(verified, policy, required) if item.verdict is Verdict.FAILED]
        for check in failed:  # a claim that the vocabulary wants otherwise, whatever this evidence says
            assert describe_claim(verified.tee, check.subject).want is not None, (entry["id"], check)
        proposed += 1
    assert proposed


def test_debug_is_refused_even_where_the_example_has_it() -> None:
    rules = rules_of(propose(made({"debug": True, "migratable": True}), frozenset(), version=1))
    assert rules == {"debug": Exact(value=False), "migratable": Exact(value=False)}


def test_what_is_safe_already_is_kept_and_what_is_not_is_left_open() -> None:
    claims: dict[str, ClaimValue] = {"platform.alias_check": True, "platform.rapl_dis": False, "policy.smt": False}
    assert rules_of(propose(made(claims), frozenset(), version=1)) == {
        "platform.alias_check": Exact(value=True),
        "policy.smt": Exact(value=False),
    }


def test_a_version_of_zero_needs_no_rule_unless_one_is_required() -> None:
    claims: dict[str, ClaimValue] = {"tcb.tee": 0, "tcb.snp": 0, "guest_svn": 3}
    rules = rules_of(propose(made(claims), frozenset({"tcb.tee"}), version=1))
    assert rules == {"guest_svn": AtLeast(3), "tcb.tee": AtLeast(0)}


def test_ages_have_a_bound_of_their_own_and_versions_may() -> None:
    assert rules_of(propose(made({"age": 9000}, "nitro"), frozenset(), version=1)) == {"age": AtMost(300)}
    assert rules_of(propose(made({"svn": 7}, "simulated"), frozenset(), version=1)) == {"svn": AtLeast(1)}


@pytest.mark.parametrize("value", ["", "x" * 257, "a\x1b[2J", (), ("",), ("x" * 300,)])
def test_a_value_that_no_rule_can_name_gets_none(value: ClaimValue) -> None:
    claims: dict[str, ClaimValue] = {"csp": value, "vmpl": 0}
    assert rules_of(propose(made(claims), frozenset(), version=1)) == {"vmpl": OneOf((0,))}
    rules = rules_of(propose(made(claims), frozenset({"csp"}), version=1))
    assert rules["csp"] == NotChecked("proposed without an opinion: decide")


def test_a_number_below_zero_gets_no_rule() -> None:
    with pytest.raises(UsageError, match="makes no claim"):
        propose(made({"client_id": -1}, "psa"), frozenset(), version=1)
    assert rules_of(propose(made({"client_id": -1}, "psa"), frozenset({"client_id"}), version=1))


def test_a_claim_of_another_type_than_described_is_not_pinned_as_a_bound() -> None:
    rules = rules_of(propose(made({"tcb.snp": "24", "vmpl": 0}), frozenset(), version=1))
    assert set(rules) == {"vmpl"}


def test_claims_that_nobody_described_get_no_rule() -> None:
    with pytest.raises(UsageError, match="evidence of mine makes no claim that a policy has a rule for"):
        propose(made({"x": 1, "y": True}, "mine"), frozenset(), version=1)


def test_evidence_without_a_required_claim_is_no_example() -> None:
    with pytest.raises(UsageError, match="makes no claim measurement"):
        propose(made({"debug": False}), frozenset({"measurement"}), version=1)


def test_the_proposal_has_the_version_that_was_asked_for_and_parses() -> None:
    policy = propose(made({"debug": False}), frozenset(), version=7)
    assert policy.version == 7
    assert Policy.parse(policy.dump()) == policy
