"""What the extraction guard adds to an inference, as a ratio to the same inference without it, and what it remembers.

    python benchmarks/guard.py --rounds 10

The enclave of ``benchmarks/engine.py``, with nothing watched, with the usual (near, regular), and with everything.
Requests go to the inner API, so that neither encryption nor the web server makes the guard look small. Every request is
another row.
"""

from __future__ import annotations

import argparse
import asyncio
import os

import numpy as np
from engine import Kind, run

from cloister.enclave.guard.sketch import Sketch
from cloister.enclave.guard.watching import MAX_SKETCHES
from cloister.lending.watch import WatchKind

GOAL = 1.20  # of the smallest inference that there is
CASES = [("small", 1), ("wide", 1), ("photo", 1)]
USUAL = {"watches": [{"above": 100, "kind": "near"}, {"above": 1, "kind": "regular"}]}
EVERYTHING = {"watches": [{"above": 1_000_000, "kind": kind.value} for kind in WatchKind]}


async def measure(rounds: int) -> None:
    """Run all kinds in turn and print a table."""
    kinds = [Kind(name="without"), Kind(name="usual", clauses=USUAL), Kind(name="all", clauses=EVERYTHING)]
    await run(kinds, CASES, rounds)
    for name, at_once in CASES:
        medians = [kind.median(name, at_once) for kind in kinds]
        ratios = [refs / medians[0][1] for _, refs in medians]
        shown = ", ".join(
            f"{kind.name} {took:.0f} us {ratio:.2f}x"
            for kind, (took, _), ratio in zip(kinds, medians, ratios, strict=True)
        )
        print(f"{name:8}{shown}")
        if name == "small":
            print(f"        goal {GOAL:.2f}x for the usual: {'met' if ratios[1] <= GOAL else 'missed'}")
    one = Sketch(np.random.default_rng(0)).nbytes
    print(f"memory: {one} bytes of a consumer and model, at most {MAX_SKETCHES * one / 2**20:.1f} MiB in all")
    print(f"processors {os.cpu_count()}, load {os.getloadavg()[0]:.1f}")


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description="what the extraction guard adds to an inference")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of each kind (10)")
    arguments, _ = parser.parse_known_args()
    asyncio.run(measure(arguments.rounds))


if __name__ == "__main__":
    main()
