"""Codes: whom a consumer trusts."""

from __future__ import annotations

from cloister.codes.code import Chapter, Code, Who

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    title="Whom a consumer trusts",
    about="From `cloister verify`, `cloister infer` and the SDK. Nothing was sent.",
    codes=(
        Code(
            name="custodian_mismatch",
            cause="the enclave serves under another custodian than the trust file names",
            fix="check `--custodian-key`; else this is not your enclave",
            who=Who.CONSUMER,
            example="custodian: custodian_mismatch (got NM1lljKP…, want 3AvK4eIG…)",
        ),
        Code(
            name="custodian_not_pinned",
            cause="the trust file pins no custodian, so nothing can be asked of one",
            fix="make a trust file with `--custodian-key` and `--custodian-url`",
            who=Who.CONSUMER,
            example="status: custodian_not_pinned",
        ),
        Code(
            name="instance_not_active",
            cause="the custodian says the instance is blocked, closed or dead",
            fix="ask the operator to start a new one, or the custodian why",
            who=Who.CUSTODIAN,
            example="instance: instance_not_active (got blocked, want active)",
        ),
        Code(
            name="keyset_expired",
            cause="the enclave's keys have ended",
            fix="verify again; if it stays, compare the clocks",
            who=Who.BORROWER,
            example="keyset: keyset_expired (got 2026-05-06T08:30:00Z, want 2026-05-05T00:00:00Z)",
        ),
        Code(
            name="keyset_not_yet_valid",
            cause="the enclave's keys have not begun",
            fix="compare the clocks",
            who=Who.CONSUMER,
            example="keyset: keyset_not_yet_valid (got 2026-05-06T08:30:00Z, want 2026-05-05T00:00:00Z)",
        ),
        Code(
            name="model_mismatch",
            cause="the sealed model is not the one pinned",
            fix="ask the custodian which digest is right, and why it changed",
            who=Who.CUSTODIAN,
            example="model digits: model_mismatch (got 91ff04c2…, want 81c1b7aa…)",
        ),
        Code(
            name="operator_mismatch",
            cause="somebody else runs the enclave than the trust file names",
            fix="ask the custodian who that is before you add the name",
            who=Who.CUSTODIAN,
            example="operator: operator_mismatch (got Other Clinic, want General Hospital)",
        ),
        Code(
            name="status_stale",
            cause="the custodian's status is too old",
            fix="compare the clocks, ask again",
            who=Who.CONSUMER,
            example="status: status_stale (got 2026-05-06T08:30:00Z, want 2026-05-06T08:35:00Z or later)",
        ),
        Code(
            name="suite_too_weak",
            cause="the enclave offers no post-quantum suite",
            fix="use a current build of the enclave",
            who=Who.BORROWER,
            example="ohttp keys: suite_too_weak (got nothing, want a post-quantum suite)",
        ),
        Code(
            name="unknown_model",
            cause="the enclave does not serve, or the trust file does not name, this model",
            fix="check the name with `cloister verify`",
            who=Who.CONSUMER,
            example="letters: unknown_model",
        ),
    ),
)
