"""Codes: asking through a proxy."""

from __future__ import annotations

from cloister.codes.code import Chapter, Code, Who

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    title="Asking through a proxy",
    about="From `cloister proxy` itself, before anything is passed on ([proxy](proxy.md#answers)).",
    codes=(
        Code(
            name="body_late",
            cause="the program did not send its body in time",
            fix="send it at once",
            who=Who.CONSUMER,
            example="body: body_late",
        ),
        Code(
            name="busy",
            cause="too many requests or bytes at once",
            fix="ask again later, or fewer at once",
            who=Who.CONSUMER,
            example="proxy: busy (got nothing, want at most 32 requests at once)",
        ),
        Code(
            name="content_encoding",
            cause="the body is compressed",
            fix="send it as it is",
            who=Who.CONSUMER,
            example="request: content_encoding (got nothing, want no compression: it is encrypted as it is)",
        ),
        Code(
            name="host_not_allowed",
            cause="the `Host` field names no address of this machine",
            fix="ask at `127.0.0.1` or `localhost`",
            who=Who.CONSUMER,
            example="host: host_not_allowed (got nothing, want this machine by its address or as localhost)",
        ),
        Code(
            name="local_token",
            cause="the local token is missing or another",
            fix="send the token in the file that `cloister proxy` names",
            who=Who.CONSUMER,
            example="authorization: local_token (got nothing, want the local token)",
        ),
    ),
)
