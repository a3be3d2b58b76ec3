"""What encryption, attestation and metering cost, and how that stands to servers that do none of it.

    python benchmarks/serving.py [--only rows,tls,ohttp,batching,idle,tensor,tail] [--peers] [--json FILE]

Rows are ours in plain (a route that only this benchmark has, through the same reader, engine and writer, on the same
web server), ours encrypted, attested, metered and with receipts, and with ``--peers`` servers of others in plaintext.
Every round has every row once with every model and concurrency, in an order drawn anew; the first only warms up. Load
comes from wrk, a process of its own, on the same machine; sealed requests are made before the clock starts, each with
a key of its own. Every row proves first that it answers what the model answers. How to read the tables is said in
``docs/serving.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from race import goals, ours, parts, peers, table
from race.load import demand_wrk
from race.nets import NETS, echo
from race.reference import reference
from race.rounds import Rounds

from cloister.enclave.config import Batching, Tls

if TYPE_CHECKING:
    from race.goals import Judged
    from race.nets import Net
    from race.server import Row

PARTS = ("rows", "tls", "ohttp", "batching", "idle", "tensor", "tail")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cloister-benchmarks"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="serving, encrypted and metered, against plain and against others")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, of {','.join(PARTS)} (all)")
    every = ",".join(peers.PEERS)
    parser.add_argument("--peers", nargs="?", const=every, default="", help=f"others too: all, or some of {every}")
    parser.add_argument("--models", default=",".join(NETS), help=f"of {','.join(NETS)} (all)")
    parser.add_argument("--concurrency", default="1,8,64", help="connections at once (1,8,64)")
    parser.add_argument("--seconds", type=int, default=1, help="seconds of each row in each round that count (1)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count, after one to warm up (3)")
    parser.add_argument("--workers", type=int, default=1, help="inferences that run at once, ours and theirs (1)")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"folder for what is installed ({CACHE})")
    parser.add_argument("--json", type=Path, help="file for every figure of every round")
    found, _ = parser.parse_known_args()
    return found


def main() -> None:
    """Start the servers, measure, print tables and goals."""
    asked = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended too
    demand_wrk()
    chosen = frozenset(asked.only.split(","))
    nets = [NETS[name]() for name in asked.models.split(",")]
    with tempfile.TemporaryDirectory(prefix="serving-") as place, contextlib.ExitStack() as stack:
        folder = Path(place)
        rows = our_rows([*nets, echo()], chosen, {"engine_workers": asked.workers}, stack)
        told: dict[str, Any] = {}
        judged: list[Judged] = []
        if "rows" in chosen:
            others = peers.start_all([name for name in asked.peers.split(",") if name], nets, asked.cache,
                                     asked.workers, stack)  # fmt: skip
            rounds = measure([*rows, *others], nets, asked, folder)
            judged += goals.of_rounds(rounds)
            told["cells"] = table.to_json(rounds)
        for part in (part for part in ("idle", "tensor", "tail") if part in chosen):
            found, figures = parts.measure(part, rows, nets, folder, rounds=asked.rounds, seconds=asked.seconds)
            judged += found
            told[part] = figures
        goals.show(judged)
        if asked.json is not None:
            told["goals"] = [asdict(one) for one in judged]
            asked.json.write_text(json.dumps(told, indent=1))


def our_rows(
    nets: list[Net], chosen: frozenset[str], settings: dict[str, Any], stack: contextlib.ExitStack
) -> list[Row]:
    """Start our servers; return their rows."""
    rows = ours.rows(stack.enter_context(ours.enclave("ours", nets, settings)), chosen)
    if "tls" in chosen:
        guarded = ours.enclave("ours with TLS", nets, {**settings, "tls": Tls.GENERATED}, scheme="https")
        rows += ours.tls_rows(stack.enter_context(guarded), nets)
    if "batching" in chosen and any(net.name == "mlp" for net in nets):
        together = {**settings, "tls": Tls.GENERATED, "batching": {"mlp": Batching()}}
        rows += ours.batched_rows(stack.enter_context(ours.enclave("ours batching", nets, together, scheme="https")))
    return rows


def measure(rows: list[Row], nets: list[Net], asked: argparse.Namespace, folder: Path) -> Rounds:
    """Measure all rows in interleaved rounds and print the table."""
    rounds = Rounds(rows, nets, [int(word) for word in asked.concurrency.split(",")], folder)
    rounds.prove({net.name: reference(net) for net in nets})
    others = rounds.run(asked.rounds, asked.seconds)
    print(
        f"medians of {asked.rounds} interleaved rounds of {asked.seconds} s; {os.cpu_count()} processors, of which"
        f" strangers took {others:.0%}; {asked.workers} inference(s) run at once"
    )
    table.show(rounds)
    table.show_consumers(rounds)
    return rounds


if __name__ == "__main__":
    main()
