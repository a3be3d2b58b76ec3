"""Codes: anywhere."""

from __future__ import annotations

from cloister.codes.code import Chapter, Code, Fault, Who

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    title="Anywhere",
    about="From every command and every server.",
    codes=(
        Code(
            name="address_taken",
            cause="the address or socket to listen on is in use, or not ours to take",
            fix="stop what listens there, or choose another (`--listen`, `port`)",
            who=Who.CALLER,
            example="listen: 127.0.0.1:8440: Address already in use",
            fault=Fault.UNAVAILABLE,
        ),
        Code(
            name="answer_lost",
            cause="a question was sent and nothing came back; it may have been counted",
            fix=(
                "ask again under the same `Idempotency-Key`, which then costs nothing: the SDK and "
                "`--idempotency-key` do"
            ),
            who=Who.CONSUMER,
            example="enclave: no answer (ReadTimeout)",
            fault=Fault.UNAVAILABLE,
        ),
        Code(
            name="certificate_refused",
            cause="the server showed a certificate that this side was not told to believe",
            fix="see whether the address is right; give the authority with `--ca`, or to `trust new` with `--tls-ca`",
            who=Who.CALLER,
            example="enclave: no answer (ConnectError) (certificate not accepted)",
            fault=Fault.UNAVAILABLE,
        ),
        Code(
            name="file_exists",
            cause="a file that would be written is there already",
            fix="choose another name, or `--force` where there is that option",
            who=Who.CALLER,
            example="trust.json: exists already",
            fault=Fault.USAGE,
        ),
        Code(
            name="file_unreadable",
            cause="a file or folder cannot be read; the message has what the system says",
            fix="see its owner and mode, and whether it is a file",
            who=Who.CALLER,
            example="policy.json: Permission denied",
            fault=Fault.USAGE,
        ),
        Code(
            name="home_locked",
            cause="another process has the custodian's home",
            fix="stop that one, or leave it be: commands for a running custodian ask it by `--home` as well",
            who=Who.CUSTODIAN,
            example="custodian home /srv/custodian: held by process 4711",
            fault=Fault.UNAVAILABLE,
        ),
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
            name="no_answer",
            cause="nobody answers at that address",
            fix=(
                "see whether the server runs and the address and port are right; then whether a firewall or proxy is "
                "between"
            ),
            who=Who.CALLER,
            example="custodian https://localhost:8443: connecterror",
            fault=Fault.UNAVAILABLE,
        ),
        Code(
            name="no_such_file",
            cause="there is no file or folder of that name",
            fix="see the name, and in which folder the command runs",
            who=Who.CALLER,
            example="trust.json: No such file or directory",
            fault=Fault.USAGE,
        ),
        Code(
            name="not_confirmed",
            cause="something that hurts wants a yes, and there is no terminal to ask on",
            fix="pass `--yes` if it is meant",
            who=Who.CALLER,
            example="not confirmed: there is no terminal to ask on",
            fault=Fault.USAGE,
        ),
        Code(
            name="open_to_others",
            cause="a file with a secret may be read by other users, so it may be known already",
            fix="`chmod 600 FILE`; if others could have read it, replace what is in it",
            who=Who.CALLER,
            example="clinic.token: mode 0644, want 0600",
            fault=Fault.USAGE,
        ),
        Code(
            name="option_wrong",
            cause="there is no such command or option, or one is missing, twice, or out of its range",
            fix="see `--help` of the command, or [every command](commands.md)",
            who=Who.CALLER,
            example="No such option: --modell Did you mean --model?",
            fault=Fault.USAGE,
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
            name="unwritable",
            cause="a file or folder cannot be written; the message has what the system says",
            fix="make room, or give the right to write there",
            who=Who.CALLER,
            example="answers.npy: No space left on device",
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
