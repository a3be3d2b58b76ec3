"""``cloister custodian top``: what a custodian does, live."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.consoles.asking import console_options, custody_source, loan_source, reconnect, run
from cloister.cli.consoles.custodian_view import CustodianView
from cloister.cli.consoles.loan_view import LoanView
from cloister.cli.consoles.screen import glyphs_of
from cloister.cli.remote import remote_options
from cloister.cli.terminal import Terminal, Verb, pass_terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.cli.consoles.custodian_view import Custody
    from cloister.cli.consoles.feed import Standing
    from cloister.cli.consoles.screen import View, Wake

__all__ = ["top"]

_WINDOW = timedelta(hours=1)  # of one loan's plot


@click.command(cls=Verb)
@console_options
@remote_options
@pass_terminal
def top(terminal: Terminal, /, *, once: bool, interval: float, no_events: bool, **where: Any) -> None:
    """Show a custodian live: loans and when they are empty, instances, alarms, events.

    Without a terminal, and with --once, one frame is printed; with --json a document a line, each time it asked.
    """
    connect = reconnect(where)
    glyphs, every = glyphs_of(terminal), timedelta(seconds=interval)
    with connect() as remote:
        named = remote.url

    def opened(wake: Wake) -> Callable[[str], View]:
        def one(loan: str) -> View:
            source = loan_source(connect, loan, interval=interval, no_events=no_events, window=_WINDOW)
            feed = source.feed(wake)
            feed.start()
            return LoanView(
                lambda: feed.standing, named=loan, glyphs=glyphs, interval=every, keys=True, ended=feed.stop
            )

        return one

    def view(standing: Callable[[], Standing[Custody]], wake: Wake | None) -> View:
        by_key = None if wake is None else opened(wake)
        return CustodianView(standing, where=named, glyphs=glyphs, interval=every, opened=by_key)

    run(terminal, custody_source(connect, interval=interval, no_events=no_events), view, once=once)
