"""What a scheme found out, collected: every check with got and want, raised once.

A refusal names all reasons, not the first (docs/spec/evidence.md section 1). A step that makes the rest
meaningless (a chain that ends nowhere) calls ``settle`` before it goes on.

Not done here: comparing with reference values (``appraise``).
"""

from __future__ import annotations

from cloister.attest.rats import Check, Verdict
from cloister.errors import Reason, Rejected

__all__ = ["Findings", "refuse_failed"]


class Findings:
    """Collects the checks of one verification. ``what`` names the evidence in the refusal."""

    __slots__ = ("_checks", "_what")

    def __init__(self, what: str) -> None:
        """Start with nothing found."""
        self._what = what
        self._checks: list[Check] = []

    def expect(self, holds: bool, code: str, subject: str, *, got: str = "", want: str = "") -> bool:  # noqa: FBT001 - the finding itself
        """Record a check that ``holds`` or fails as ``code``; return ``holds``."""
        verdict = Verdict.PASSED if holds else Verdict.FAILED
        self._checks.append(Check(code=code, subject=subject, verdict=verdict, got=got, want=want))
        return holds

    def equal(self, got: bytes, want: bytes, code: str, subject: str) -> bool:
        """Record a comparison of public bytes; return whether they are equal."""
        return self.expect(got == want, code, subject, got=got.hex(), want=want.hex())

    def skip(self, code: str, subject: str, why: str, *, got: str = "") -> None:
        """Record that something was not checked, and why: it shows in the result and lowers its tier."""
        self._checks.append(Check(code=code, subject=subject, verdict=Verdict.NOT_CHECKED, got=got, note=why))

    def refused(self, refusal: Rejected) -> None:
        """Record the reasons of a refusal that a step raised."""
        for reason in refusal.reasons:
            self.expect(False, reason.code, reason.subject, got=reason.got, want=reason.want)  # noqa: FBT003 - a failure

    @property
    def checks(self) -> tuple[Check, ...]:
        """All checks so far, in order."""
        return tuple(self._checks)

    def settle(self) -> tuple[Check, ...]:
        """Return the checks, or raise ``Rejected`` with every one that failed."""
        refuse_failed(self._what, self.checks)
        return self.checks


def refuse_failed(what: str, checks: tuple[Check, ...]) -> None:
    """Raise ``Rejected`` with the reason of every failed check; return where none failed."""
    reasons = tuple(
        Reason(code=check.code, subject=check.subject, got=check.got, want=check.want)
        for check in checks
        if check.verdict is Verdict.FAILED
    )
    if reasons:
        more = f" and {len(reasons) - 1} more" if len(reasons) > 1 else ""
        raise Rejected(f"{what} refused: {reasons[0]}{more}", reasons=reasons)
