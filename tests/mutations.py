"""Hostile bytes for parsers: one honest input, many damaged ones, repeatable by seed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MUTATIONS = 10_000
"""How many damaged inputs every parser must survive."""


def mutated(data: bytes, *, count: int = MUTATIONS, seed: int = 1) -> Iterator[bytes]:
    """Yield ``count`` damaged copies of ``data``: flips, cuts, insertions, repeats, extreme lengths."""
    rng = random.Random(seed)
    for _ in range(count):
        copy = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
            _damage(copy, rng)
        yield bytes(copy)


def _damage(copy: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(copy) + 1)
    match rng.randrange(7):
        case 0 if at < len(copy):
            copy[at] ^= 1 << rng.randrange(8)
        case 1:
            del copy[at:]
        case 2:
            copy[at:at] = rng.randbytes(rng.choice((1, 2, 4, 32)))
        case 3:
            del copy[at : at + rng.choice((1, 2, 4, 32))]
        case 4:
            end = at + rng.choice((1, 2, 4, 8))
            copy[at:end] = rng.choice((b"\x00", b"\xff", b"\x7f")) * (end - at)
        case 5:
            copy[at:at] = copy[at : at + rng.choice((1, 8, 64))]
        case _ if at < len(copy):
            copy[at] = rng.randrange(256)
