"""``cloister custodian shares``: split what opens the vault among holders, and open it by their shares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.custodian_permit import permit, revoke
from cloister.cli.remote import custodian_home, home_option
from cloister.cli.terminal import Group, Terminal, pass_terminal
from cloister.cli.unlock import lock_with, unlock_options, unlock_with, vault_option
from cloister.crypto.shamir import MAX_PARTS, MIN_NEED
from cloister.custodian.setup import vault_place
from cloister.custodian.sharing import combine_custodian, split_custodian
from cloister.custodian.vaults.permit import MAX_PERMIT_BYTES
from cloister.custodian.vaults.shares import MAX_SHARE_BYTES, Division, Share
from cloister.errors import UsageError
from cloister.private_file import read_private, write_private

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.wire import Json

__all__ = ["shares"]

_folder = click.Path(path_type=Path, file_okay=False)
_file = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=Group)
def shares() -> None:
    """Recover the vault by shares: any K of N holders together, fewer not at all."""


shares.add_command(permit)
shares.add_command(revoke)


@shares.command()
@home_option
@click.option("--of", type=click.IntRange(MIN_NEED, MAX_PARTS), required=True, help="How many shares to make.")
@click.option("--need", type=click.IntRange(MIN_NEED, MAX_PARTS), required=True, help="How many open the vault.")
@click.option("--holder", "holders", multiple=True, help="Who gets a share: once for each share, in their order.")
@click.option("--permit", "permit_file", type=_file, help="File with a permit, where two persons decide this.")
@click.option("--out", type=_folder, required=True, help="Folder to write them into; it is made, mode 0700.")
@unlock_options
@pass_terminal
def split(
    terminal: Terminal,
    /,
    *,
    home: Path | None,
    of: int,
    need: int,
    holders: tuple[str, ...],
    permit_file: Path | None,
    out: Path,
    key_file: Path | None,
    passphrase_file: str | None,
) -> None:
    """Write shares of the key that opens the vault file as it is now.

    Each is a file of mode 0600: give one to each holder and keep none. They open this vault file and no other, so
    keep copies of it; once the vault is locked anew, split it again.

    Where two persons decide this, it takes a permit for exactly these numbers and holders, which is spent before a
    share is written; the custodian is stopped meanwhile.
    """
    place = custodian_home(home)
    shown = None if permit_file is None else read_private(permit_file, cap=MAX_PERMIT_BYTES)
    _demand_free(out, of)
    made = split_custodian(
        place,
        unlock_with(place, key_file, passphrase_file),
        Division(need=need, of=of, holders=holders),
        permit=shown,
        environment=os.environ,
    )
    paths = _write(out, made)
    result: dict[str, Json] = {
        "files": [str(path) for path in paths], "holders": list(holders), "need": need, "of": of,
        "split": made[0].split.hex(), "vault": made[0].vault,
    }  # fmt: skip
    terminal.result(result, lambda console: console.print("\n".join(map(str, paths))))
    terminal.say(f"any {need} of these {of} open the vault; give each to somebody else", style="dim")


def _place_of(folder: Path, x: int, of: int) -> Path:
    return folder / f"share-{x}-of-{of}.json"


def _demand_free(folder: Path, of: int) -> None:
    """Make the folder, and prove that no share is in the way: no permit is to be spent on that."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        msg = f"{folder}: {exc.strerror}"
        raise UsageError(msg) from exc
    for x in range(1, of + 1):
        if _place_of(folder, x, of).exists():
            msg = f"{_place_of(folder, x, of)}: exists already"
            raise UsageError(msg, hint="choose another folder, or move the old shares away")


def _write(folder: Path, made: Sequence[Share]) -> list[Path]:
    """Write every share, or none."""
    written: list[Path] = []
    try:
        for share in made:
            path = _place_of(folder, share.part.x, share.of)
            write_private(path, share.dump())
            written.append(path)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return written


@shares.command()
@click.argument("files", metavar="SHARE...", nargs=-1, required=True, type=_file)
@home_option
@click.option("--holder", "holders", multiple=True, help="Who brings a share that does not say it; in their order.")
@vault_option
@unlock_options
@pass_terminal
def combine(
    terminal: Terminal,
    /,
    *,
    files: tuple[Path, ...],
    home: Path | None,
    holders: tuple[str, ...],
    vault: str | None,
    key_file: Path | None,
    passphrase_file: str | None,
) -> None:
    """Open the vault by shares and lock it anew: under another key file or passphrase, or a key service.

    For when passphrase, key file or the key of a key service is lost. Keys inside stay the same. The old secret and all
    old shares open the new vault file no more; copies of the old one still open by them.

    Where two persons decide this, it takes shares of two holders at least. The custodian's next start logs it.
    """
    place = custodian_home(home)
    combine_custodian(
        place,
        [_read(path) for path in files],
        lambda: lock_with(vault, key_file, passphrase_file),
        holders=holders,
        environment=os.environ,
    )
    shown = str(vault_place(place))
    terminal.result({"vault": shown}, lambda console: console.print(f"{shown}: locked anew"))
    terminal.say("old shares are spent: make new ones with 'cloister custodian shares split'", style="dim")


def _read(path: Path) -> Share:
    return Share.parse(read_private(path, cap=MAX_SHARE_BYTES), what=str(path))
