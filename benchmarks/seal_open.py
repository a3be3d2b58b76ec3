"""How fast a model is sealed and opened, as ratios to copying and reading the same bytes, and beside what others do.

    python benchmarks/seal_open.py --mib 512 --rounds 5 --folder /var/tmp
    python benchmarks/seal_open.py --peers

Every round has every row once, in an order that chance draws anew; the first round only warms up. A ratio is taken
within its round: 0.50x is half the speed. ``wall`` is the clock, ``cpu`` the time of all processors. What goes to a
disk ends in fsync(2), copies and peers too; what comes from a disk was dropped from the kernel's cache before. ``cp``
is the program. "Warm memory" is memory that was there before: the file is read, from the kernel's cache, into it. The
folder should be on the disk that counts.

``--peers`` installs other ways to keep a model encrypted, each in an environment of its own below ``--cache``. They
open the same bytes from the same folder into memory, by their own usual means: tensors, arrays, memory files, a
tmpfs. A ratio below 1 means that ours is faster. Peers use as many processors as they like.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bulk.hugepages import huge_memory
from bulk.model import MIB, Model
from figures.goals import at_least
from figures.rounds import Row, run, show
from peers.environments import PACKAGES, package_rows
from peers.programs import program_rows

from cloister.sealed.leaves import LeafHash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TMPFS = Path("/dev/shm")  # noqa: S108 - an ordinary tmpfs is what is wanted


def disk_rows(model: Model) -> Iterator[Row]:
    """Yield the rows to and from a disk."""
    clean = {"before": model.clean_disk, "after": model.clean_disk}
    yield Row(name="cp to disk", work=model.copy_to_disk, **clean)
    yield Row(name="seal, one processor", work=model.seal_alone, versus="cp to disk", goal=at_least(0.6), **clean)
    yield Row(name="seal", work=model.seal, versus="cp to disk", goal=at_least(0.9), **clean)
    yield Row(name="read from disk", work=model.read_disk, before=model.forget)
    yield Row(
        name="open from disk", work=model.open, before=model.forget, after=model.close, versus="read from disk",
        goal=at_least(0.95),
    )  # fmt: skip


def memory_rows(model: Model, huge: tuple[str, Callable[[], object]] | None) -> Iterator[Row]:
    """Yield the rows within memory."""
    yield Row(name="read into warm memory", work=model.copy_warm)
    yield Row(
        name="open, warm memory, one processor", work=model.open_warm, versus="read into warm memory",
        goal=at_least(0.33),
    )  # fmt: skip
    yield Row(
        name="the same, leaf hashes left out", work=partial(model.open_warm, leaves=False),
        versus="read into warm memory",
    )  # fmt: skip
    yield Row(name="cp to tmpfs", work=model.copy_to_memory, after=model.clean_memory)
    yield Row(name="open", work=model.open, after=model.close, versus="cp to tmpfs")
    if huge is None:
        print("open into huge pages: not available here (no memory files of huge pages, no tmpfs may be mounted)")
    else:
        name, within = huge
        yield Row(
            name=f"open, {name}", work=partial(opened_within, model, within), after=model.close,
            versus="cp to tmpfs", goal=at_least(1.0),
        )  # fmt: skip
    yield Row(name="wipe and close", before=model.open, work=model.close, versus="cp to tmpfs")
    yield Row(name="read 1 MiB at random", work=model.read_at_random, versus="cp to tmpfs")


def opened_within(model: Model, within: Callable[[], object]) -> int:
    """Open while ``within`` holds."""
    with within():  # type: ignore[attr-defined]
        return model.open()


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=512, help="size of the model in MiB (512)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (5)")
    parser.add_argument(
        "--leaf-hash", type=LeafHash, default=LeafHash.BLAKE3, help="blake3 (as sealed by default) or sha256"
    )
    parser.add_argument("--folder", type=Path, default=None, help="where to work (the system's temporary folder)")
    parser.add_argument("--peers", nargs="?", const=",".join(PACKAGES), default="", help="measure others too (all)")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cloister-benchmarks"
    parser.add_argument("--cache", type=Path, default=cache, help="where peers are installed (%(default)s)")
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=asked.folder, prefix="seal-open-")))
        in_memory = TMPFS if TMPFS.is_dir() and os.access(TMPFS, os.W_OK) else None
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=in_memory, prefix="seal-open-")))
        huge = stack.enter_context(huge_memory(folder, 2 * asked.mib * MIB))
        model = Model(folder, memory, asked.mib * MIB, asked.leaf_hash)
        rows = [*disk_rows(model), *memory_rows(model, huge)]
        if asked.peers:
            rows += program_rows(model.plain, folder, memory)
            rows += package_rows(asked.peers.split(","), asked.cache, model.plain, folder, stack)
        before, _, _ = os.getloadavg()
        run(rows, asked.rounds)
    print(f"{asked.mib} MiB, medians of {asked.rounds} rounds, {len(os.sched_getaffinity(0))} processors")
    print(f"load average before {before:.1f}, after {os.getloadavg()[0]:.1f}: others' work lowers every figure here")
    show(rows)


if __name__ == "__main__":
    main()
