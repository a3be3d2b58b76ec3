"""What commands about stores of sealed models share: options, and what lets us in there."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.errors import UsageError
from cloister.stores import ModelUrl, parse_place, read_access

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.stores import Access

__all__ = ["demand_digest", "digest_option", "store_access", "store_options"]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_file = click.Path(path_type=Path, dir_okay=False)

digest_option = click.option(
    "--digest", help="Digest of the model that is wanted, as the loan says it; another is refused."
)


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say whom to believe, and who we are."""
    for option in (
        click.option("--token-file", type=_file, help="File with a bearer token for the store (mode 0600)."),
        click.option("--ca", type=_file, help="PEM file of the authority of the store's TLS certificate."),
    ):
        command = option(command)
    return command


def store_access(place: str, ca: Path | None, token_file: Path | None) -> Access:
    """Return what lets us in there. Raises ``UsageError`` for a token where none is shown."""
    found = parse_place(place)
    if token_file is not None and not (isinstance(found, ModelUrl) and found.takes_token):
        msg = f"{found}: takes no token"
        raise UsageError(msg, hint="credentials of buckets come from the environment: docs/reference/sources.md")
    return read_access(ca=ca, token_file=token_file, environment=os.environ)


def demand_digest(digest: str | None) -> None:
    """Refuse what is no digest of a model. Raises ``UsageError``."""
    if digest is not None and not _DIGEST.fullmatch(digest):
        msg = "--digest: want 64 hex digits"
        raise UsageError(msg)
