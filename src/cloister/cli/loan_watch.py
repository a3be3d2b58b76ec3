"""``cloister loan watch``: one loan live, with a burn-down and what comes of going on so."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.consoles.asking import console_options, loan_source, reconnect, run
from cloister.cli.consoles.loan_view import LoanView
from cloister.cli.consoles.screen import glyphs_of
from cloister.cli.duration import DURATION
from cloister.cli.remote import from_loan_file, remote_options, segment
from cloister.cli.terminal import Terminal, Verb, pass_terminal
from cloister.errors import UsageError
from cloister.wire import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.cli.consoles.feed import Standing
    from cloister.cli.consoles.loan_view import Watched
    from cloister.cli.consoles.screen import View, Wake
    from cloister.cli.remote import Remote

__all__ = ["watch"]


@click.command(cls=Verb)
@click.argument("loan_id", metavar="[LOAN]", required=False)
@click.option(
    "--loan-file", type=click.Path(path_type=Path, dir_okay=False), help="The loan file, for a borrower: its own loan."
)
@click.option("--window", type=DURATION, default="1h", show_default=True, help="How far back the plot goes.")
@console_options
@remote_options
@pass_terminal
def watch(
    terminal: Terminal,
    /,
    *,
    loan_id: str | None,
    loan_file: Path | None,
    window: timedelta,
    once: bool,
    interval: float,
    no_events: bool,
    **where: Any,
) -> None:
    """Follow a loan live: units left and until when, requests, instances, events.

    Without a terminal, and with --once, one frame is printed; with --json one line for each event and each change.
    """
    loan, connect = _named(loan_id, loan_file, where)
    if terminal.as_json and not once:
        _print_events(terminal, connect, loan)
        return
    glyphs, every = glyphs_of(terminal), timedelta(seconds=interval)

    def view(standing: Callable[[], Standing[Watched]], wake: Wake | None) -> View:
        return LoanView(standing, named=loan, glyphs=glyphs, interval=every, keys=wake is not None)

    source = loan_source(connect, loan, interval=interval, no_events=no_events, window=window)
    run(terminal, source, view, once=once)


def _named(loan_id: str | None, loan_file: Path | None, where: dict[str, Any]) -> tuple[str, Callable[[], Remote]]:
    """Return which loan, and what connects for it. Raises ``UsageError``."""
    if (loan_id is None) is (loan_file is None):
        msg = "want a loan, or --loan-file"
        raise UsageError(msg, hint="'cloister loan list' names the loans; a borrower has a loan file")
    if loan_file is None:
        return str(loan_id), reconnect(where)
    path = loan_file
    remote, loan = from_loan_file(path)
    remote.__exit__(None, None, None)
    return loan, lambda: from_loan_file(path)[0]


def _print_events(terminal: Terminal, connect: Callable[[], Remote], loan: str) -> None:
    """Print what the custodian says, a line each, until interrupted."""
    with connect() as remote, remote.events(f"/v1/events?loan={segment(loan)}") as events:
        for event in events:
            terminal.line(parse_json(event.encode(), what="event"))
