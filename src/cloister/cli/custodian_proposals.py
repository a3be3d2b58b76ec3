"""``cloister custodian proposals`` and the second person's word: ``approve``, ``deny``, ``withdraw``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cloister.cli.pending import demand_digest
from cloister.cli.remote import from_options, remote_options, segment
from cloister.cli.terminal import Terminal, Verb, pass_terminal
from cloister.wire import dump_json, parse_b64u

if TYPE_CHECKING:
    from rich.console import Console

    from cloister.cli.remote import Remote

__all__ = ["COMMANDS"]


@click.command(cls=Verb)
@click.option("--all", "everything", is_flag=True, help="Also those that are decided.")
@remote_options
@pass_terminal
def proposals(terminal: Terminal, /, *, everything: bool, **where: Any) -> None:
    """List what waits for a second person, and which operations need one."""
    with from_options(**where) as remote:
        shown = remote.get("/v1/proposals")
    listed = [item for item in shown["proposals"] if everything or item["state"] == "open"]
    terminal.result({**shown, "proposals": listed}, lambda out: _draw(terminal, listed, shown["two_person"], out))


def _draw(terminal: Terminal, listed: list[Any], rule: Any, out: Console) -> None:
    rows = [
        (item["proposal"], item["operation"], item["person"], item["state"], item["created_at"], item["expires_at"])
        for item in listed
    ]
    if rows:
        out.print(terminal.table(("proposal", "operation", "person", "state", "asked", "expires"), rows))
    ruled = ", ".join(rule["in_force"])
    out.print(
        f"need two persons: {ruled}" if ruled else f"nothing needs two persons; {rule['admins']} admins are named"
    )


def _draw_one(terminal: Terminal, shown: Any, out: Console) -> None:
    request = shown["request"]
    rows = [
        ("proposal", str(shown["proposal"])),
        ("operation", str(shown["operation"])),
        ("asked by", f"{shown['person']} ({shown['by']}), {shown['created_at']}"),
        ("expires", str(shown["expires_at"])),
        ("request", str(request["route"])),
        *((name, str(value)) for part in ("parameters", "query") for name, value in request[part].items()),
        ("body", parse_b64u(str(shown["body"]), what="proposal: body").decode("utf-8", "replace")),
        ("made on", dump_json(dict(shown["basis"])).decode("utf-8")),
        ("digest", str(shown["digest"])),
    ]
    out.print(terminal.table(("", ""), rows))


def _look(remote: Remote, identity: str) -> tuple[Any, bytes]:
    """Return a proposal, and the digest of what it shows."""
    shown = remote.get(f"/v1/proposals/{segment(identity)}")
    custodian = parse_b64u(str(remote.get("/v1/custodian")["key"]), what="custodian's key")
    return shown, demand_digest(shown, custodian)


@click.command(cls=Verb)
@click.argument("proposal")
@click.option("--yes", is_flag=True, help="Do not ask: you have looked at it.")
@remote_options
@pass_terminal
def approve(terminal: Terminal, /, *, proposal: str, yes: bool, **where: Any) -> None:
    """Approve what another person asked for; it is carried out at once.

    Shows it first: approved is exactly what is shown, by its digest, which is computed here. Where it no longer fits
    what is there by now, it is refused for good, and has to be asked for anew.
    """
    with from_options(**where) as remote:
        shown, digest = _look(remote, proposal)
        if not terminal.as_json:
            _draw_one(terminal, shown, terminal.err)
        terminal.confirm("Approve this?", yes=yes)
        done = remote.post(f"/v1/proposals/{segment(proposal)}/approve", {"digest": digest.hex()})
    terminal.result(dict(done), lambda out: out.print(f"{proposal}: done"))


@click.command(cls=Verb)
@click.argument("proposal")
@click.option("--reason", default="", help="Why not; who asked reads it.")
@remote_options
@pass_terminal
def deny(terminal: Terminal, /, *, proposal: str, reason: str, **where: Any) -> None:
    """Deny what another person asked for."""
    with from_options(**where) as remote:
        done = remote.post(f"/v1/proposals/{segment(proposal)}/deny", {"reason": reason})
    terminal.result(dict(done), lambda out: out.print(f"{proposal}: denied"))


@click.command(cls=Verb)
@click.argument("proposal")
@remote_options
@pass_terminal
def withdraw(terminal: Terminal, /, *, proposal: str, **where: Any) -> None:
    """Take back what you asked for yourself."""
    with from_options(**where) as remote:
        done = remote.post(f"/v1/proposals/{segment(proposal)}/withdraw", {})
    terminal.result(dict(done), lambda out: out.print(f"{proposal}: withdrawn"))


COMMANDS = (proposals, approve, deny, withdraw)
