"""How commands open the vault of a custodian: by options, by environment, or by asking."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.terminal import read_secret
from cloister.custodian.vaults.unlock import KeyFile, Passphrase
from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.custodian.vaults.unlock import Unlock

__all__ = ["unlock_options", "unlock_with"]

_KEY_FILE_VARIABLE = "CLOISTER_CUSTODIAN_KEY_FILE"
_PASSPHRASE_FILE_VARIABLE = "CLOISTER_CUSTODIAN_PASSPHRASE_FILE"  # noqa: S105 - the name of a variable
_file = click.Path(path_type=Path, dir_okay=False)


def unlock_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add the options that say how the vault opens: the command gets ``key_file`` and ``passphrase_file``."""
    for option in (
        click.option(
            "--passphrase-file", metavar="FILE", help=f"Passphrase of the vault [env {_PASSPHRASE_FILE_VARIABLE}]."
        ),
        click.option("--key-file", type=_file, help=f"Key file of the vault, mode 0600 [env {_KEY_FILE_VARIABLE}]."),
    ):
        command = option(command)
    return command


def unlock_with(key_file: Path | None, passphrase_file: str | None, *, new: bool = False) -> Unlock:
    """Return what opens the vault: a key file, a passphrase file, or a passphrase asked for on a terminal."""
    key = key_file or os.environ.get(_KEY_FILE_VARIABLE)
    if key:
        path = Path(key)
        return KeyFile.create(path) if new and not path.exists() else KeyFile(path)
    named = passphrase_file or os.environ.get(_PASSPHRASE_FILE_VARIABLE)
    if named:
        return Passphrase(read_secret(named, what="passphrase").encode())
    if not sys.stdin.isatty():
        msg = "vault: no key file and no passphrase"
        raise UsageError(msg, hint="pass --key-file or --passphrase-file; on a terminal you are asked")
    asked = click.prompt("Passphrase of the vault", hide_input=True, confirmation_prompt=new, err=True)
    return Passphrase(str(asked).encode())
