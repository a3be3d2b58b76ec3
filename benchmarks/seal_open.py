"""How fast a model is sealed and opened, as a ratio to copying the same bytes in the same run.

    python benchmarks/seal_open.py --mib 256 --rounds 5 --folder /tmp

The rounds are interleaved, so that whatever else the machine does falls on all rows alike; medians
are shown. ``copy to disk`` and ``seal`` both end in fsync(2); ``copy to memory`` fills an ordinary memfd. A
ratio of 0.50x means half the speed of copying. Absolute figures belong to the machine, ratios less so.
"""

from __future__ import annotations

import argparse
import mmap
import os
import shutil
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.crypto.sign import SigningKey
from cloister.sealed.directory import DirectorySource, read_package
from cloister.sealed.open import RandomAccess, open_model, verify_manifest
from cloister.sealed.seal import seal_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.sealed.open import VerifiedManifest

MIB = 1 << 20
ROWS = (
    ("copy to disk", "copy to disk"),
    ("seal", "copy to disk"),
    ("copy to memory", "copy to memory"),
    ("open", "copy to memory"),
    ("wipe and close", "copy to memory"),
    ("read 1 MiB at random", "copy to memory"),
)


class Bench:
    """One model in one folder, and the ways to move it."""

    def __init__(self, folder: Path, size: int) -> None:
        """Write ``size`` random bytes, and seal them once."""
        self.folder, self.size, self.target = folder, size, -1
        self.dek, self.signer = os.urandom(32), SigningKey.generate()
        self.source = folder / "model.bin"
        with self.source.open("wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))
        self.buffer = memoryview(mmap.mmap(-1, MIB))
        self._seal(folder / "sealed")
        self.package = DirectorySource(folder / "sealed")
        parts = read_package(folder / "sealed")
        self.manifest: VerifiedManifest = verify_manifest(
            parts.manifest_bytes, parts.signature_bytes, [self.signer.verify_key]
        )

    def _seal(self, out: Path) -> None:
        seal_model(self.source, out, name="bench", dek=self.dek, signer=self.signer, card={}, created=datetime.now(UTC))

    def _copy(self, target: int) -> None:
        fd = os.open(self.source, os.O_RDONLY)
        at = 0
        while got := os.preadv(fd, [self.buffer], at):
            at += os.pwrite(target, self.buffer[:got], at)
        os.close(fd)

    def copy_to_disk(self) -> int:
        """Copy as ``cp`` does, and make it durable."""
        target = os.open(self.folder / "copy", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        self._copy(target)
        os.fsync(target)
        os.close(target)
        return self.size

    def seal(self) -> int:
        """Seal into a new package."""
        self._seal(self.folder / "again")
        return self.size

    def copy_to_memory(self) -> int:
        """Copy into a fresh memfd."""
        self.target = os.memfd_create("copy")
        self._copy(self.target)
        return self.size

    def open(self) -> int:
        """Verify and decrypt everything into sealed memory."""
        self.opened = open_model(self.package, self.manifest, self.dek)
        return self.size

    def close(self) -> int:
        """Zero that memory and give it back."""
        self.opened.close()
        return self.size

    def read(self) -> int:
        """Read one mebibyte at each of up to 64 scattered places."""
        places = range(0, self.size - MIB + 1, max(MIB, self.size // 64))
        with RandomAccess(self.package, self.manifest, self.dek, "model.bin") as access:
            for place in reversed(places):
                access.read(place, MIB)
        return len(places) * MIB

    def clean(self) -> None:
        """Remove what a round left behind; not timed."""
        if self.target >= 0:
            os.close(self.target)
            self.target = -1
        (self.folder / "copy").unlink(missing_ok=True)
        shutil.rmtree(self.folder / "again", ignore_errors=True)


def measure(work: Callable[[], int]) -> tuple[float, float]:
    """Return wall and processor seconds per gigabyte."""
    wall, cpu = time.perf_counter(), time.process_time()
    size = work()
    return (time.perf_counter() - wall) / size * 1e9, (time.process_time() - cpu) / size * 1e9


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="seal and open speed as ratios to a plain copy")
    parser.add_argument("--mib", type=int, default=256, help="size of the model in MiB (256)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (5)")
    parser.add_argument("--folder", type=Path, default=None, help="where to work (the system's temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="seal-open-") as folder:
        bench = Bench(Path(folder), arguments.mib * MIB)
        work = dict(
            zip(
                [name for name, _ in ROWS],
                [bench.copy_to_disk, bench.seal, bench.copy_to_memory, bench.open, bench.close, bench.read],
                strict=True,
            )
        )
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
        for _ in range(arguments.rounds + 1):  # the first round only warms caches
            for name, one in work.items():
                times[name].append(measure(one))
                bench.clean()
    show(times, arguments.mib, arguments.rounds)


def show(times: dict[str, list[tuple[float, float]]], mib: int, rounds: int) -> None:
    """Print medians and ratios to the row each is compared with."""
    wall = {name: statistics.median(value for value, _ in found[1:]) for name, found in times.items()}
    cpu = {name: statistics.median(value for _, value in found[1:]) for name, found in times.items()}
    print(f"{mib} MiB, medians of {rounds} interleaved rounds, {os.cpu_count()} processors")
    print(f"{'':22}{'GB/s':>8}{'wall':>9}{'cpu':>9}   compared with")
    for name, other in ROWS:
        ratios = f"{wall[other] / wall[name]:>8.2f}x{cpu[other] / cpu[name]:>8.2f}x"
        print(f"{name:22}{1 / wall[name]:>8.2f}{ratios}   {other}")


if __name__ == "__main__":
    main()
