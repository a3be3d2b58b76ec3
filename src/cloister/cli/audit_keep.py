"""``cloister audit hold``, ``retention``, ``prune``: what is kept, for how long, and what may go."""

from __future__ import annotations

from typing import Any

import click

from cloister.cli.remote import from_options, remote_options, segment
from cloister.cli.terminal import Group, Terminal, Verb, pass_terminal

__all__ = ["hold", "prune", "retention"]


@click.group(cls=Group)
def hold() -> None:
    """Keep entries for a legal claim, whatever their period, and persons from being forgotten."""


@hold.command("add")
@click.argument("scope")
@click.option("--reason", required=True, help="Why, one line.")
@remote_options
@pass_terminal
def add(terminal: Terminal, /, *, scope: str, reason: str, **where: Any) -> None:
    """Hold SCOPE: all, class:NAME, loan:ID or subject:PERSON."""
    with from_options(**where) as remote:
        placed = remote.post("/v1/audit/holds", {"reason": reason, "scope": scope})
    terminal.result(dict(placed), lambda out: out.print(f"{placed['hold']} {placed['scope']}", markup=False))


@hold.command("list")
@remote_options
@pass_terminal
def list_holds(terminal: Terminal, /, **where: Any) -> None:
    """List holds, also those that were lifted."""
    with from_options(**where) as remote:
        holds = remote.get("/v1/audit/holds")["holds"]
    lines = [
        f"{item['hold']} {item['scope']} since {item['placed_at']}"
        + (f", lifted {item['lifted_at']}" if item["lifted_at"] else f": {item['reason']}")
        for item in holds
    ]
    terminal.result({"holds": list(holds)}, lambda out: out.print("\n".join(lines) or "no holds", markup=False))


@hold.command("lift")
@click.argument("hold_id", metavar="HOLD")
@remote_options
@pass_terminal
def lift(terminal: Terminal, /, *, hold_id: str, **where: Any) -> None:
    """Lift HOLD."""
    with from_options(**where) as remote:
        lifted = remote.delete(f"/v1/audit/holds/{segment(hold_id)}")
    terminal.result(dict(lifted), lambda out: out.print(f"{lifted['hold']} lifted", markup=False))


@click.command(cls=Verb)
@remote_options
@pass_terminal
def retention(terminal: Terminal, /, **where: Any) -> None:
    """Show how long each class of entries is kept, and what could be pruned now."""
    with from_options(**where) as remote:
        found = remote.get("/v1/audit/retention")["classes"]
    lines = [
        f"{item['class']:<12} {item['days'] or 'for ever'}{' days' if item['days'] else ''}"
        f" {item['due']} due, {item['held']} held"
        for item in found
    ]
    terminal.result({"classes": list(found)}, lambda out: out.print("\n".join(lines), markup=False))


@click.command(cls=Verb)
@click.option("--yes", is_flag=True, help="Do not ask: nobody can bring them back.")
@remote_options
@pass_terminal
def prune(terminal: Terminal, /, *, yes: bool, **where: Any) -> None:
    """Drop the bodies of entries whose period is over and that no hold keeps.

    Their hashes stay: the log verifies, and proofs that were made stay good. What was taken is an entry of the log.
    """
    terminal.confirm("What is due will be gone for ever. Go on?", yes=yes)
    with from_options(**where) as remote:
        done = remote.post("/v1/audit/prune", {})
    words = ", ".join(f"{count} of {name}" for name, count in sorted(done["pruned"].items())) or "nothing"
    terminal.result(dict(done), lambda out: out.print(f"pruned: {words}; {done['held']} held", markup=False))
