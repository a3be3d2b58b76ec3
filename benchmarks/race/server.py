"""A server under measurement, as the rounds see it: where it listens, its processes, and rows that ask it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from race.processor import cpu_s, family, still, wake

if TYPE_CHECKING:
    from collections.abc import Iterable

    from race.nets import Floats, Net

_CALM_S = 0.02  # processor seconds in a tenth of a second, below which a server counts as idle
_CALM_TIMES = 2  # so often in a row, for on a busy machine it may just not have had its turn
_PATIENCE_S = 15


@dataclass(slots=True, kw_only=True)
class Server:
    """One server that is up."""

    name: str
    url: str
    pid: int
    restless: bool = False  # whether it takes processor time with nothing to do, and may be stopped meanwhile

    def cpu_s(self) -> float:
        """Return the processor seconds that it and its children have used."""
        return cpu_s(family(self.pid))

    def still(self) -> None:
        """Stop it for a while where its idle processes would disturb the others."""
        if self.restless:
            still(family(self.pid))

    def wake(self) -> None:
        """Let it go on."""
        if self.restless:
            wake(family(self.pid))

    def calm(self) -> None:
        """Wait until it has done what nobody waits for any more."""
        end = time.monotonic() + _PATIENCE_S
        before, calm = self.cpu_s(), 0
        while time.monotonic() < end and calm < _CALM_TIMES:
            time.sleep(0.1)
            now = self.cpu_s()
            calm = calm + 1 if now - before < _CALM_S else 0
            before = now


class Way(Protocol):
    """How requests of one row are made and its answers read."""

    def requests(self, net: Net, inputs: Floats, count: int) -> Iterable[bytes]:
        """Return ``count`` requests as they travel; one where the same may be sent again and again."""
        ...

    def ask(self, net: Net, inputs: Floats) -> Floats:
        """Return one answer as one row of numbers. Ends the program where there is none."""
        ...

    @property
    def again(self) -> bool:
        """Whether the same bytes may be sent again."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: a server, asked in one way, with so many inferences in a request."""

    name: str
    body: str
    server: Server
    way: Way
    rows: int = 1
    only: frozenset[str] | None = None  # names of nets; None for all

    @property
    def key(self) -> tuple[str, str, int]:
        """What names this row."""
        return self.name, self.body, self.rows

    def takes(self, net: Net) -> bool:
        """Tell whether the row is measured with this net."""
        return self.only is None or net.name in self.only
