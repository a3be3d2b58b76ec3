"""Claims that every JWT has in common: issuer, audience, times (RFC 7519 section 4.1).

Times are the caller's: ``now`` is compared, never read. A token ends on the second it names; before its start
``CLOCK_SKEW`` is forgiven, for the issuer's clock is not ours.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cloister.attest.rules import NotChecked, show
from cloister.attest.tokens.rows import words
from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.findings import Findings
    from cloister.wire import Json

__all__ = ["CLOCK_SKEW", "audiences", "moment", "verify_audience", "verify_issuer", "verify_times"]

CLOCK_SKEW = timedelta(seconds=5)  # an issuer's clock may be so far ahead of ours
_LAST_SECOND = 253402300799  # 9999-12-31T23:59:59Z, where datetime ends


def moment(claims: Mapping[str, Json], name: str) -> datetime | None:
    """Return a NumericDate (RFC 7519 section 2), fractions included; None where absent. Raises ``Malformed``."""
    value = claims.get(name)
    if value is None:
        return None
    if type(value) not in {int, float} or not 0 <= value <= _LAST_SECOND:  # type: ignore[operator]  # narrowed by type()
        msg = f"token: {name}: want seconds since 1970"
        raise Malformed(msg)
    return datetime.fromtimestamp(value, UTC)  # type: ignore[arg-type]  # narrowed by type()


def audiences(claims: Mapping[str, Json]) -> tuple[str, ...]:
    """Return whom the token is for: a string or an array of strings (RFC 7519 section 4.1.3)."""
    value = claims.get("aud")
    if value is None:
        return ()
    return words([value] if isinstance(value, str) else value, "token: aud")


def verify_times(
    claims: Mapping[str, Json],
    now: datetime,
    findings: Findings,
    *,
    what: str,
    ends: bool,
    starts_issued: bool,
    skew: timedelta = CLOCK_SKEW,
) -> None:
    """Record ``token_expired``, ``token_not_yet_valid``; ``claim_missing`` where a token that ``ends`` names no end.

    ``starts_issued`` takes ``iat`` for a start too: issuers of one-time tokens write it so. RFC 7519 does not.
    ``skew`` is how far ahead of ours the issuer's clock may be.
    """
    end = moment(claims, "exp")
    if end is None and ends:
        findings.expect(False, "claim_missing", f"exp of {what}", want="an end")  # noqa: FBT003 - a failure
    elif end is None:
        findings.skip("token_expired", f"end of {what}", "the issuer names none; its age is in the claims")
    else:
        findings.expect(now < end, "token_expired", f"end of {what}", got=now.isoformat(), want=f"before {end}")
    names = ("nbf", "iat") if starts_issued else ("nbf",)
    starts = [start for name in names if (start := moment(claims, name)) is not None]
    if starts:
        start = max(starts)
        holds = now + skew >= start
        findings.expect(holds, "token_not_yet_valid", f"start of {what}", got=now.isoformat(), want=f"from {start}")


def verify_issuer(claims: Mapping[str, Json], want: frozenset[str] | NotChecked, findings: Findings) -> None:
    """Record whether ``iss`` is an issuer the keys belong to (``issuer_mismatch``)."""
    got = claims.get("iss")
    shown = show(got) if isinstance(got, str) else ""
    if isinstance(want, NotChecked):
        findings.skip("issuer_mismatch", "issuer", want.why, got=shown)
    else:
        listed = ", ".join(sorted(want))[:256]
        findings.expect(isinstance(got, str) and got in want, "issuer_mismatch", "issuer", got=shown, want=listed)


def verify_audience(claims: Mapping[str, Json], want: frozenset[str] | NotChecked, findings: Findings) -> None:
    """Record whether the token is for us: one of its audiences is one of ours (``audience_mismatch``)."""
    got = audiences(claims)
    shown = ", ".join(got)[:256]
    if isinstance(want, NotChecked):
        findings.skip("audience_mismatch", "audience", want.why, got=shown)
    else:
        findings.expect(
            bool(want & {*got}), "audience_mismatch", "audience", got=shown, want=", ".join(sorted(want))[:256]
        )
