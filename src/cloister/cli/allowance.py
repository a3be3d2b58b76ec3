"""``cloister allowance``: let somebody use a part of a loan, signed by the borrower, without asking the custodian."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.borrower import read_borrower_key
from cloister.cli.contract_words import caveat_rows
from cloister.cli.duration import DURATION
from cloister.cli.hours import parse_hours
from cloister.cli.terminal import Group, Terminal, demand_writable, pass_terminal, write_file
from cloister.client.sub_allowance import HeldSubAllowance
from cloister.errors import Malformed, UsageError
from cloister.lending.sub_allowance import MAX_LIFE, Caveats
from cloister.lending.terms import LOAN_ID, LoanId
from cloister.wire import dump_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from rich.console import Console

    from cloister.wire import Json

__all__ = ["allowance"]

_file = click.Path(path_type=Path, dir_okay=False)
_units = click.IntRange(min=0)


@click.group(cls=Group)
def allowance() -> None:
    """Hand out a part of a loan (for borrowers), and narrower parts of that (for whoever holds one)."""


def _caveat_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what a sub-allowance can narrow."""
    for option in (
        click.option("--force", is_flag=True, help="Replace the file."),
        click.option("--out", type=_file, required=True, help="File to write for the holder (mode 0600)."),
        click.option("--instance", help="Good with this enclave instance only; each instance counts for itself."),
        click.option("--precision", type=click.IntRange(0, 15), help="Decimal places of floating outputs."),
        click.option("--hours", multiple=True, metavar="DAYS HH:MM-HH:MM", help="When, in UTC; repeat for more."),
        click.option("--per-minute", type=_units, help="Most units in a minute, from each enclave instance."),
        click.option("--units", type=_units, help="Most units in all, from each enclave instance."),
        click.option("--model", "models", multiple=True, help="Name of a model; repeat for more. All without it."),
        click.option("--purpose", help="What for, in words."),
        click.option("--name", help="Whose it is: lower case, as a consumer's id."),
    ):
        command = option(command)
    return command


@allowance.command()
@click.option("--loan", required=True, help="Id of the loan; its contract must allow sub-allowances.")
@click.option("--key", required=True, metavar="FILE", help="The borrower's key file, - for stdin.")
@click.option("--for", "lasts", type=DURATION, default="24h", show_default=True, help="How long it is good for.")
@_caveat_options
@pass_terminal
def new(terminal: Terminal, /, *, loan: str, key: str, lasts: timedelta, **said: Any) -> None:
    """Make a sub-allowance. Nothing calls it back before it ends: keep --for short."""
    if not LOAN_ID.fullmatch(loan):
        msg = f"--loan {loan[:40]}: no id of a loan"
        raise UsageError(msg)
    signer = read_borrower_key(key)
    caveats, out, force = _caveats(said, lasts=lasts)
    _write(terminal, HeldSubAllowance.start(signer, loan=LoanId(loan), caveats=caveats), out, force=force)


@allowance.command()
@click.argument("file", type=_file)
@click.option("--for", "lasts", type=DURATION, help="How long it is good for; as long as FILE without it.")
@_caveat_options
@pass_terminal
def narrow(terminal: Terminal, /, *, file: Path, lasts: timedelta | None, **said: Any) -> None:
    """Make a narrower one from FILE for somebody else. Both count together; nothing can widen."""
    caveats, out, force = _caveats(said, lasts=lasts)
    _write(terminal, HeldSubAllowance.load(file).narrow(caveats), out, force=force)


@allowance.command()
@click.argument("file", type=_file)
@pass_terminal
def show(terminal: Terminal, /, *, file: Path) -> None:
    """Show what a sub-allowance says, block by block: all of it must hold."""
    held = HeldSubAllowance.load(file)
    terminal.result(_shown(held), lambda out: _draw(terminal, held, out))


def _caveats(said: dict[str, Any], *, lasts: timedelta | None) -> tuple[Caveats, Path, bool]:
    """Return the caveats that the options say, and where the file goes. Raises ``UsageError``."""
    out, force = said.pop("out"), said.pop("force")
    demand_writable((out,), force=force)
    until = None if lasts is None else datetime.now(UTC).replace(microsecond=0) + min(lasts, MAX_LIFE)
    hours, models = parse_hours(said.pop("hours")), tuple(sorted(set(said.pop("models"))))
    caveats = Caveats(
        hours=hours or None,
        models=models or None,
        not_after=until,
        **{name: value for name, value in said.items() if value is not None},
    )
    try:
        return Caveats.from_json(caveats.to_json()), out, force
    except Malformed as exc:
        raise UsageError(exc.message) from exc


def _write(terminal: Terminal, held: HeldSubAllowance, out: Path, *, force: bool) -> None:
    write_file(out, held.dump() + b"\n", force=force, private=True)
    terminal.result({"file": str(out), **_shown(held)}, lambda console: _draw(terminal, held, console))


def _shown(held: HeldSubAllowance) -> dict[str, Json]:
    blocks: list[Json] = [block.caveats.to_json() for block in held.chain.blocks]
    ends = min(item.caveats.not_after for item in held.chain.blocks if item.caveats.not_after is not None)
    return {"blocks": blocks, "ends": dump_time(ends), "id": held.chain.ids[-1], "loan": held.chain.blocks[0].loan}


def _draw(terminal: Terminal, held: HeldSubAllowance, out: Console) -> None:
    rows = [("loan", str(held.chain.blocks[0].loan))]
    for at, block in enumerate(held.chain.blocks):
        who = "the borrower" if at == 0 else f"holder {at}"
        rows += [
            (f"block {at}", f"signed by {who}"),
            *((f"  {name}", value) for name, value in caveat_rows(block.caveats)),
        ]
    out.print(terminal.table(("", ""), rows))
