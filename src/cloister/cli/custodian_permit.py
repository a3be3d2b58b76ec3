"""``cloister custodian shares permit`` and ``revoke``: two persons let the vault be split, one of them stops it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.pending import settled, wait_option
from cloister.cli.remote import from_options, remote_options, segment
from cloister.cli.terminal import Terminal, Verb, pass_terminal, write_file
from cloister.crypto.shamir import MAX_PARTS, MIN_NEED
from cloister.errors import Rejected, UsageError

if TYPE_CHECKING:
    from cloister.cli.remote import Remote

__all__ = ["permit", "revoke"]

_count = click.IntRange(MIN_NEED, MAX_PARTS)


@click.command(cls=Verb)
@click.option("--of", type=_count, help="How many shares to make.")
@click.option("--need", type=_count, help="How many open the vault.")
@click.option("--holder", "holders", multiple=True, help="Who gets a share: once for each share, in their order.")
@click.option("--proposal", help="Fetch the permit that was approved as this proposal.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="File to write it to.")
@wait_option
@remote_options
@pass_terminal
def permit(
    terminal: Terminal,
    /,
    *,
    of: int | None,
    need: int | None,
    holders: tuple[str, ...],
    proposal: str | None,
    out: Path,
    wait: bool,
    **where: Any,
) -> None:
    """Ask for a permit to split the vault, which a second person approves; fetch it once that is done.

    It is for the vault file that the custodian serves from, for exactly these numbers and holders, once, and for as
    long as permit_ttl_s says. Nobody may hold as many shares as open the vault.
    """
    if out.exists():
        msg = f"{out}: exists already"
        raise UsageError(msg, hint="choose another name")
    with from_options(**where) as remote:
        shown = _asked(remote, of, need, holders) if proposal is None else _proposed(remote, proposal)
        shown = settled(terminal, remote, shown, wait=wait)
    if not isinstance(shown.get("permit"), str):
        raise Rejected.because("not_found", "permit", got=str(shown.get("state", "another proposal")))
    write_file(out, shown["permit"].encode(), private=True)
    terminal.result(dict(shown), lambda console: console.print(f"{out}: good once, until {shown['expires_at']}"))
    terminal.say("stop the custodian, run 'cloister custodian shares split --permit', start it again", style="dim")


def _asked(remote: Remote, of: int | None, need: int | None, holders: tuple[str, ...]) -> Any:
    if of is None or need is None or not holders:
        msg = "shares permit: want --of, --need and a --holder for each share, or --proposal"
        raise UsageError(msg)
    return remote.post("/v1/keys/exports", {"holders": list(holders), "need": need, "of": of})


def _proposed(remote: Remote, proposal: str) -> Any:
    """Return a proposal that waits, or what came of one."""
    shown = remote.get(f"/v1/proposals/{segment(proposal)}")
    return shown.get("result", shown)


@click.command(cls=Verb)
@click.argument("proposal")
@remote_options
@pass_terminal
def revoke(terminal: Terminal, /, *, proposal: str, **where: Any) -> None:
    """Take a permit back that was not used yet: that of the proposal it came from. One person does."""
    with from_options(**where) as remote:
        done = remote.delete(f"/v1/keys/exports/{segment(proposal)}")
    terminal.result(dict(done), lambda out: out.print(f"{proposal}: its permit is good no more"))
