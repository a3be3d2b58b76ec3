"""The stage: three parties side by side in one terminal, scene by scene, time running down.

Lines are only ever added, so that a terminal of any height shows, keeps and records them whole. On a narrow
terminal, and in a file, each line has its party's name in front instead of a column of its own. A claim that
does not hold ends the demo: ``DemoFailed``.
"""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING, Self

from rich.cells import cell_len
from rich.containers import Lines
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from cloister.errors import CloisterError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from rich.console import Console

__all__ = ["DemoFailed", "Party", "Scene", "Stage"]

_SIDE_BY_SIDE = 90  # columns of a terminal, from which three parties fit beside each other
_WIDEST = 150  # columns: longer lines are hard to read


class DemoFailed(CloisterError):
    """A step of the demo did not do what it says."""


class Party(Enum):
    """Who speaks, and in which colour."""

    CUSTODIAN = "custodian"
    BORROWER = "borrower"
    CONSUMER = "consumer"


_COLOURS = {Party.CUSTODIAN: "cyan", Party.BORROWER: "yellow", Party.CONSUMER: "magenta"}
_HOLDS = {
    Party.CUSTODIAN: "owns the model",
    Party.BORROWER: "runs the enclave",
    Party.CONSUMER: "asks it",
}


class Stage:
    """Opens scenes, counts what was proven, pauses between scenes when asked to."""

    def __init__(self, console: Console, *, pause: bool) -> None:
        """Show on ``console``; ``pause`` waits for Enter after each scene."""
        self.console = console
        self.proven: list[str] = []
        self._pause = pause
        self._number = 0
        self.started = time.monotonic()

    def scene(self, title: str, why: str) -> Scene:
        """Return the next scene; use it in a ``with`` block."""
        self._number += 1
        return Scene(self, f"{self._number}. {title}", why)

    def loud(self, text: str) -> None:
        """Say something nobody may overlook."""
        self.console.print(Padding(Text(text, style="bold white on red"), (0, 1)))

    def pause(self) -> None:
        """Wait for Enter where people asked for it."""
        if self._pause:
            self.console.input("[dim]press Enter to go on[/dim] ")


class Scene:
    """Lines of the three parties under one title, in the order they were said. Nothing in them is markup."""

    def __init__(self, stage: Stage, title: str, why: str) -> None:
        """Belong to ``stage``."""
        self._stage = stage
        self._title = title
        self._why = why
        self._side_by_side = stage.console.is_terminal and stage.console.width >= _SIDE_BY_SIDE

    def __enter__(self) -> Self:
        """Print the title, and who stands in which column."""
        console = self._stage.console
        console.print()
        console.print(Rule(Text(self._title, style="bold"), align="left", style="dim"), width=self._width)
        console.print(Text(self._why, style="italic dim"), width=self._width)
        if self._side_by_side:
            self._row({party: _heading(party) for party in Party})
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        """Wait where people asked for it."""
        if kind is None:
            self._stage.pause()

    def custodian(self, line: str, *, style: str = "") -> None:
        """Let the custodian speak."""
        self._say(Party.CUSTODIAN, line, style)

    def borrower(self, line: str, *, style: str = "") -> None:
        """Let the borrower, or the enclave on its machine, speak."""
        self._say(Party.BORROWER, line, style)

    def consumer(self, line: str, *, style: str = "") -> None:
        """Let the consumer speak."""
        self._say(Party.CONSUMER, line, style)

    def prove(self, claim: str, *, holds: bool, seen: str = "") -> None:
        """State ``claim`` as proven, or end the demo with what was ``seen`` instead."""
        mark, style = ("✓", "green") if holds else ("✗", "bold red")
        proof = Table.grid(padding=(0, 1))
        proof.add_row(Text(f" {mark}", style=style), Text(claim, style=style))
        self._stage.console.print(proof, width=self._width)
        if not holds:
            raise DemoFailed(f"demo: {claim}: did not hold", hint=seen or None)
        self._stage.proven.append(claim)

    @property
    def _width(self) -> int:
        return min(self._stage.console.width, _WIDEST)

    def _say(self, party: Party, line: str, style: str) -> None:
        if self._side_by_side:
            self._row({party: Text(line, style=style)})
            return
        for part in line.splitlines():
            self._stage.console.print(Text(f"{party.value:>9}  {part}", style=style))

    def _row(self, said: Mapping[Party, Text]) -> None:
        """Print one row of three columns, as many lines as its longest cell needs."""
        bar = Text(" │ ", style="dim")
        column = (self._width - 2 * len(bar.plain) - 1) // len(Party)
        cells = {party: text.wrap(self._stage.console, column, overflow="fold") for party, text in said.items()}
        for number in range(max(map(len, cells.values()))):
            line = Text(" ")
            for party in Party:
                here = cells.get(party, Lines())
                part = here[number] if number < len(here) else Text()
                part.rstrip()
                part.pad_right(column - cell_len(part.plain))
                line.append_text(part if party is Party.CUSTODIAN else bar + part)
            line.rstrip()
            self._stage.console.print(line, soft_wrap=True)


def _heading(party: Party) -> Text:
    return Text.assemble((party.value.upper(), f"bold {_COLOURS[party]}"), (f" {_HOLDS[party]}", "dim"))
