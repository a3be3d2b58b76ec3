"""Codes: sub-allowances."""

from __future__ import annotations

from cloister.codes.code import Chapter, Code, Who

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    title="Sub-allowances",
    about="What a borrower hands on by a file of its own ([format](../spec/sub-allowance.md)).",
    codes=(
        Code(
            name="revocations_missing",
            cause="the contract wants a revocation list in time, and this enclave has none",
            fix="the borrower signs the next one: `cloister allowance revoke`",
            who=Who.BORROWER,
            example="revocations: revocations_missing (got none, want a list in time)",
        ),
        Code(
            name="revocations_old",
            cause="a revocation list that is no newer than the one the enclave holds",
            fix="bring the newest; sign the next with `cloister allowance revoke`",
            who=Who.BORROWER,
            example="revocations: revocations_old (got 2, want more than 2)",
        ),
        Code(
            name="revocations_shrunk",
            cause="a revocation list leaves out what an earlier one called back",
            fix="write it from the one before: `cloister allowance revoke --list`",
            who=Who.BORROWER,
            example="revocations: revocations_shrunk (got 1 left out, want all of them)",
        ),
        Code(
            name="sub_allowance_exhausted",
            cause="the total of a sub-allowance is used up at this instance",
            fix="ask whoever gave it for another",
            who=Who.BORROWER,
            example="sub-allowance: sub_allowance_exhausted (got 10, want 12)",
        ),
        Code(
            name="sub_allowance_expired",
            cause="a sub-allowance is used before or after its time, or ends too far ahead",
            fix="ask whoever gave it for another",
            who=Who.BORROWER,
            example="sub-allowance: sub_allowance_expired (got 2026-05-06T08:30:00Z, want until 2026-05-05T00:00:00Z)",
        ),
        Code(
            name="sub_allowance_invalid",
            cause="a chain of this loan's borrower it is not, or not its holder's",
            fix="use the file whole, as it was handed out",
            who=Who.BORROWER,
            example="sub-allowance: sub_allowance_invalid (got loan-setlc73afwdskjip, want loan-q2m7xk5hd3va6tye)",
        ),
        Code(
            name="sub_allowance_rate",
            cause="the units of this minute are used up",
            fix="wait a minute",
            who=Who.BORROWER,
            example="sub-allowance: sub_allowance_rate (got 12, want at most 10 in a minute)",
        ),
        Code(
            name="sub_allowance_revoked",
            cause="the borrower has called a sub-allowance back, or one it was narrowed from",
            fix="ask whoever gave it",
            who=Who.BORROWER,
            example="sub-allowance: sub_allowance_revoked",
        ),
        Code(
            name="sub_allowance_scope",
            cause="a sub-allowance is not for this model or instance",
            fix="see what it is for: `cloister allowance show`",
            who=Who.BORROWER,
            example="sub-allowance: model: sub_allowance_scope (got digits, want letters)",
        ),
        Code(
            name="sub_allowances_busy",
            cause="the enclave counts as many sub-allowances as it can",
            fix="hand out fewer, or narrower in time",
            who=Who.BORROWER,
            example="sub-allowances: sub_allowances_busy",
        ),
        Code(
            name="sub_allowances_off",
            cause="the contract does not let the borrower admit anybody",
            fix="ask the custodian to amend it",
            who=Who.CUSTODIAN,
            example="loan: sub_allowances_off",
        ),
    ),
)
