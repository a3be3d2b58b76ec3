"""The side of a peer that runs in the peer's own environment: seals and opens when told, and says what it cost.

Standard library alone, for it is imported beside packages that are not ours.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MODEL = Path(sys.argv[1])
SEALED = Path(sys.argv[2])
PIECE = 16 << 20  # bytes of a tensor, where a peer wants tensors


def durable() -> None:
    """Flush what was sealed, as our own sealing does."""
    fd = os.open(SEALED, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _digest(parts: Iterable[object]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)  # type: ignore[arg-type]
    return found.hexdigest()


def serve(seal: Callable[[], object], opened: Callable[[], Iterable[object]]) -> None:
    """Prove once that what opens is what was sealed; then work as often as a line asks for it."""
    seal()
    if _digest(opened()) != _digest([MODEL.read_bytes()]):
        sys.exit("what was opened is not what was sealed")
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "seal":
            SEALED.unlink()
        cpu, wall = time.process_time(), time.perf_counter()
        if line.strip() == "seal":
            seal()
            durable()
            kept = None
        else:
            kept = opened()
        print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]), flush=True)
        del kept
