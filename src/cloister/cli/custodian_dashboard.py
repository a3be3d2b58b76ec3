"""``cloister custodian dashboard``: a link that signs in to the custodian's pages, good once and for a minute."""

from __future__ import annotations

from typing import Any

import click

from cloister.cli.remote import Remote, credentials_of, remote_options
from cloister.cli.terminal import Terminal, Verb, pass_terminal
from cloister.errors import UsageError

__all__ = ["dashboard"]

_LIFE_S = 60  # seconds: long enough to open it, the shortest that a session can be


@click.command(cls=Verb)
@remote_options
@pass_terminal
def dashboard(terminal: Terminal, /, **where: Any) -> None:
    """Print a link that signs in to the custodian's pages.

    It is good once, and for a minute. What signs in stands behind the # of the address, which no browser sends to any
    server and no server writes down; whoever sees the link before you open it can sign in as you.
    """
    given = credentials_of(**where)
    if given.token is None or given.session is not None:
        msg = "dashboard: want a token, not a session"
        raise UsageError(msg)
    with Remote(given) as remote:
        shown = remote.post("/v1/sessions", {"life_s": _LIFE_S})
    link = f"{given.url.rstrip('/')}/ui/sign-in#{shown['token']}"
    terminal.result({"expires_at": shown["expires_at"], "link": link}, lambda out: out.print(link, soft_wrap=True))
