"""How commands open the vault of a custodian: by options, by environment, or by asking."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.terminal import read_secret
from cloister.custodian.setup import vault_place
from cloister.custodian.vaults.encrypted_file import read_vault
from cloister.custodian.vaults.key_service import connect
from cloister.custodian.vaults.unlock import KeyFile, Passphrase
from cloister.custodian.vaults.vault_file import service_of
from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.custodian.vaults.key_service import KeyService
    from cloister.custodian.vaults.unlock import Unlock

__all__ = ["lock_with", "unlock_options", "unlock_with", "vault_option"]

_KEY_FILE_VARIABLE = "CLOISTER_CUSTODIAN_KEY_FILE"
_PASSPHRASE_FILE_VARIABLE = "CLOISTER_CUSTODIAN_PASSPHRASE_FILE"  # noqa: S105 - the name of a variable
_VAULT_VARIABLE = "CLOISTER_CUSTODIAN_VAULT"
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


vault_option = click.option(
    "--vault",
    metavar="NAME",
    help="Key service that locks the vault: pkcs11:token=T;object=K, aws-kms:ARN, transit:MOUNT/KEY, "
    f"kmip:ID, tpm:sha256:PCRS [env {_VAULT_VARIABLE}].",
)


def unlock_with(home: Path, key_file: Path | None, passphrase_file: str | None) -> Unlock:
    """Return what opens a home's vault: the key service it names, or else a secret of its owner's.

    Raises ``UsageError`` where a service or a secret is expected, by options or environment, and the vault is locked
    in another way: a vault that somebody put in its place opens by a service of theirs.
    """
    wanted, named = _wanted(), service_of(read_vault(vault_place(home)))
    if wanted is not None and named != wanted.name:
        msg = f"{_VAULT_VARIABLE}: the vault is locked by {named or 'a secret'}, want {wanted.name}"
        raise UsageError(msg)
    if named is None:
        return _secret(key_file, passphrase_file)
    _demand_no_secret(named, key_file, passphrase_file)
    return wanted or connect(named, os.environ)


def lock_with(service: str | None, key_file: Path | None, passphrase_file: str | None) -> Unlock:
    """Return what a new vault is locked with: the key service that is named, else a secret, made if need be."""
    wanted = _wanted()
    named = connect(service, os.environ, by_operator=True) if service is not None else wanted
    if named is None:
        return _secret(key_file, passphrase_file, new=True)
    _demand_no_secret(named.name, key_file, passphrase_file)
    if wanted is not None and named.name != wanted.name:
        msg = f"--vault: {named.name}, but {_VAULT_VARIABLE} wants {wanted.name}"
        raise UsageError(msg)
    return named


def _wanted() -> KeyService | None:
    name = os.environ.get(_VAULT_VARIABLE)
    if name == "":  # a template that nobody filled in would take the pin away unseen
        msg = f"{_VAULT_VARIABLE}: empty"
        raise UsageError(msg, hint="name the key service, or leave the variable out")
    return None if name is None else connect(name, os.environ, by_operator=True)


def _demand_no_secret(named: str, key_file: Path | None, passphrase_file: str | None) -> None:
    given = (key_file, passphrase_file, *map(os.environ.get, (_KEY_FILE_VARIABLE, _PASSPHRASE_FILE_VARIABLE)))
    if any(given):
        msg = f"vault: locked by {named}, but a key file or passphrase file is given"
        hint = f"if that is right, leave out --key-file, --passphrase-file, {_KEY_FILE_VARIABLE} and the like"
        raise UsageError(msg, hint=hint)


def _secret(key_file: Path | None, passphrase_file: str | None, *, new: bool = False) -> Passphrase | KeyFile:
    """Return a key file, a passphrase file, or a passphrase asked for on a terminal."""
    key = key_file or os.environ.get(_KEY_FILE_VARIABLE)
    if key:
        path = Path(key)
        return KeyFile.create(path) if new and not path.exists() else KeyFile(path)
    named = passphrase_file or os.environ.get(_PASSPHRASE_FILE_VARIABLE)
    if named:
        return Passphrase(read_secret(named, what="passphrase").reveal().encode())
    if not sys.stdin.isatty():
        msg = "vault: no key file and no passphrase"
        raise UsageError(msg, hint="pass --key-file or --passphrase-file; on a terminal you are asked")
    asked = click.prompt("Passphrase of the vault", hide_input=True, confirmation_prompt=new, err=True)
    return Passphrase(str(asked).encode())
