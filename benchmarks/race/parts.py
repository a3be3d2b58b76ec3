"""What is measured besides throughput: idle connections, a large tensor, the slow end of latency."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from race import goals, idle, tail, tensor
from race.nets import echo
from race.ours import BATCHED, OHTTP, PLAIN, TLS
from race.spelling import BINARY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from race.goals import Judged
    from race.nets import Net
    from race.server import Row

_HELD = 1000


def measure(
    part: str, rows: Sequence[Row], nets: Sequence[Net], folder: Path, *, rounds: int, seconds: int
) -> tuple[list[Judged], list[dict[str, Any]]]:
    """Measure one part, print its figures; return its goals, and the figures for a file."""
    single = [row for row in rows if row.body == BINARY and row.rows == 1]
    match part:
        case "idle":
            return _idle(single)
        case "tensor":
            return _tensor(single, folder / "requests", seconds)
        case _:
            return _tail(single, nets, folder / "requests", rounds, seconds)


def _idle(rows: Sequence[Row]) -> tuple[list[Judged], list[dict[str, Any]]]:
    print(f"\n{_HELD} connections that are held")
    judged: list[Judged] = []
    told: list[dict[str, Any]] = []
    for row in {row.server.pid: row for row in rows if row.name in {PLAIN, TLS}}.values():
        held = idle.hold(row.server, _HELD)
        print(f"{row.server.name:26}{held.each_bytes / 1024:>8.1f} KiB each, {held.lost} lost")
        judged += goals.of_idle(row.server.name, held.each_bytes, held.lost)
        told.append({"server": row.server.name, **asdict(held)})
    return judged, told


def _tensor(rows: Sequence[Row], file: Path, seconds: int) -> tuple[list[Judged], list[dict[str, Any]]]:
    print("\none tensor of 600 KB in and out, processor ms of the server")
    print(f"{'':26}{'all':>9}{'engine':>9}{'outside':>9}")
    judged: list[Judged] = []
    told: list[dict[str, Any]] = []
    for row in (row for row in rows if row.name != BATCHED):
        spent = tensor.spend(row, echo(), file, seconds)
        print(f"{row.name:26}{spent.all_ms:>9.2f}{spent.engine_ms:>9.2f}{spent.outside_ms:>9.2f}")
        if row.name != PLAIN:
            judged.append(goals.of_tensor(row.name, spent.outside_ms))
        told.append({"row": row.name, **asdict(spent)})
    return judged, told


def _tail(
    rows: Sequence[Row], nets: Sequence[Net], file: Path, rounds: int, seconds: int
) -> tuple[list[Judged], list[dict[str, Any]]]:
    print("\nlatency at 80 % of what the encrypted row can do, p99 in ms")
    print(f"{'':26}{'model':>8}{'offered/s':>11}{'reached/s':>11}{'plain':>9}{'row':>9}{'added':>9}")
    by_name = {row.name: row for row in rows}
    judged: list[Judged] = []
    told: list[dict[str, Any]] = []
    for row in (by_name[name] for name in (TLS, OHTTP) if name in by_name):
        for net in nets:
            found = tail.measure(by_name[PLAIN], row, net, file, rounds=rounds, seconds=seconds)
            print(
                f"{row.name:26}{net.name:>8}{found.offered:>11.1f}{found.reached:>11.1f}{found.plain_ms:>9.2f}"
                f"{found.guarded_ms:>9.2f}{found.added_ms:>9.2f}"
            )
            if row.name == TLS:
                judged.append(goals.of_tail(row.name, net.name, found.plain_ms, found.added_ms))
            told.append({"row": row.name, "model": net.name, **asdict(found)})
    return judged, told
