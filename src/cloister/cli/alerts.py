"""``cloister alerts``: what the custodian says is wrong, for sites without a monitoring system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cloister.cli.remote import from_options, remote_options
from cloister.cli.terminal import EXIT_REJECTED, Terminal, Verb, pass_terminal

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["alerts"]

_NAMED = 3  # subjects in one line


@click.command(cls=Verb)
@click.option("--fail", is_flag=True, help="Exit with 4 where any alarm is active, for a job that watches.")
@remote_options
@pass_terminal
def alerts(terminal: Terminal, /, *, fail: bool, **where: Any) -> int:
    """List the custodian's active alarms, worst first."""
    with from_options(**where) as remote:
        found = remote.get("/v1/alarms")
    alarms = found["alarms"]
    terminal.result(found, lambda console: _draw(terminal, alarms, console))
    return EXIT_REJECTED if fail and alarms else 0


def _draw(terminal: Terminal, alarms: list[Any], out: Console) -> None:
    if not alarms:
        out.print("no alarm is active")
        return
    rows = [
        (alarm["severity"], alarm["code"], alarm["since"] or "-", str(alarm["count"]), _named(alarm["subjects"]))
        for alarm in alarms
    ]
    out.print(terminal.table(("SEVERITY", "ALARM", "SINCE", "COUNT", "WHAT"), rows))


def _named(subjects: list[str]) -> str:
    shown = ", ".join(subjects[:_NAMED])
    return f"{shown}, ..." if len(subjects) > _NAMED else shown
