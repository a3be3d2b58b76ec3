"""``cloister verify``: is this the enclave I trust? Asks nothing, costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cloister.cli.consumer import connect, consumer_options, draw_checks
from cloister.cli.terminal import Terminal, Verb, pass_terminal
from cloister.client.verdict import enclave_json

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["verify"]


@click.command(cls=Verb)
@click.argument("url")
@consumer_options
@pass_terminal
def verify(terminal: Terminal, /, *, url: str, **whom: Any) -> None:
    """Verify the enclave at URL by fresh evidence and show every check, got and want.

    Exit code 0: it satisfies the trust file. 4: it does not. 5: that could not be decided. A borrower's key in the
    trust file is not among the checks: the contract it signed is shown to consumers, and proven before they ask.
    """
    with connect(terminal, url, **whom) as client:
        enclave = client.enclave

    def draw(out: Console) -> None:
        draw_checks(terminal, enclave.checks, out)
        out.print(f"verified: {enclave.result.tee}, tier {enclave.result.tier.value}, instance {enclave.instance[:16]}")
        for model in enclave.keyset.models:
            ticket = ", with a ticket for each answer" if model.ticketed else ""
            out.print(f"serves {model.name} {model.digest}{ticket}", markup=False)

    terminal.result(enclave_json(enclave), draw)
