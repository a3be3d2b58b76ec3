"""A whole log as a folder in the layout of c2sp.org/tlog-tiles, written piece by piece and read again.

    folder/  checkpoint  log.vkey  tile/0/000  tile/1/000.p/3  tile/entries/000 ...

Files that are there are kept if they are what the log says; each is written whole or not at all, the
checkpoint last. Not done here: fetching, signatures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.cli.log_options import read_capped
from cloister.cli.terminal import write_file
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.lending.audit import MAX_ENTRY_BYTES, line_leaf
from cloister.lending.merkle import MerkleTree
from cloister.lending.tlog.note import MAX_NOTE_BYTES
from cloister.lending.tlog.tiles import ENTRIES, TILE_WIDTH, Tile, dump_bundle, parse_bundle, tile_hashes, tiles_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = [
    "CHECKPOINT",
    "VKEY",
    "drop_outgrown",
    "entries_in",
    "read_checkpoint_note",
    "read_log",
    "write_entries",
    "write_tiles",
]

CHECKPOINT, VKEY = "checkpoint", "log.vkey"
_MAX_BUNDLE_BYTES = TILE_WIDTH * (MAX_ENTRY_BYTES + 2)
_MAX_TILE_BYTES = TILE_WIDTH * 32


def _bundles(size: int) -> Iterator[Tile]:
    return (tile for tile in tiles_of(size) if tile.level == ENTRIES)


def write_entries(
    folder: Path, size: int, fetch: Callable[[Tile], bytes], report: Callable[[int, int], None]
) -> tuple[MerkleTree, list[Path]]:
    """Write every bundle that is not there yet; return the tree over all entries, and which files are new.

    Raises ``Malformed`` for a bundle that is none, here or there; ``Unavailable`` where nothing can be written.
    """
    tree = MerkleTree()
    fresh: list[Path] = []
    for tile in _bundles(size):
        path = folder / tile.path()
        if path.exists():
            entries = _parse(read_capped(path, cap=_MAX_BUNDLE_BYTES), tile, str(path))
        else:
            entries = _parse(fetch(tile), tile, tile.path())
            _put(path, dump_bundle(entries))
            fresh.append(path)
        for entry in entries:
            tree.append_hash(line_leaf(entry))
        report(tree.size, size)
    return tree, fresh


def write_tiles(folder: Path, tree: MerkleTree) -> None:
    """Write every tile of hashes that is not there yet."""
    for tile in tiles_of(tree.size):
        path = folder / tile.path()
        if tile.level != ENTRIES and not path.exists():
            _put(path, tile_hashes(tree, tile))


def drop_outgrown(folder: Path, size: int) -> None:
    """Remove partial tiles and bundles of smaller logs. To be done last: the checkpoint before needs them."""
    kept = {folder / tile.path() for tile in tiles_of(size)}
    for partial in folder.glob("tile/**/*.p"):
        for path in partial.iterdir():
            if path not in kept:
                path.unlink()
        if not any(partial.iterdir()):
            partial.rmdir()


def _put(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        msg = f"{path.parent}: {exc.strerror}"
        raise Unavailable(msg) from exc
    write_file(path, data, force=True)


def _parse(data: bytes, tile: Tile, what: str) -> tuple[bytes, ...]:
    try:
        return parse_bundle(data, width=tile.width, cap=MAX_ENTRY_BYTES)
    except Malformed as exc:
        msg = f"{what}: {exc.message}"
        raise Malformed(msg) from exc


def read_log(folder: Path, size: int) -> list[bytes]:
    """Return the entries of a folder that says it is a log of ``size``, once every tile is what they hash to.

    Raises ``UsageError`` for a file that is not there, ``Malformed``, ``Rejected`` (``audit_changed``) naming the
    first tile that holds other hashes.
    """
    entries: list[bytes] = []
    for tile in _bundles(size):
        entries += _parse(read_capped(folder / tile.path(), cap=_MAX_BUNDLE_BYTES), tile, tile.path())
    tree = MerkleTree(line_leaf(entry) for entry in entries)
    for tile in tiles_of(size):
        same = tile.level == ENTRIES or read_capped(folder / tile.path(), cap=_MAX_TILE_BYTES) == tile_hashes(
            tree, tile
        )
        if not same:
            raise Rejected.because("audit_changed", tile.path(), got="other hashes", want="those of the entries")
    return entries


def entries_in(folder: Path, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield what can be read of a folder, each line with its index; a bundle that cannot be is left out."""
    for tile in _bundles(size):
        try:
            found = _parse(read_capped(folder / tile.path(), cap=_MAX_BUNDLE_BYTES), tile, tile.path())
        except (UsageError, Malformed):
            continue
        yield from enumerate(found, tile.start)


def read_checkpoint_note(folder: Path) -> bytes:
    """Return the checkpoint of a folder. Raises ``UsageError``."""
    return read_capped(folder / CHECKPOINT, cap=MAX_NOTE_BYTES)
