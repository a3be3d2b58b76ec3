"""Checks of an attestation as rows of a table: what each asks in plain words, how it went, got and want."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.attest.appraise import NO_RULE
from cloister.attest.rats import Verdict
from cloister.attest.words import GROUPS, group_of, outcome_of, question_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.attest.rats import Check, TeeKind

__all__ = ["CheckGroup", "CheckRow", "check_groups", "unruled"]

_CLASSES = {Verdict.PASSED: "passed", Verdict.FAILED: "failed", Verdict.NOT_CHECKED: "not-checked"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRow:
    """One check, for ``parts.verdicts``."""

    subject: str
    question: str
    verdict: str
    outcome: str
    got: str
    want: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckGroup:
    """Checks about one thing."""

    title: str
    rows: tuple[CheckRow, ...]


def check_groups(tee: TeeKind, checks: Sequence[Check]) -> tuple[CheckGroup, ...]:
    """Return the checks that a policy asked for, by what they are about; a group without checks is left out."""
    made = [check for check in checks if check.note != NO_RULE]
    groups = (
        CheckGroup(title=title, rows=tuple(_row(tee, check) for check in made if group_of(check) == group))
        for group, title in GROUPS.items()
    )
    return tuple(group for group in groups if group.rows)


def unruled(checks: Sequence[Check]) -> tuple[str, ...]:
    """Return what is proven but no rule of the policy speaks of: a reader would not notice that it is missing."""
    return tuple(check.subject for check in checks if check.note == NO_RULE)


def _row(tee: TeeKind, check: Check) -> CheckRow:
    return CheckRow(
        subject=check.subject,
        question=question_of(tee, check),
        verdict=_CLASSES[check.verdict],
        outcome=outcome_of(check),
        got=check.got,
        want=check.want,
    )
