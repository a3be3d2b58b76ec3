"""``cloister borrower``: the key with which a borrower signs contracts and hands out sub-allowances; its page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.borrower_page import page
from cloister.cli.terminal import Group, Terminal, pass_terminal, read_secret, write_file
from cloister.crypto.sign import SigningKey
from cloister.errors import Malformed, UsageError
from cloister.wire import dump_b64u, parse_b64u

if TYPE_CHECKING:
    from cloister.wire import Json

__all__ = ["borrower", "read_borrower_key"]

_SEED_BYTES = 32


@click.group(cls=Group)
def borrower() -> None:
    """Make the key that signs for a borrower, and see the loan in a browser."""


borrower.add_command(page)


@borrower.command()
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Key file to write (mode 0600)."
)
@click.option("--force", is_flag=True, help="Replace the file.")
@pass_terminal
def key(terminal: Terminal, /, *, out: Path, force: bool) -> None:
    """Make an Ed25519 key and print its public half, which the custodian writes into the contract."""
    made = SigningKey.generate()
    write_file(out, dump_b64u(made.seed()).encode() + b"\n", force=force, private=True)
    result: Json = {"file": str(out), "key_id": made.key_id, "public": made.verify_key.dump()}
    terminal.result(result, lambda console: console.print(f"{made.verify_key.dump()}", markup=False))


def read_borrower_key(path: str) -> SigningKey:
    """Return the key in a file of mode 0600, or on stdin where ``path`` is ``-``. Raises ``UsageError``."""
    text = read_secret(path, what="borrower's key", hint="make one with 'cloister borrower key'")
    try:
        return SigningKey(parse_b64u(text.reveal(), what="borrower's key", size=_SEED_BYTES))
    except Malformed as exc:
        msg = f"{path}: no key of 'cloister borrower key'"
        raise UsageError(msg) from exc
