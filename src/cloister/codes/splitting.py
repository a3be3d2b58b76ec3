"""Codes: splitting the vault among holders, and opening it by their shares."""

from __future__ import annotations

from cloister.codes.code import Chapter, Code, Who

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    title="Splitting the vault",
    about=(
        "Two persons decide whether the vault is split, and two at least bring the shares that open it "
        "([permit](../spec/permit.md), [share](../spec/share.md))."
    ),
    codes=(
        Code(
            name="holders_wanted",
            cause="a share does not say whose it is, and two persons at least have to bring them",
            fix="say who brings each: `--holder NAME`, in the order of the files",
            who=Who.CUSTODIAN,
            example="share 2 of 3: holders_wanted",
        ),
        Code(
            name="permit_expired",
            cause="the permit's time is over, or has not begun",
            fix="ask for it anew: `cloister custodian shares permit`",
            who=Who.CUSTODIAN,
            example="permit: permit_expired (got 2026-05-06T09:30:00Z)",
        ),
        Code(
            name="permit_mismatch",
            cause="the permit is for another custodian, vault file, epoch, number or holder; each is named",
            fix="split exactly as it was approved, or ask for another permit",
            who=Who.CUSTODIAN,
            example="need: permit_mismatch (got 2, want 3)",
        ),
        Code(
            name="permit_not_needed",
            cause="one person decides that here, and no permit is ever of one person",
            fix="split it without: `cloister custodian shares split`",
            who=Who.CALLER,
            example="key_export: permit_not_needed",
        ),
        Code(
            name="permit_revoked",
            cause="one of the two took the permit back",
            fix="ask them why; ask for another one",
            who=Who.CUSTODIAN,
            example="permit: permit_revoked (got prop-99d65c29aa0011ee)",
        ),
        Code(
            name="permit_unknown",
            cause="the custodian's database has no such approval",
            fix="use the permit where it was issued, and where nothing was restored since",
            who=Who.CUSTODIAN,
            example="permit: permit_unknown (got prop-99d65c29aa0011ee)",
        ),
        Code(
            name="permit_used",
            cause="shares were made by it, or the command ended right before",
            fix="ask for another permit; the split that it was spent on is named, and in every share of it",
            who=Who.CUSTODIAN,
            example="permit: permit_used (got split 00112233445566778899aabbccddeeff)",
        ),
        Code(
            name="permit_wanted",
            cause="two persons decide whether the vault is split",
            fix="ask for a permit, which a second person approves: `cloister custodian shares permit`",
            who=Who.CUSTODIAN,
            example="key_export: permit_wanted",
        ),
        Code(
            name="same_holder",
            cause="all shares are one holder's",
            fix="bring a share of another holder's ([share](../spec/share.md))",
            who=Who.CUSTODIAN,
            example="shares: same_holder (got alice, want shares of two persons at least)",
        ),
    ),
)
