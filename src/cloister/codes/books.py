"""Codes: the custodian's own books."""

from __future__ import annotations

from cloister.codes.code import Chapter, Code, Who

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    title="The custodian's own books",
    about="At start, and from `cloister audit verify`.",
    codes=(
        Code(
            name="audit_broken",
            cause="an entry does not fit the one before it, or its own digest",
            fix="take the log as evidence; find out who could write to it",
            who=Who.CUSTODIAN,
            example="entry 7: audit_broken",
        ),
        Code(
            name="audit_changed",
            cause="the log is not the one its head was written with, or the checkpoint signed over",
            fix="as `audit_broken`",
            who=Who.CUSTODIAN,
            example="log of 120: audit_changed (got 91ff04c2…, want 81c1b7aa…)",
        ),
        Code(
            name="audit_cut",
            cause="the log is shorter than the checkpoint says",
            fix="look for the missing end; restore a newer copy",
            who=Who.CUSTODIAN,
            example="entry 118: audit_cut (got 118 entries, want 120)",
        ),
        Code(
            name="audit_withheld",
            cause="entries have no body, and no pruning in the log accounts for them",
            fix="make the copy anew; if it stays, the custodian hides entries",
            who=Who.CUSTODIAN,
            example="entry 7: audit_withheld (got 3 entries without a body, want an entry that says who took them)",
        ),
        Code(
            name="checkpoint_missing",
            cause="the checkpoint outside of the database is gone",
            fix="restore it, or `cloister custodian recover`",
            who=Who.CUSTODIAN,
            example="home/checkpoint.json: checkpoint_missing",
        ),
        Code(
            name="database_older",
            cause="the database is older than the checkpoint beside it",
            fix="restore the newest copy, or `cloister custodian recover`",
            who=Who.CUSTODIAN,
            example="audit log: database_older (got 118, want at least 120)",
        ),
        Code(
            name="export_changed",
            cause="a record or the manifest of an export is not the one that the log gives",
            fix="export anew; find out who could write to the file",
            who=Who.CALLER,
            example="manifest: export_changed (got another digest, want nothing)",
        ),
        Code(
            name="forgotten",
            cause="the salt of this value was destroyed: nobody can open it any more",
            fix="nothing brings it back",
            who=Who.CALLER,
            example="entry 7: actor: forgotten",
        ),
        Code(
            name="held",
            cause="a legal hold needs this person",
            fix="`cloister audit hold list`; lift the hold if it may be",
            who=Who.CUSTODIAN,
            example="subject: held (got hold-2, want no hold)",
        ),
        Code(
            name="ledger_changed",
            cause="postings were added to or taken from the ledger behind the custodian's back",
            fix="restore the newest copy",
            who=Who.CUSTODIAN,
            example="ledger: ledger_changed (got 91ff04c2…, want 81c1b7aa…)",
        ),
        Code(
            name="ledger_negative",
            cause="the ledger would go below zero: a fault of ours or a changed database",
            fix="stop, keep the home as it is, report it",
            who=Who.CUSTODIAN,
            example="posting 7: ledger_negative (got -2, want 0 or more)",
        ),
        Code(
            name="log_shrunk",
            cause="a log has fewer entries than it had before",
            fix="keep both checkpoints: they are proof; ask the custodian what was lost",
            who=Who.CALLER,
            example="log: log_shrunk (got 118 entries, want at least 120)",
        ),
        Code(
            name="not_committed",
            cause="the entry did not commit to this value",
            fix="ask for the proof again; if it stays, the value is not the one that was logged",
            who=Who.CALLER,
            example="entry 7: reason: not_committed",
        ),
        Code(
            name="not_consistent",
            cause="a log does not extend an earlier one",
            fix="keep both: they are proof",
            who=Who.CALLER,
            example="checkpoint of 120: not_consistent (got 91ff04c2…, want of this log)",
        ),
        Code(
            name="not_included",
            cause="an entry is not in the log under this root",
            fix="ask for the entry's proof again, with the right root",
            who=Who.CALLER,
            example="leaf 7: not_included (got 91ff04c2…, want 81c1b7aa…)",
        ),
        Code(
            name="quorum_missed",
            cause="too few of the named witnesses cosigned a checkpoint",
            fix="wait for their next round, or name fewer with `--quorum`",
            who=Who.CUSTODIAN,
            example="checkpoint of 120: quorum_missed (got 1, want 2 witnesses)",
        ),
        Code(
            name="split_view",
            cause="two checkpoints of one custodian contradict each other",
            fix="keep both: they are proof",
            who=Who.CALLER,
            example="log of 120: split_view (got 91ff04c2…, want 81c1b7aa…)",
        ),
        Code(
            name="wrong_origin",
            cause="a checkpoint of another custodian",
            fix="give the key of the custodian whose log this is",
            who=Who.CALLER,
            example="backup: wrong_origin (got 91ff04c2…, want 81c1b7aa…)",
        ),
        Code(
            name="wrong_proof",
            cause="the custodian proved another entry, or from another size, than was asked for",
            fix="ask again; if it stays, it is the custodian's fault",
            who=Who.CALLER,
            example="entry 7: wrong_proof (got a proof of entry 8, want nothing)",
        ),
    ),
)
