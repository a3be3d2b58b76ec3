"""``cloister custodian shares``: split what opens the vault among holders, and open it by their shares."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.remote import HOME_VARIABLE, custodian_home
from cloister.cli.terminal import Group, Terminal, pass_terminal
from cloister.cli.unlock import lock_with, unlock_options, unlock_with, vault_option
from cloister.crypto.shamir import MAX_PARTS, MIN_NEED
from cloister.custodian.setup import vault_place
from cloister.custodian.vaults.encrypted_file import open_by_shares, relock, split_vault
from cloister.custodian.vaults.shares import MAX_SHARE_BYTES, Share
from cloister.errors import UsageError
from cloister.private_file import read_private, write_private

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.wire import Json

__all__ = ["shares"]

_home_option = click.option(
    "--home", type=click.Path(path_type=Path, file_okay=False), help=f"The custodian's home [env {HOME_VARIABLE}]."
)
_folder = click.Path(path_type=Path, file_okay=False)
_file = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=Group)
def shares() -> None:
    """Recover the vault by shares: any K of N holders together, fewer not at all."""


@shares.command()
@_home_option
@click.option("--of", type=click.IntRange(MIN_NEED, MAX_PARTS), required=True, help="How many shares to make.")
@click.option("--need", type=click.IntRange(MIN_NEED, MAX_PARTS), required=True, help="How many open the vault.")
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
    out: Path,
    key_file: Path | None,
    passphrase_file: str | None,
) -> None:
    """Write shares of the key that opens the vault file as it is now.

    Each is a file of mode 0600: give one to each holder and keep none. They open this vault file and no other, so
    keep copies of it; once the vault is locked anew, split it again.
    """
    place = custodian_home(home)
    made = split_vault(vault_place(place), unlock_with(place, key_file, passphrase_file), need=need, of=of)
    paths = _write(out, made)
    result: dict[str, Json] = {
        "files": [str(path) for path in paths], "need": need, "of": of, "vault": made[0].vault,
    }  # fmt: skip
    terminal.result(result, lambda console: console.print("\n".join(map(str, paths))))
    terminal.say(f"any {need} of these {of} open the vault; give each to somebody else", style="dim")


def _write(folder: Path, made: Sequence[Share]) -> list[Path]:
    """Write every share, or none."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        msg = f"{folder}: {exc.strerror}"
        raise UsageError(msg) from exc
    written: list[Path] = []
    try:
        for share in made:
            path = folder / f"share-{share.part.x}-of-{share.of}.json"
            write_private(path, share.dump())
            written.append(path)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return written


@shares.command()
@click.argument("files", metavar="SHARE...", nargs=-1, required=True, type=_file)
@_home_option
@vault_option
@unlock_options
@pass_terminal
def combine(
    terminal: Terminal,
    /,
    *,
    files: tuple[Path, ...],
    home: Path | None,
    vault: str | None,
    key_file: Path | None,
    passphrase_file: str | None,
) -> None:
    """Open the vault by shares and lock it anew: under another key file or passphrase, or a key service.

    For when passphrase, key file or the key of a key service is lost. Keys inside stay the same. The old secret and all
    old shares open the new vault file no more; copies of the old one still open by them.
    """
    place = vault_place(custodian_home(home))
    key = open_by_shares(place, [_read(path) for path in files])
    relock(place, key, lock_with(vault, key_file, passphrase_file))
    terminal.result({"vault": str(place)}, lambda console: console.print(f"{place}: locked anew"))
    terminal.say("old shares are spent: make new ones with 'cloister custodian shares split'", style="dim")


def _read(path: Path) -> Share:
    return Share.parse(read_private(path, cap=MAX_SHARE_BYTES), what=str(path))
