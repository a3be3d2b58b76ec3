"""``cloister custodian login``: a session of minutes, bound to a key of this machine, in the place of a token."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.duration import parse_duration
from cloister.cli.remote import Remote, credentials_of, from_options, remote_options, segment
from cloister.cli.session_file import KeyProof, SessionFile
from cloister.cli.terminal import Terminal, Verb, demand_writable, pass_terminal
from cloister.errors import UsageError
from cloister.journal import Secret
from cloister.private_file import write_private
from cloister.wire import parse_time

if TYPE_CHECKING:
    from cloister.wire import Json

__all__ = ["end_session", "login", "logout", "sessions"]

_file = click.Path(path_type=Path, dir_okay=False)
_KEY_BYTES = 32
_MAX_DAYS = 1


@click.command(cls=Verb)
@click.option("--out", type=_file, required=True, help="File for the session, mode 0600; it must not exist.")
@click.option("--life", metavar="TIME", help="How long it is good for at first, such as 15m.")
@remote_options
@pass_terminal
def login(terminal: Terminal, /, *, out: Path, life: str | None, **where: Any) -> None:
    """Exchange a token for a session of minutes, and keep it in a file for --token-file.

    The session is bound to a key that is made here and never leaves this machine: the session's token alone is good for
    nothing. Commands renew it while it is used, up to half a day; the long-lived token can be locked away meanwhile.
    """
    body: dict[str, Json] = {}
    if life is not None:
        body["life_s"] = int(parse_duration(life, days=_MAX_DAYS).total_seconds())
    demand_writable([out], force=False)
    given, key = credentials_of(**where), Secret(os.urandom(_KEY_BYTES))
    if given.token is None or given.session is not None:
        msg = "login: want a token, not a session"
        raise UsageError(msg)
    with Remote(replace(given, proof=KeyProof(key, given.token, scheme="Bearer"))) as remote:
        shown = remote.post("/v1/sessions", body)
    until, renewable = (parse_time(str(shown[name]), what=f"answer: {name}") for name in ("expires_at", "renew_until"))
    kept = SessionFile(
        url=given.url, ca_pem=given.ca_pem, session=str(shown["session"]), token=Secret(str(shown["token"])), key=key,
        expires_at=until, renew_until=renewable,
    )  # fmt: skip
    write_private(out, kept.dump())
    told = {name: shown[name] for name in ("expires_at", "jkt", "renew_until", "session")}
    terminal.result({**told, "file": str(out)}, lambda console: console.print(f"good until {told['expires_at']}"))
    terminal.say(f"use it with --token-file {out}", style="dim")


@click.command(cls=Verb)
@click.argument("file", type=_file)
@pass_terminal
def logout(terminal: Terminal, /, *, file: Path) -> None:
    """End the session in FILE, and remove the file."""
    given = credentials_of(home=None, url=None, ca=None, token_file=str(file))
    if given.session is None:
        msg = f"{file}: a token, want a session"
        raise UsageError(msg, hint="revoke a token with 'cloister custodian token revoke'")
    with Remote(given) as remote:
        remote.delete(f"/v1/sessions/{segment(given.session.session)}")
    file.unlink()
    terminal.result({"file": str(file)}, lambda out: out.print(f"{file}: ended and removed"))


@click.command("end-session", cls=Verb)
@click.argument("session")
@remote_options
@pass_terminal
def end_session(terminal: Terminal, /, *, session: str, **where: Any) -> None:
    """End a session at once: yours, or as an admin anybody's. 'custodian sessions' lists them."""
    with from_options(**where) as remote:
        shown = remote.delete(f"/v1/sessions/{segment(session)}")
    terminal.result(dict(shown), lambda out: out.print(f"{session}: ended"))


@click.command(cls=Verb)
@remote_options
@pass_terminal
def sessions(terminal: Terminal, /, **where: Any) -> None:
    """List sessions that are good: yours, or as an admin everybody's."""
    with from_options(**where) as remote:
        shown = remote.get("/v1/sessions")
    rows = [
        (item["session"], item["by"], item["person"] or "", item["token_type"], item["expires_at"])
        for item in shown["sessions"]
    ]
    columns = ("session", "of", "person", "shown by", "good until")
    terminal.result(dict(shown), lambda out: out.print(terminal.table(columns, rows)))
