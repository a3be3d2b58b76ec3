"""How many live enclaves one custodian serves: renewals per second, and how long one takes.

    python benchmarks/leases.py [--instances 1000] [--seconds 24] [--database URL] [--custodians K]

A custodian as it is shipped (``cloister custodian serve``, TLS, default settings but for the port) is driven by
another process with so many live instances, each a real lease state machine with its own key:

* at the true cadence: every instance asks every T/3 = 20 s with jitter, over its own link, whatever became of
  the others; first over a new one, then over the one that is kept. A wait counts from when the request was due, so a
  custodian that falls behind cannot hide it.
* as fast as it goes: over 1, 8 and 64 connections, each request after the answer to the one before.

Beside it stands what the same machine does in the same run when it does nothing else: fsync(2) in the home's
folder, Ed25519, canonical JSON, a small transaction of SQLite.

``--database`` puts the ledger on PostgreSQL (an empty database); then one and ``--custodians`` custodians over it are
compared, as fast as they go. Instances belong to loans of four; each renews at one custodian.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import sqlite3
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from figures.goals import at_least, at_most
from fleet.house import make_house
from fleet.load import RENEW_S, Measured, load_process
from fleet.process import Custodian

from cloister.crypto.sign import Label, SigningKey
from cloister.testing.ports import free_port
from cloister.wire import dump_json, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fleet.house import House

P99_GOAL = at_most(50, " ms")  # what the slowest hundredth of a thousand live instances' renewals may take
LANES = (1, 8, 64)
GOAL_SHARED = at_least(2)  # what two custodians over one PostgreSQL should do, as a ratio to one
WARM_LANES = 8


class Load:
    """The other process."""

    def __init__(self, house: House, custodians: list[Custodian]) -> None:
        """Start it and wait until it holds every instance."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        ports = [custodian.port for custodian in custodians]
        self._process = context.Process(target=load_process, args=(house, ports, theirs))
        self._process.start()
        self._custodians = custodians
        self._pipe.recv()

    def __call__(self, *order: object) -> tuple[Measured, float, float]:
        """Run one stretch; return what came of it, and the processors the custodians and the load took."""
        begun, cpu = time.perf_counter(), self._cpu()
        self._pipe.send(order)
        found, load_cpu = self._pipe.recv()
        wall = time.perf_counter() - begun
        return found, (self._cpu() - cpu) / wall, load_cpu / wall

    def _cpu(self) -> float:
        return sum(custodian.cpu_s() for custodian in self._custodians)

    def end(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join()


@contextlib.contextmanager
def loaded(house: House, count: int) -> Iterator[tuple[list[Custodian], Load]]:
    """Run ``count`` custodians and the load process."""
    with contextlib.ExitStack() as stack:
        custodians = [stack.enter_context(Custodian(house, free_port(), at + 1)) for at in range(count)]
        load = Load(house, custodians)
        stack.callback(load.end)
        yield custodians, load


def median_us(work: Callable[[], object], rounds: int) -> float:
    """Return the median microseconds of one call."""
    took = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1e6


def show_pieces(folder: Path) -> None:
    """Print what one renewal is made of, each piece alone."""
    fd = os.open(folder / "probe", os.O_WRONLY | os.O_CREAT)
    key, payload = SigningKey.generate(), os.urandom(600)
    signature = key.sign(Label.LEASE, payload)
    document: Any = {f"member-{number}": {"units": number, "digest": "ab" * 32} for number in range(8)}
    data = dump_json(document)

    def sync() -> None:
        os.pwrite(fd, b"x" * 4096, 0)
        os.fsync(fd)

    pieces: dict[str, Callable[[], object]] = {
        "write and fsync 4 KiB": sync,
        "sign (Ed25519)": lambda: key.sign(Label.LEASE, payload),
        "verify (Ed25519)": lambda: key.verify_key.verify(Label.LEASE, payload, signature),
        f"parse and dump {len(data)} bytes of JSON": lambda: dump_json(parse_json(data, what="probe")),
    }
    with contextlib.closing(sqlite3.connect(folder / "probe.db", isolation_level=None)) as database:
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            database.execute(f"PRAGMA {pragma}")
        database.execute("CREATE TABLE probe (a INTEGER, b BLOB)")

        def commit() -> None:
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO probe VALUES (1, ?)", (payload,))
            database.execute("COMMIT")

        pieces["one insert, committed (SQLite, FULL)"] = commit
        print("what limits, each alone, median:")
        for name, work in pieces.items():
            print(f"  {name:40}{median_us(work, 300):>9.0f} us")
    os.close(fd)


def show(name: str, found: Measured, custodian: float, load: float) -> None:
    """Print one row."""
    waits = sorted(wait * 1e3 for wait in found.waits) or [float("nan")]
    p50, p95, p99 = (waits[min(len(waits) - 1, int(len(waits) * part))] for part in (0.5, 0.95, 0.99))
    faults = sum(found.faults.values())
    print(
        f"{name:28}{found.rate:>8.1f}{p50:>8.1f}{p95:>8.1f}{p99:>8.1f}{waits[-1]:>8.1f}{faults:>8}"
        f"{custodian:>10.0%}{load:>7.0%}"
    )
    for fault, times in found.faults.most_common(3):
        print(f"    {times} times: {fault}")


def measure(house: House, count: int, seconds: float, *, cadence: bool) -> float:
    """Measure ``count`` custodians over one ledger, print their rows, return their best rate."""
    with loaded(house, count) as (custodians, load):
        before = custodians[0].resident_mib()
        show("first lease of each", *load("closed", WARM_LANES, 0.0))
        if cadence:
            show("each over a new link", *load("link", RENEW_S, 1))
            found, *shares = load("kept", max(seconds, RENEW_S), 2)
            load("unlink")
            show(f"every {RENEW_S:.0f} s, own links", found, *shares)
            p99 = statistics.quantiles(found.waits, n=100)[98] * 1e3 if found.waits else float("inf")
            print(f"    p99 is {p99:.0f} ms; {P99_GOAL.verdict(p99)}; {sum(found.faults.values())} faults")
        best = 0.0
        for lanes in LANES:
            found, *shares = load("closed", lanes, seconds / 4)
            show(f"as fast as it goes, {lanes:>2}", found, *shares)
            best = max(best, found.rate)
        print(f"    resident memory {before:.0f} MiB before, {custodians[0].resident_mib():.0f} MiB after")
    return best


def compare(house: House, custodians: int, seconds: float) -> None:
    """Compare one and several custodians over one database."""
    rates = []
    for turn, count in enumerate((1, custodians)):
        print(f"{count} custodian{'s' if count > 1 else ''} over PostgreSQL:")
        part = replace(house, members=house.members[turn::2])  # an instance that has renewed cannot begin anew
        rates.append(measure(part, count, seconds, cadence=False))
    ratio = rates[1] / rates[0]
    print(f"    {custodians} custodians do {ratio:.2f}x of what one does; for two: {GOAL_SHARED.verdict(ratio)},")
    print(f"    set for where there are processors for them, the database and the load ({os.cpu_count()} here)")


def main() -> None:
    """Make the home, measure, print a table."""
    parser = argparse.ArgumentParser(description="renewals per second and their latency, at a real custodian")
    parser.add_argument("--instances", type=int, default=1000, help="live instances (1000)")
    parser.add_argument(
        "--seconds", type=float, default=24, help="seconds at the true cadence; a quarter for others (24)"
    )
    parser.add_argument("--folder", type=Path, default=None, help="where to work (the system's temporary folder)")
    parser.add_argument("--database", default=None, help="postgresql:// URL of an empty database")
    parser.add_argument("--custodians", type=int, default=2, help="custodians over that database (2)")
    arguments, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="leases-") as place:
        begun = time.perf_counter()
        settings = {} if arguments.database is None else {"database": arguments.database}
        house = make_house(Path(place), arguments.instances, settings)
        took = time.perf_counter() - begun
        print(f"{arguments.instances} instances attested and granted in {took:.0f} s, {os.cpu_count()} processors")
        show_pieces(Path(place))
        print(f"\n{'':28}{'per s':>8}{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8}{'faults':>8}{'custodian':>10}{'load':>7}")
        if arguments.database is None:
            measure(house, 1, arguments.seconds, cadence=True)
            print("PostgreSQL: left out, for no --database was named")
        else:
            compare(house, arguments.custodians, arguments.seconds)


if __name__ == "__main__":
    main()
