"""Evidence judged from files, as auditors, vectors and ``cloister attest verify`` do (docs/spec/evidence-index.md).

A ``Case`` is what one TEE's file in this folder makes of the files it is given by role: claims in the words
of the evidence index (unverified), and a way to verify. ``judge`` runs the same schemes and the same appraisal as a
release does; what differs is where the bytes come from.

Not done here: reading files, and believing any claim of evidence that was refused.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.attest.appraise import appraise
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import Check, Verdict
from cloister.errors import Reason, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from cloister.attest.rats import VerifiedClaims
    from cloister.attest.rules import Rule
    from cloister.wire import Json

__all__ = ["Bound", "Case", "Judgement", "OpenCase", "judge"]


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
    the index asks for in addition; ``bound`` what it has to carry. ``refused_claims`` is said of evidence that was
    refused, where that is less than ``claims``.
    """

    claims: Mapping[str, Json]
    verify: Callable[[datetime], VerifiedClaims]
    rules: Mapping[str, Rule]
    bound: tuple[Bound, ...] = ()
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


def judge(case: Case, now: datetime, policy: Policy | None = None) -> Judgement:
    """Verify and appraise ``case`` at ``now``: by its own rules, or by ``policy`` where one is given.

    Raises ``Malformed`` alone: a refusal is a judgement.
    """
    try:
        verified = case.verify(now)
    except Rejected as exc:
        return Judgement(claims=_said(case, exc.reasons), checks=_failed(exc.reasons), reasons=exc.reasons)
    # A claim the evidence does not make fails here as anywhere (claim_missing).
    chosen = policy or Policy(version=1, tees={verified.tee: TeePolicy(case.rules)}) if case.rules or policy else None
    checks = [*verified.checks, *(_carried(bound) for bound in case.bound)]
    if chosen is not None:
        checks += appraise(verified, chosen, frozenset())
    reasons = tuple(
        Reason(code=check.code, subject=check.subject, got=check.got, want=check.want)
        for check in checks
        if check.verdict is Verdict.FAILED
    )
    return Judgement(claims=_said(case, reasons), checks=tuple(checks), reasons=reasons)


def _said(case: Case, reasons: tuple[Reason, ...]) -> Mapping[str, Json]:
    return case.refused_claims if reasons and case.refused_claims is not None else case.claims


def _carried(bound: Bound) -> Check:
    same = hmac.compare_digest(bound.got, bound.want)
    verdict = Verdict.PASSED if same else Verdict.FAILED
    return Check(
        code=bound.code, subject=bound.subject, verdict=verdict, got=bound.got.hex()[:256], want=bound.want.hex()[:256]
    )


def _failed(reasons: tuple[Reason, ...]) -> tuple[Check, ...]:
    return tuple(
        Check(code=reason.code, subject=reason.subject, verdict=Verdict.FAILED, got=reason.got, want=reason.want)
        for reason in reasons
    )
