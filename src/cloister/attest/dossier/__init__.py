"""Evidence judged from files, as auditors, vectors and ``cloister attest verify`` do (docs/spec/evidence-index.md).

A ``Case`` is what one TEE's file in this folder makes of the files it is given by role: claims in the words
of the evidence index (unverified), and a way to verify. ``judge`` runs the same schemes and the same appraisal as a
release does; what differs is where the bytes come from.

Not done here: reading files, and believing any claim of evidence that was refused.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from cloister.attest.appraise import NO_RULE, appraise, mismatch_code
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import Check, TeeKind, Verdict
from cloister.attest.rules import show
from cloister.errors import Reason, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from cloister.attest.rats import VerifiedClaims
    from cloister.attest.rules import Rule
    from cloister.wire import Json

__all__ = ["Bound", "Case", "Judgement", "OpenCase", "judge", "refused"]

NO_DEMANDS: Mapping[TeeKind, frozenset[str]] = MappingProxyType({})
"""Nothing that a policy must have a rule for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What the evidence has to carry: compared whole, length included. ``code`` names the mismatch."""

    code: str
    subject: str
    got: bytes
    want: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Files that parsed.

    ``claims`` are what the evidence says in the words of the evidence index, true or not. ``verify`` proves
    them at a time (a scheme's contract: ``Malformed``, ``Rejected``). ``rules`` are the default policy with what
    the index asks for in addition; ``bound`` what it has to carry; ``report_data`` what the verified report data has to
    be, where only ``verify`` finds it. ``refused_claims`` is said of evidence that was refused, where that is less than
    ``claims``.
    """

    claims: Mapping[str, Json]
    verify: Callable[[datetime], VerifiedClaims]
    rules: Mapping[str, Rule]
    bound: tuple[Bound, ...] = ()
    report_data: bytes | None = None
    refused_claims: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What came out: no reason means accepted."""

    claims: Mapping[str, Json]
    checks: tuple[Check, ...]
    reasons: tuple[Reason, ...]


if TYPE_CHECKING:
    OpenCase = Callable[[Mapping[str, bytes], Mapping[str, Json]], Case]
    """Files by role and the index's policy object, to a case. Raises ``Malformed``, ``Rejected`` (unsupported
    formats) and ``Unavailable`` (a file that is needed is not there, a policy member nobody understands)."""


def judge(
    case: Case, now: datetime, policy: Policy | None = None, *, required: Mapping[TeeKind, frozenset[str]] = NO_DEMANDS
) -> Judgement:
    """Verify and appraise ``case`` at ``now``: by its own rules, or by ``policy`` where one is given.

    ``required`` are claims that ``policy`` must have a rule for, by TEE, as in a release; those that this evidence does
    not make (a bare quote names no device) are not asked for. Raises ``Malformed`` alone: a refusal is a judgement.
    """
    try:
        verified = case.verify(now)
    except Rejected as exc:
        return refused(exc, _said(case, exc.reasons))
    checks = [*verified.checks, *(_carried(bound) for bound in case.bound)]
    if case.report_data is not None:
        got, want = verified.report_data, case.report_data
        checks.append(_carried(Bound(code="report_data_mismatch", subject="report data", got=got, want=want)))
    # A claim the evidence does not make fails here as anywhere (claim_missing).
    if policy is not None:
        checks += appraise(verified, policy, required.get(verified.tee, frozenset()) & verified.claims.keys())
    elif case.rules:
        checks += appraise(verified, Policy(version=1, tees={verified.tee: TeePolicy(case.rules)}), frozenset())
    else:
        checks += _compared_with_nothing(verified)
    reasons = tuple(
        Reason(code=check.code, subject=check.subject, got=check.got, want=check.want)
        for check in checks
        if check.verdict is Verdict.FAILED
    )
    return Judgement(claims=_said(case, reasons), checks=tuple(checks), reasons=reasons)


def _compared_with_nothing(verified: VerifiedClaims) -> list[Check]:
    return [
        Check(code=mismatch_code(name), subject=name, verdict=Verdict.NOT_CHECKED, got=show(value), note=NO_RULE)
        for name, value in sorted(verified.claims.items())
    ]


def refused(refusal: Rejected, claims: Mapping[str, Json] | None = None) -> Judgement:
    """Return a refusal as a judgement: each reason a failed check. ``claims`` are what was said, nothing by default."""
    checks = tuple(
        Check(code=reason.code, subject=reason.subject, verdict=Verdict.FAILED, got=reason.got, want=reason.want)
        for reason in refusal.reasons
    )
    return Judgement(claims={} if claims is None else claims, checks=checks, reasons=refusal.reasons)


def _said(case: Case, reasons: tuple[Reason, ...]) -> Mapping[str, Json]:
    return case.refused_claims if reasons and case.refused_claims is not None else case.claims


def _carried(bound: Bound) -> Check:
    same = hmac.compare_digest(bound.got, bound.want)
    verdict = Verdict.PASSED if same else Verdict.FAILED
    return Check(
        code=bound.code, subject=bound.subject, verdict=verdict, got=bound.got.hex()[:256], want=bound.want.hex()[:256]
    )
