"""The stage: three parties side by side in one terminal, scene by scene.

On a terminal each scene is a live table of three columns; elsewhere the same lines come one by one with
the party's name in front. A claim that does not hold ends the demo: ``DemoFailed``.
"""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING, Self

from rich.live import Live
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from cloister.errors import CloisterError

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console, RenderableType

__all__ = ["DemoFailed", "Party", "Scene", "Stage"]


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
    """Lines of the three parties under one title. Lines are plain text: nothing in them is markup."""

    def __init__(self, stage: Stage, title: str, why: str) -> None:
        """Belong to ``stage``."""
        self._stage = stage
        self._title = title
        self._why = why
        self._lines: dict[Party, list[Text]] = {party: [] for party in Party}
        self._proofs: list[Text] = []
        self._live: Live | None = None

    def __enter__(self) -> Self:
        """Print the title and start drawing."""
        console = self._stage.console
        console.print()
        console.print(Rule(Text(self._title, style="bold"), align="left", style="dim"))
        console.print(Text(self._why, style="italic dim"))
        if console.is_terminal:
            self._live = Live(self._draw(), console=console, auto_refresh=False, vertical_overflow="visible")
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        """Leave the finished table on the screen."""
        if self._live is not None:
            self._live.update(self._draw(), refresh=True)
            self._live.stop()
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
        if not holds:
            self._proofs.append(Text(f"  ✗ {claim}", style="bold red"))
            raise DemoFailed(f"demo: {claim}: did not hold", hint=seen or None)
        self._stage.proven.append(claim)
        proof = Text(f"  ✓ {claim}", style="green")
        self._proofs.append(proof)
        if self._live is None:
            self._stage.console.print(proof)
        else:
            self._live.update(self._draw(), refresh=True)

    def _say(self, party: Party, line: str, style: str) -> None:
        self._lines[party].append(Text(line, style=style))
        if self._live is None:
            for part in line.splitlines():
                self._stage.console.print(Text(f"{party.value:>9}  {part}"))
        else:
            self._live.update(self._draw(), refresh=True)

    def _draw(self) -> RenderableType:
        table = Table(expand=True, box=None, padding=(0, 1), show_edge=False)
        for party in Party:
            heading = Text(f"{party.value.upper()} ", style=f"bold {_COLOURS[party]}")
            heading.append(_HOLDS[party], style="dim")
            table.add_column(heading, ratio=1, overflow="fold")
        table.add_row(*(Text("\n").join(self._lines[party]) for party in Party))
        whole = Table.grid(expand=True)
        whole.add_row(table)
        for proof in self._proofs:
            whole.add_row(proof)
        return whole
