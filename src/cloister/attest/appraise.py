"""Appraisal of verified claims by a policy (RFC 9334 section 8.5, docs/spec/policy.md).

A policy names every TEE it accepts and, for each, a rule for every claim it relies on. Nothing is
skipped by being left out: a TEE without rules is refused, a required claim without a rule is a failed
check, and a claim somebody chose not to compare says so with a reason that stays in the result.

Not done here: signatures and freshness (``verifier``), and who may set a policy (the custodian).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.rats import Check, TeeKind, Verdict
from cloister.attest.rules import NotChecked, satisfies, show, wanted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.policy import Policy
    from cloister.attest.rats import ClaimValue, VerifiedClaims
    from cloister.attest.rules import Rule

__all__ = ["NO_RULE", "appraise", "mismatch_code", "not_allowed"]

NO_RULE = "the policy has no rule for it"
"""Why a claim was not compared that nobody asked about."""

_CODES: Mapping[str, str] = {
    "advisory_ids": "tcb_status_not_allowed",
    "committed_tcb": "tcb_out_of_date",
    "configid": "measurement_mismatch",
    "configsvn": "measurement_mismatch",
    "current_tcb": "tcb_out_of_date",
    "debug": "debug_enabled",
    "guest_svn": "svn_too_low",
    "isvextprodid": "measurement_mismatch",
    "isvfamilyid": "measurement_mismatch",
    "isvprodid": "measurement_mismatch",
    "isvsvn": "measurement_mismatch",
    "launch_tcb": "tcb_out_of_date",
    "migratable": "migratable",
    "mrconfigid": "measurement_mismatch",
    "mrenclave": "measurement_mismatch",
    "mrowner": "measurement_mismatch",
    "mrownerconfig": "measurement_mismatch",
    "mrseam": "measurement_mismatch",
    "mrservicetd": "service_td_not_allowed",
    "mrsigner": "measurement_mismatch",
    "mrsignerseam": "measurement_mismatch",
    "mrtd": "measurement_mismatch",
    "rtmr0": "measurement_mismatch",
    "rtmr1": "measurement_mismatch",
    "rtmr2": "measurement_mismatch",
    "rtmr3": "measurement_mismatch",
    "seam_svn": "tcb_out_of_date",
    "sept_ve_disable": "td_attributes_invalid",
    "service_td": "service_td_not_allowed",
    "svn": "svn_too_low",
    "tcb": "tcb_out_of_date",
    "tcb_status": "tcb_status_not_allowed",
    "td_attributes": "td_attributes_invalid",
    "tee_tcb_svn": "tcb_out_of_date",
    "xfam": "td_attributes_invalid",
}
"""Claims whose mismatch has a name of its own; every other is ``NAME_mismatch``."""


def mismatch_code(claim: str) -> str:
    """Return the reason code for a claim that is not as the policy wants it: ``pcr.7`` -> ``pcr_mismatch``."""
    family = claim.partition(".")[0]
    return _CODES.get(family, f"{family}_mismatch")


def appraise(claims: VerifiedClaims, policy: Policy, required: frozenset[str]) -> tuple[Check, ...]:
    """Return one check for each claim, rule and required name: all of them, passed or not.

    Fails closed: a TEE the policy does not name, a required claim without a rule
    (``policy_incomplete``) and a rule without a claim (``claim_missing``) are failed checks. A claim
    that is neither required nor named by a rule shows as not checked.
    """
    rules = policy.tees.get(claims.tee)
    if rules is None:
        return (not_allowed(claims.tee, policy),)
    names = sorted({*claims.claims, *rules.rules, *required}, key=_natural)
    return tuple(_compare(name, claims.claims.get(name), rules.rules.get(name), required) for name in names)


def not_allowed(tee: TeeKind, policy: Policy) -> Check:
    """Return the failed check of a TEE that ``policy`` does not name."""
    want = ", ".join(sorted(policy.tees))
    return Check(code="tee_not_allowed", subject="tee", verdict=Verdict.FAILED, got=tee[:64], want=want)


def _natural(name: str) -> tuple[str, int, str]:
    """Order ``pcr.7`` before ``pcr.10``."""
    family, _, index = name.partition(".")
    return family, int(index) if index.isdecimal() else -1, index


def _compare(name: str, got: ClaimValue | None, rule: Rule | None, required: frozenset[str]) -> Check:
    """Return the check of one claim."""
    if rule is None and name in required:
        return Check(code="policy_incomplete", subject=name, verdict=Verdict.FAILED, got=show(got), want="a rule")
    if got is None:
        return Check(code="claim_missing", subject=name, verdict=Verdict.FAILED, want=wanted(rule))
    code = mismatch_code(name)
    if rule is None or isinstance(rule, NotChecked):
        note = NO_RULE if rule is None else rule.why
        return Check(code=code, subject=name, verdict=Verdict.NOT_CHECKED, got=show(got), note=note)
    verdict = Verdict.PASSED if satisfies(got, rule) else Verdict.FAILED
    return Check(code=code, subject=name, verdict=verdict, got=show(got), want=wanted(rule))
