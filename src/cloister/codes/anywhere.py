"""Codes: anywhere."""

from __future__ import annotations

from cloister.codes.code import Chapter, Code, Fault, Who

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    title="Anywhere",
    about="From every command and every server.",
    codes=(
        Code(
            name="internal",
            cause="a fault of ours; the answer says nothing more",
            fix="report it with the server's log",
            who=Who.CLOISTER,
            example="internal error",
            fault=Fault.INTERNAL,
        ),
        Code(
            name="malformed",
            cause="the bytes do not parse; the message says where",
            fix="mend the request or the file",
            who=Who.CALLER,
            example="tdx quote: body is 580 bytes, want 584",
            fault=Fault.MALFORMED,
        ),
        Code(
            name="refused",
            cause="an answer said no without a code of its own",
            fix="see the status, and the server's log",
            who=Who.CALLER,
            example="custodian: refused (got status 418, want nothing)",
        ),
        Code(
            name="unavailable",
            cause="it could not be decided now",
            fix="try again later",
            who=Who.CUSTODIAN,
            example="custodian at https://localhost:8443: no answer",
            fault=Fault.UNAVAILABLE,
        ),
        Code(
            name="usage",
            cause="the command, option, setting or request makes no sense as it is, or a file is not there",
            fix="read the message: it names what it got and what it wants; `--help` shows what a command takes",
            who=Who.CALLER,
            example="trust.json: no such file",
            fault=Fault.USAGE,
        ),
    ),
)
