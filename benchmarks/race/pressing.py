"""One stretch of load upon one row: requests written, load, the server's processor time, calm again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from race.load import WARM_S, press, write_requests

if TYPE_CHECKING:
    from pathlib import Path

    from race.load import Load
    from race.nets import Net
    from race.server import Row

_SPARE = 1.5  # times as many sealed requests as are expected to be answered
_MOST = 20  # times as many, where even that did not last
_FLOOR, _FEW = 400, 30  # requests a second that are reckoned with at least, for small nets and for others


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressed:
    """What the load came to, and the server's processor milliseconds of one inference."""

    load: Load
    cpu_ms: float


def press_row(
    row: Row,
    net: Net,
    file: Path,
    *,
    connections: int,
    seconds: int,
    rate: float = 0,
    think_ms: float = 0,
    spare: float = _SPARE,
) -> Pressed:
    """Press one row; ``rate`` is how many requests a second it has answered before.

    Requests that go once only are written in a number that should last. Where they did not, the last ones were
    refused as replays: then it is done again with more of them.
    """
    floor = _FLOOR / row.rows if net.is_small else _FEW
    count = (
        int(spare * (seconds + WARM_S) * max(rate, floor)) + 2 * connections + 1
    )  # wrk looks at one and sends it to nobody
    written = write_requests(file, row.way.requests(net, net.inputs(row.rows), count))
    load = press(
        row.server.url,
        file,
        cpu_s=row.server.cpu_s,
        connections=connections,
        seconds=seconds,
        think_ms=think_ms,
    )
    row.server.calm()
    if not row.way.again and load.requests + connections > written and spare < _MOST:
        return press_row(
            row,
            net,
            file,
            connections=connections,
            seconds=seconds,
            rate=max(rate, load.rate),
            think_ms=think_ms,
            spare=spare * 2,
        )
    return Pressed(load=load, cpu_ms=load.server_ms / row.rows)
