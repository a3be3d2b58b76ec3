"""``cloister contract``: what an enclave's loan is agreed on, proven, in plain words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.consumer import connect, consumer_options, draw_checks
from cloister.cli.contract_words import contract_rows
from cloister.cli.terminal import Terminal, Verb, demand_writable, pass_terminal, write_file
from cloister.client.verdict import check_json
from cloister.wire import parse_json

if TYPE_CHECKING:
    from rich.console import Console

    from cloister.wire import Json

__all__ = ["contract"]


@click.command(cls=Verb)
@click.argument("url")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Keep the signed contract in this file.")
@click.option("--force", is_flag=True, help="Replace the file.")
@consumer_options
@pass_terminal
def contract(terminal: Terminal, /, *, url: str, out: Path | None, force: bool, **whom: Any) -> None:
    """Show the contract under which the enclave at URL serves, once both signatures hold and evidence binds it."""
    demand_writable((out,), force=force)
    with connect(terminal, url, **whom) as client:
        agreed = client.contract()
    if out is not None:
        write_file(out, agreed.document + b"\n", force=force)
    payload = parse_json(agreed.contract.dump(), what="contract")
    consumers: list[Json] | None = None if agreed.consumers is None else list(agreed.consumers)
    result: Json = {
        "checks": [check_json(check) for check in agreed.checks],
        "consumers": consumers,
        "contract": payload,
        "digest": agreed.contract.digest,
    }

    def draw(console: Console) -> None:
        console.print(terminal.table(("", ""), contract_rows(agreed.contract, agreed.consumers)))
        draw_checks(terminal, agreed.checks, console)

    terminal.result(result, draw)
