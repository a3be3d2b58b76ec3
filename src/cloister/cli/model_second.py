"""The second signature of manifests (ML-DSA-65) on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.crypto.mldsa import PUBLIC_BYTES, SecondKey
from cloister.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from cloister.cli.terminal import Terminal
    from cloister.crypto.mldsa import SecondSigner
    from cloister.custodian.vaults import Vault

__all__ = ["read_second", "second_option", "second_publisher"]

second_option = click.option(
    "--second-publisher", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="File with the publisher's ML-DSA-65 key: the manifest has to be signed by it too.",
)  # fmt: skip


def second_publisher(terminal: Terminal, vault: Vault) -> SecondSigner | None:
    """Return what signs a manifest a second time, None where this build of OpenSSL cannot, which is said."""
    try:
        return vault.second_publisher()
    except Unavailable as exc:
        terminal.say(f"signed once, for {exc.message}")
        return None


def read_second(path: Path | None) -> SecondKey | None:
    """Return the key in a file, None for none. Raises ``UsageError``."""
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            data = file.read(PUBLIC_BYTES + 1)
    except OSError as exc:
        msg = f"{path}: cannot be read: {exc.strerror}"
        raise UsageError(msg) from exc
    if len(data) != PUBLIC_BYTES:
        msg = f"{path}: no ML-DSA-65 key, want {PUBLIC_BYTES} bytes"
        raise UsageError(msg, hint="the custodian writes it with 'cloister custodian show --second-publisher-file'")
    return SecondKey(data)
