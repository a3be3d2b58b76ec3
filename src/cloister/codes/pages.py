"""Codes: pages for one person, and of a consumer who asks in one."""

from __future__ import annotations

from cloister.codes.code import Chapter, Code, Who

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    title="Pages of one's own",
    about="From `cloister ask` and `cloister borrower page`, which show them as pages ([pages](pages.md)).",
    codes=(
        Code(
            name="form_foreign",
            cause="a form that this page did not give to this visitor: another page's, or an earlier visit's",
            fix="load the page anew, and send its form",
            who=Who.CALLER,
            example="form: form_foreign (got of another page, want a form of this page)",
        ),
        Code(
            name="link_used",
            cause="the link was used, is older than 15 minutes, or was replaced by a newer one",
            fix="send the command `SIGUSR1`: it shows another",
            who=Who.CALLER,
            example="link: link_used",
        ),
        Code(
            name="readers_changed",
            cause="who can read a question is not what the page said when its form was loaded; nothing was sent",
            fix="look at the panel, then ask again",
            who=Who.CONSUMER,
            example="readers: readers_changed (got another panel, want 8e79cd0e9e4f12b9e58dced820199b06)",
        ),
        Code(
            name="signed_out",
            cause="no cookie of this page, or one that has ended",
            fix="open the link that the terminal shows; `SIGUSR1` to the command shows another",
            who=Who.CALLER,
            example="visitor: signed_out",
        ),
    ),
)
