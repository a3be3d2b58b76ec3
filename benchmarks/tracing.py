"""Print how fast models are marked and traced, as ratios to reading the same bytes, and how much memory it takes.

    python benchmarks/tracing.py [MEBIBYTES] [CANDIDATES]

Rounds are interleaved, medians printed. Marking is what sealing a variant adds to sealing; tracing is the search among
all candidates. Memory is the peak of the process beyond what it had before, with the model on disk.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cloister.sealed.directory import PlainTree
from cloister.sealed.formats.places import plain_files
from cloister.sealed.tracing.detect import trace
from cloister.sealed.tracing.floats import float_tensors, sketch
from cloister.sealed.tracing.mark import KEY_BYTES
from cloister.sealed.tracing.marked import MarkedSource, parameter_drift
from cloister.sealed.tracing.record import MarkedTensor, Variant

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.sealed.tracing.floats import FloatTensor

ROUNDS = 3
BITS = 10
PIECE = (1 << 20) - 32  # bytes of plaintext of a segment
TENSOR = 4 << 20  # elements


def write_model(place: Path, mebibytes: int) -> None:
    """Write float32 tensors of 16 MiB each."""
    count = max(1, mebibytes // 16)
    each = TENSOR * 4
    header = {
        f"layer.{n}": {"data_offsets": [n * each, (n + 1) * each], "dtype": "F32", "shape": [TENSOR]}
        for n in range(count)
    }
    text = json.dumps(header).encode()
    rng = np.random.default_rng(1)
    with place.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _ in range(count):
            rng.standard_normal(TENSOR, dtype=np.float32).tofile(file)


def read_all(tree: PlainTree, source: PlainTree | MarkedSource) -> None:
    """Read the model as sealing does, segment by segment."""
    entry, out = tree.files[0], bytearray(PIECE)
    for at in range(0, entry.size, PIECE):
        source.read_into(entry, at, memoryview(out)[: min(PIECE, entry.size - at)])


def candidates(tensors: tuple[FloatTensor, ...], count: int) -> list[tuple[Variant, bytes]]:
    """Return records of variants of this model."""
    marked = tuple(
        MarkedTensor(path=item.file.path, name=item.name, kind=item.kind, count=item.count, sketch=sketch(item))
        for item in tensors
    )
    now = datetime(2026, 3, 1, tzinfo=UTC)
    return [
        (
            Variant(digest=f"{n:064x}", model="m", holder=f"b{n}", created=now, bits=BITS, tensors=marked),
            bytes([n]) * KEY_BYTES,
        )
        for n in range(count)
    ]


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that ``work`` takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    """Measure and print."""
    mebibytes, number = (int(word) for word in (*sys.argv[1:], *("256", "50")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder) / "model.safetensors", mebibytes)
        tree = PlainTree(Path(folder))
        tensors = float_tensors(plain_files(tree))
        known = candidates(tensors, number)
        marked = MarkedSource(tree, tensors, known[0][1], BITS)
        works: dict[str, Callable[[], object]] = {
            "read": lambda: read_all(tree, tree),
            "read through the mark": lambda: read_all(tree, marked),
            "drift of parameters": lambda: parameter_drift(tensors, known[0][1], BITS),
            "trace, 1 candidate": lambda: trace(tensors, known[:1]),
            f"trace, {number} candidates": lambda: trace(tensors, known),
            f"trace with the original, {number}": lambda: trace(tensors, known, tensors),
        }
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        times: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(ROUNDS):
            for name, work in works.items():
                times[name].append(timed(work))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    base = statistics.median(times["read"])
    print(f"{mebibytes} MiB of float32 in {len(tensors)} tensors, {number} candidates, medians of {ROUNDS} rounds")
    for name, found in times.items():
        middle = statistics.median(found)
        print(f"{name:36s} {middle:8.3f} s  {mebibytes / middle:8.0f} MiB/s  {base / middle:6.3f}x of reading")
    print(f"peak memory beyond the start: {peak / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
