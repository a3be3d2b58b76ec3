"""``cloister custodian token``: who may call the custodian, in which role, and who answers for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.duration import parse_duration
from cloister.cli.pending import settled, wait_option
from cloister.cli.remote import from_options, remote_options, segment
from cloister.cli.terminal import Group, Terminal, demand_writable, pass_terminal, write_file
from cloister.custodian.tokens import Role, hash_token, new_token
from cloister.errors import UsageError

if TYPE_CHECKING:
    from cloister.wire import Json

__all__ = ["token"]

_file = click.Path(path_type=Path, dir_okay=False)
_MAX_DAYS = 3650


@click.group(cls=Group)
def token() -> None:
    """Make tokens, list them, revoke them."""


@token.command()
@click.option("--out", type=_file, required=True, help="File for the token, mode 0600; it must not exist.")
@pass_terminal
def make(terminal: Terminal, /, *, out: Path) -> None:
    """Make a token on your own machine and print its digest, for an admin to admit.

    Nobody else gets to see the token; the digest is no secret. Asks nobody.
    """
    made = new_token(os.urandom)
    write_file(out, made.encode() + b"\n", private=True)
    digest = hash_token(made).hex()
    terminal.result({"sha256": digest, "token_file": str(out)}, lambda console: console.print(digest))
    terminal.say("an admin admits it with 'cloister custodian token create --digest'", style="dim")


@token.command()
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role if role is not Role.OPERATOR]),
    required=True,
    help="What it may do.",
)
@click.option("--name", required=True, help="What it is called in lists.")
@click.option("--person", help="Who answers for it, lower case: two tokens of one person are one person.")
@click.option("--loan", help="For a borrower: its loan.")
@click.option("--life", metavar="TIME", help="How long it is good for, such as 90d; without end by default.")
@click.option("--digest", "sha256", metavar="SHA256", help="Admit a token that its holder made: see 'token make'.")
@click.option("--out", type=_file, help="Without --digest: file for the token, mode 0600; it must not exist.")
@wait_option
@remote_options
@pass_terminal
def create(
    terminal: Terminal,
    /,
    *,
    role: str,
    name: str,
    person: str | None,
    loan: str | None,
    life: str | None,
    sha256: str | None,
    out: Path | None,
    wait: bool,
    **where: Any,
) -> None:
    """Let somebody in: with a token that is made here, or one that its holder made.

    Where two persons decide, another admin's or lender's token is admitted by its digest alone, and a second person has
    to approve it: whoever could make a colleague up could agree with himself.
    """
    if (sha256 is None) == (out is None):
        msg = "token create: want one of --digest and --out"
        raise UsageError(msg)
    demand_writable([out], force=False)
    lasts = None if life is None else int(parse_duration(life, days=_MAX_DAYS).total_seconds())
    body: dict[str, Json] = {
        "life_s": lasts, "loan": loan, "name": name, "person": person, "role": role, "sha256": sha256,
    }  # fmt: skip
    with from_options(**where) as remote:
        shown = remote.post("/v1/tokens", {key: value for key, value in body.items() if value is not None})
        shown = settled(terminal, remote, shown, wait=wait)
    told = {key: value for key, value in shown.items() if key != "token"}
    if out is not None:
        write_file(out, str(shown["token"]).encode() + b"\n", private=True)
        told["token_file"] = str(out)
    terminal.result(told, lambda console: console.print(f"{role} {name} may come in"))


@token.command("list")
@remote_options
@pass_terminal
def list_tokens(terminal: Terminal, /, **where: Any) -> None:
    """List tokens, without what they are."""
    with from_options(**where) as remote:
        shown = remote.get("/v1/tokens")
    rows = [
        (item["id"], item["role"], item["person"] or "", item["name"], "good" if item["good"] else "over")
        for item in shown["tokens"]
    ]
    terminal.result(dict(shown), lambda out: out.print(terminal.table(("token", "role", "person", "name", ""), rows)))


@token.command()
@click.argument("identity", metavar="TOKEN")
@remote_options
@pass_terminal
def revoke(terminal: Terminal, /, *, identity: str, **where: Any) -> None:
    """Make a token worthless at once. One person is enough: it is a stop."""
    with from_options(**where) as remote:
        shown = remote.delete(f"/v1/tokens/{segment(identity)}")
    terminal.result(dict(shown), lambda out: out.print(f"{identity}: revoked"))
