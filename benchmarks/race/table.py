"""The table of one run: a block for each net and concurrency, a line for each row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from race.ways import Sealed

if TYPE_CHECKING:
    from race.rounds import Cell, Rounds

_HEAD = (
    f"{'':26}{'body':>8}{'a req.':>7}{'inf./s':>9}{'lowest':>8}{'highest':>8}{'to plain':>9}"
    f"{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>8}{'to plain':>9}{'wrk':>6}"
)


def show(rounds: Rounds) -> None:
    """Print all cells."""
    blocks = dict.fromkeys((cell.net.name, cell.connections) for cell in rounds.cells)
    for net, connections in blocks:
        print(f"\n{net}, {connections} at once")
        print(_HEAD)
        for cell in rounds.cells:
            if (cell.net.name, cell.connections) == (net, connections) and cell.loads:
                print(_line(cell, rounds))


def show_consumers(rounds: Rounds) -> None:
    """Print what sealing one request and opening one answer cost a consumer."""
    print("\nthe consumer's side, ms")
    print(f"{'':26}{'body':>8}{'a req.':>7}{'model':>8}{'seal':>9}{'open':>9}")
    for cell in {(*cell.row.key, cell.net.name): cell for cell in rounds.cells}.values():
        if isinstance(cell.row.way, Sealed):
            seal, opened = cell.row.way.consumer_ms(cell.net, cell.net.inputs(cell.row.rows))
            print(f"{cell.row.name:26}{cell.row.body:>8}{cell.row.rows:>7}{cell.net.name:>8}{seal:>9.2f}{opened:>9.2f}")


def _line(cell: Cell, rounds: Rounds) -> str:
    to_plain = rounds.to_plain(cell)
    share = f"{to_plain:.2f}x" if to_plain is not None else ""
    cost = rounds.cost_to_plain(cell)
    spent = f"{cost:.2f}x" if cost is not None else ""
    faults = "".join(f"  {count} {name} faults" for name, count in cell.faults.items())
    return (
        f"{cell.row.name:26}{cell.row.body:>8}{cell.row.rows:>7}{cell.rate:>9.1f}{min(cell.rates):>8.1f}"
        f"{max(cell.rates):>8.1f}{share:>9}{cell.median(lambda load: load.p50_ms):>9.2f}"
        f"{cell.median(lambda load: load.p99_ms):>9.2f}{cell.cost:>8.2f}{spent:>9}"
        f"{cell.median(lambda load: load.wrk):>6.0%}{faults}"
    )


def to_json(rounds: Rounds) -> list[dict[str, object]]:
    """Return all cells with every round's figures."""
    return [
        {
            "row": cell.row.name,
            "body": cell.row.body,
            "rows": cell.row.rows,
            "model": cell.net.name,
            "connections": cell.connections,
            "inferences_per_s": cell.rates,
            "p50_ms": [load.p50_ms for load in cell.loads],
            "p99_ms": [load.p99_ms for load in cell.loads],
            "cpu_ms": cell.cpu_ms,
            "to_plain": rounds.to_plain(cell),
            "cpu_to_plain": rounds.cost_to_plain(cell),
            "faults": cell.faults,
        }
        for cell in rounds.cells
        if cell.loads
    ]
