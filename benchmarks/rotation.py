"""What a rotation costs: milliseconds for one model and for many, and the bytes written meanwhile.

    python benchmarks/rotation.py --gib 4 --models 1,100 --rounds 15

The model is sealed for real; its plaintext is a sparse file, so that it takes its size once on the disk. Beside each
rotation stands what a flush of the same disk takes in the same round: a rotation flushes the database and the
checkpoint, and on a disk that is all of it. The same is then done on a file system in memory. Medians are shown.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from figures.goals import at_most
from fleet.sealing import CHEAP, seal

from cloister.attest.verifier import Verifier
from cloister.custodian.service import models, rotation
from cloister.custodian.setup import init_custodian, open_custodian, open_vault
from cloister.custodian.tokens import SYSTEM
from cloister.custodian.vaults.encrypted_file import Passphrase
from cloister.wire import Fields

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloister.custodian.service import CustodianService
    from cloister.custodian.vaults.encrypted_file import EncryptedFileVault
    from cloister.wire import Json

UNLOCK = Passphrase(b"benchmark")
GOAL, BULK_GOAL = at_most(10, " ms"), at_most(0, " bytes")
MILLISECONDS = 1000
MEMORY = Path("/dev/shm")  # noqa: S108 - a file system in memory is what is wanted


@dataclass(frozen=True)
class Measured:
    """Medians in milliseconds, and what all rounds wrote where."""

    rotation_ms: float
    cpu_ms: float
    flush_ms: float
    written: int
    bulk_bytes: int


def sparse(folder: Path, vault: EncryptedFileVault, name: str, size: int) -> dict[str, Json]:
    """Seal a sparse file of ``size`` bytes and return its publication."""
    source = folder / f"{name}.bin"
    with source.open("wb") as file:
        file.truncate(size)
    return seal(vault, source, folder / name, name=name)[1]


def custodian(home: Path, publications: Iterable[dict[str, Json]]) -> CustodianService:
    """Open the custodian in ``home`` with these models."""
    service = open_custodian(home, UNLOCK, make_verifier=lambda _: Verifier([]))
    for publication in publications:
        body = Fields(publication, what="publication")
        service.run(lambda transaction, body=body: models.publish(transaction, SYSTEM, body))  # type: ignore[misc]
    return service


def flush(folder: Path) -> float:
    """Return the milliseconds that writing and flushing one page takes there."""
    place = folder / "flush"
    with place.open("wb") as file:
        started = time.perf_counter()
        file.write(os.urandom(4096))
        file.flush()
        os.fsync(file.fileno())
        return (time.perf_counter() - started) * MILLISECONDS


def bulk(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return what tells whether any sealed file was touched."""
    found = {}
    for place in sorted(folder.rglob("blobs/*")):
        status = place.stat()
        found[str(place)] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def written() -> int:
    """Return the bytes this process has handed to the kernel to write."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("wchar")).split()[1])


def measure(service: CustodianService, folder: Path, rounds: int) -> Measured:
    """Rotate ``rounds`` times, a flush before each."""
    rotations, processor, flushes, bytes_written, before = [], [], [], 0, bulk(folder)
    for _ in range(rounds):
        flushes.append(flush(service.home))
        at, cpu, started = written(), time.process_time(), time.perf_counter()
        service.run(lambda transaction: rotation.rotate(transaction, SYSTEM, Fields({}, what="rotation")))
        rotations.append((time.perf_counter() - started) * MILLISECONDS)
        processor.append((time.process_time() - cpu) * MILLISECONDS)
        bytes_written += written() - at
    after = bulk(folder)
    return Measured(
        rotation_ms=statistics.median(rotations),
        cpu_ms=statistics.median(processor),
        flush_ms=statistics.median(flushes),
        written=bytes_written // rounds,
        bulk_bytes=sum(was[1] for name, was in before.items() if after.get(name) != was),
    )


def show(where: str, count: int, found: Measured) -> None:
    """Print one row."""
    print(
        f"{where:8} {count:5} models  rotation {found.rotation_ms:7.2f} ms ({GOAL.verdict(found.rotation_ms)}); "
        f"of it {found.cpu_ms:.2f} ms of a processor; "
        f"one flush {found.flush_ms:5.2f} ms; {found.written / 1024:.0f} KiB written a rotation, "
        f"in files of bulk {found.bulk_bytes} bytes ({BULK_GOAL.verdict(found.bulk_bytes)})"
    )


def main() -> None:
    """Seal, publish and rotate, on the disk and in memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=4.0, help="size of the large model (4)")
    parser.add_argument("--models", default="1,100", help="how many models, with commas")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cloister-rotation-") as text:
        folder = Path(text)
        init_custodian(folder / "home", UNLOCK, kdf=CHEAP)
        vault = open_vault(folder / "home", UNLOCK)
        size = int(options.gib * (1 << 30))
        publications = [sparse(folder, vault, "large", size)]
        counts = [int(word) for word in options.models.split(",")]
        publications += [sparse(folder, vault, f"small{number}", 4096) for number in range(1, max(counts))]
        for count in counts:
            for where, base in (("disk", folder), ("memory", MEMORY)):
                with tempfile.TemporaryDirectory(prefix="cloister-rotation-", dir=base) as place:
                    home = Path(place) / "home"
                    shutil.copytree(folder / "home", home)
                    with closing(custodian(home, publications[:count])) as service:
                        show(where, count, measure(service, folder, options.rounds))


if __name__ == "__main__":
    main()
