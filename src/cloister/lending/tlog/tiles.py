"""The log as files that never change (c2sp.org/tlog-tiles): tiles of 256 hashes, bundles of 256 entries.

A tile at level L holds hashes of full subtrees of 256**L leaves, a bundle the entries themselves. The last of
each level may be narrower; its width is in its name. Not done here: reading or writing files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.errors import Malformed, Rejected
from cloister.lending.merkle import HASH_BYTES
from cloister.lending.tlog.text import MAX_LOG_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloister.lending.merkle import MerkleTree

__all__ = ["ENTRIES", "TILE_HEIGHT", "TILE_WIDTH", "Tile", "dump_bundle", "parse_bundle", "tile_hashes", "tiles_of"]

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT  # hashes of a full tile, entries of a full bundle
ENTRIES = -1
"""The level of a bundle of entries: what hashes of level 0 are over."""

MAX_PATH_CHARS = 64
_MAX_LEVEL = 63
_MAX_ENTRY_BYTES = 0xFFFF
_PREFIX_BYTES = 2
_PATH = re.compile(r"tile/(entries|[0-9]|[1-5][0-9]|6[0-3])/((?:x[0-9]{3}/)*)([0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A place in the layout. ``width`` 256 is a full tile; ``level`` ``ENTRIES`` is a bundle."""

    level: int
    number: int
    width: int = TILE_WIDTH

    @property
    def start(self) -> int:
        """Number of the first hash at this level, or index of the first entry."""
        return self.number * TILE_WIDTH

    def path(self) -> str:
        """Return the path below the log's prefix: ``tile/0/x001/234.p/5``."""
        digits = str(self.number)
        digits = digits.zfill((len(digits) + 2) // 3 * 3)
        groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        number = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
        level = "entries" if self.level == ENTRIES else str(self.level)
        return f"tile/{level}/{number}" + ("" if self.width == TILE_WIDTH else f".p/{self.width}")

    @classmethod
    def parse(cls, path: str) -> Self:
        """Parse a path in its one spelling. Raises ``Malformed``."""
        found = _PATH.fullmatch(path) if len(path) <= MAX_PATH_CHARS else None
        if found is None:
            msg = "tile: want tile/LEVEL/NUMBER or tile/LEVEL/NUMBER.p/WIDTH"
            raise Malformed(msg)
        level, groups, last, width = found.groups()
        tile = cls(
            level=ENTRIES if level == "entries" else int(level),
            number=int(groups.replace("x", "").replace("/", "") + last),
            width=TILE_WIDTH if width is None else int(width),
        )
        if tile.path() != path or tile.width > TILE_WIDTH or tile.start > MAX_LOG_SIZE:
            msg = "tile: a number with a second spelling, or out of range"
            raise Malformed(msg)
        return tile


def tiles_of(size: int) -> Iterator[Tile]:
    """Yield every tile of hashes and every bundle that a log of ``size`` entries has, bundles first."""
    for level in (ENTRIES, *range(_MAX_LEVEL + 1)):
        count = size >> (TILE_HEIGHT * max(level, 0))
        if not count:
            return
        full, rest = divmod(count, TILE_WIDTH)
        yield from (Tile(level=level, number=number) for number in range(full))
        if rest:
            yield Tile(level=level, number=full, width=rest)


def tile_hashes(tree: MerkleTree, tile: Tile) -> bytes:
    """Return the hashes of a tile of ``tree``. Raises ``Rejected`` (``not_found``) for one that it does not have."""
    height = TILE_HEIGHT * tile.level
    if tile.level < 0 or tile.start + tile.width > tree.size >> height:
        raise Rejected.because("not_found", tile.path())
    return b"".join(tree.subtrees(height, tile.start, tile.width))


def dump_bundle(entries: Sequence[bytes]) -> bytes:
    """Return entries as a bundle: each behind its length, two bytes, big-endian."""
    return b"".join(len(entry).to_bytes(_PREFIX_BYTES, "big") + entry for entry in entries)


def parse_bundle(data: bytes, *, width: int, cap: int) -> tuple[bytes, ...]:
    """Return the ``width`` entries of a bundle, each at most ``cap`` bytes. Raises ``Malformed``."""
    entries: list[bytes] = []
    at = 0
    while at < len(data) and len(entries) < width:
        size = int.from_bytes(data[at : at + _PREFIX_BYTES], "big")
        end = at + _PREFIX_BYTES + size
        if end > len(data) or at + _PREFIX_BYTES > len(data) or size > min(cap, _MAX_ENTRY_BYTES):
            msg = f"entry bundle: entry {len(entries)}: {size} bytes, want at most {cap} and no more than there are"
            raise Malformed(msg)
        entries.append(data[at + _PREFIX_BYTES : end])
        at = end
    if at != len(data) or len(entries) != width:
        msg = f"entry bundle: {len(entries)} entries and {len(data) - at} bytes behind them, want {width} and none"
        raise Malformed(msg)
    return tuple(entries)


def parse_tile_hashes(data: bytes, *, width: int) -> tuple[bytes, ...]:
    """Return the hashes of a tile file. Raises ``Malformed``."""
    if len(data) != width * HASH_BYTES:
        msg = f"tile: {len(data)} bytes, want {width * HASH_BYTES}"
        raise Malformed(msg)
    return tuple(data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES))
