"""``cloister completion``: shell completion, as click generates it."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from cloister.cli.terminal import Verb
from cloister.errors import UsageError

__all__ = ["completion"]


@click.command(cls=Verb)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script: cloister completion bash > ~/.local/share/bash-completion/completions/cloister."""
    from cloister.cli import app  # noqa: PLC0415 - the whole command line, which loads this file

    kind = get_completion_class(shell)
    if kind is None:
        msg = f"completion: {shell} is not supported"
        raise UsageError(msg)
    click.echo(kind(app, {}, "cloister", "_CLOISTER_COMPLETE").source())
