"""``cloister loan watch``: a loan redrawn whenever the custodian's log grows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group as Lines
from rich.live import Live
from rich.text import Text

from cloister.cli.remote import segment
from cloister.wire import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from cloister.cli.remote import Remote
    from cloister.cli.terminal import Terminal

__all__ = ["watch_loan"]

_KEPT_EVENTS = 8


def watch_loan(
    terminal: Terminal, remote: Remote, loan_id: str, draw: Callable[[dict[str, Any], Console], None]
) -> None:
    """Redraw the loan on each event until interrupted; with ``--json``, or without a terminal, print events."""
    shown = remote.get(f"/v1/loans/{segment(loan_id)}")
    recent: list[str] = []
    with remote.events(f"/v1/events?loan={segment(loan_id)}") as events:
        if terminal.as_json or not terminal.out.is_terminal:
            for event in events:
                terminal.line(parse_json(event.encode(), what="event"))
            return
        with Live(console=terminal.out, auto_refresh=False) as live:
            live.update(_screen(terminal, shown, recent, draw), refresh=True)
            for event in events:
                news: Any = parse_json(event.encode(), what="event")
                if "meters" in news:
                    shown = news
                else:
                    recent = [*recent, f"{news['at'][11:19]} {news['kind']} {news['actor']}"][-_KEPT_EVENTS:]
                live.update(_screen(terminal, shown, recent, draw), refresh=True)


def _screen(
    terminal: Terminal, shown: dict[str, Any], recent: list[str], draw: Callable[[dict[str, Any], Console], None]
) -> Lines:
    with terminal.out.capture() as drawn:
        draw(shown, terminal.out)
    return Lines(Text.from_ansi(drawn.get()), *(Text(line, style="dim") for line in recent))
