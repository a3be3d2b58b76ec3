"""``cloister allowance``: let somebody use a part of a loan, signed by the borrower, and call it back.

The custodian is asked for nothing.
"""

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
from cloister.crypto.sign import MAX_STATEMENT_BYTES
from cloister.errors import Malformed, UsageError
from cloister.lending.revocation import RevocationList, verify_list
from cloister.lending.sub_allowance import MAX_LIFE, BlockId, Caveats
from cloister.lending.terms import DIGEST, LOAN_ID, LoanId
from cloister.wire import dump_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from rich.console import Console

    from cloister.crypto.sign import VerifyKey
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
    """Make a sub-allowance. Keep --for short: calling it back reaches only enclaves that are told."""
    loan_id, signer = _loan(loan), read_borrower_key(key)
    caveats, out, force = _caveats(said, lasts=lasts)
    _write(terminal, HeldSubAllowance.start(signer, loan=loan_id, caveats=caveats), out, force=force)


def _loan(text: str) -> LoanId:
    if not LOAN_ID.fullmatch(text):
        msg = f"--loan {text[:40]}: no id of a loan"
        raise UsageError(msg)
    return LoanId(text)


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


@allowance.command()
@click.argument("files", type=_file, nargs=-1)
@click.option("--loan", required=True, help="Id of the loan.")
@click.option("--key", required=True, metavar="FILE", help="The borrower's key file, - for stdin.")
@click.option("--id", "ids", multiple=True, help="Id of one whose file is not at hand; repeat for more.")
@click.option("--list", "path", type=_file, required=True, help="The loan's revocation list; made, or written anew.")
@click.option("--for", "lasts", type=DURATION, default="7d", show_default=True, help="When the next list is due.")
@pass_terminal
def revoke(
    terminal: Terminal,
    /,
    *,
    files: tuple[Path, ...],
    loan: str,
    key: str,
    ids: tuple[str, ...],
    path: Path,
    lasts: timedelta,
) -> None:
    """Call back the sub-allowances in FILES, and whatever was narrowed from them. Without any, renew the list.

    Put the list into every enclave's folder (--media) as revocations.json: an enclave that is not told serves on.
    """
    loan_id, signer = _loan(loan), read_borrower_key(key)
    named = [*ids, *(_id_in(file, loan_id) for file in files)]
    if not all(DIGEST.fullmatch(text) for text in named):
        msg = "--id: want 64 hex digits, as 'cloister allowance show' prints them"
        raise UsageError(msg)
    made = _list_before(path, signer.verify_key, loan_id).following(
        frozenset(map(BlockId, named)),
        not_after=datetime.now(UTC).replace(microsecond=0) + min(lasts, MAX_LIFE),
    )
    write_file(path, made.sign(signer), force=True)
    if made.number == 1:
        terminal.warn(f"{path} is a first list: enclaves that were brought one before refuse it")
    ends, revoked = dump_time(made.not_after), sorted(made.blocks)
    result: Json = {"ends": ends, "file": str(path), "loan": loan, "number": made.number, "revoked": [*revoked]}
    words = f"list {made.number}: {len(revoked)} called back; the next is due {ends}"
    terminal.result(result, lambda out: out.print(words, markup=False))


def _id_in(path: Path, loan: LoanId) -> str:
    """Return the id of a sub-allowance of this loan. Raises ``UsageError``, ``Malformed``."""
    chain = HeldSubAllowance.load(path).chain
    if chain.blocks[0].loan != loan:
        msg = f"{path}: is of {chain.blocks[0].loan}, this is {loan}"
        raise UsageError(msg)
    return chain.ids[-1]


def _list_before(path: Path, borrower: VerifyKey, loan: LoanId) -> RevocationList:
    """Return the list in a file, proven to be ours; an empty one with number 0 where there is no file."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_STATEMENT_BYTES + 1)
    except FileNotFoundError:
        return RevocationList(loan=loan, number=0, not_after=datetime.now(UTC))
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc
    return verify_list(data, borrower=borrower, loan=loan)


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
    ids = held.chain.ids
    return {
        "blocks": blocks,
        "ends": dump_time(ends),
        "id": ids[-1],
        "ids": [*ids],
        "loan": held.chain.blocks[0].loan,
    }


def _draw(terminal: Terminal, held: HeldSubAllowance, out: Console) -> None:
    rows = [("loan", str(held.chain.blocks[0].loan))]
    for at, block in enumerate(held.chain.blocks):
        who = "the borrower" if at == 0 else f"holder {at}"
        rows += [
            (f"block {at}", f"signed by {who}"),
            ("  id", held.chain.ids[at]),
            *((f"  {name}", value) for name, value in caveat_rows(block.caveats)),
        ]
    out.print(terminal.table(("", ""), rows))
