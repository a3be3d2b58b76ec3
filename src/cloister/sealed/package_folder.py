"""A package as it is written into a folder: part by part, and moved to its name when it is whole.

Not done here: what goes on after an interruption (``unfinished_folder``).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Self

from cloister.errors import UsageError
from cloister.sealed.descriptor import CREATE, READ, WRITE, Descriptor, pour, sync
from cloister.sealed.directory import DirectorySource, cannot_write

__all__ = ["DirectorySink", "PackageFolder", "demand_free", "move_durably", "sync_tree"]


def demand_free(out: Path) -> None:
    """Refuse a place that is taken, or that has no folder. Raises ``UsageError``, ``Unavailable``."""
    try:
        there = out.exists() or out.is_symlink()
    except OSError as exc:  # a name too long, or a file among the folders
        raise cannot_write(out) from exc
    if there:
        msg = f"{out}: is there already"
        raise UsageError(msg, hint="choose another place, or remove it first")
    if not out.parent.is_dir():
        msg = f"{out.parent}: no such folder"
        raise UsageError(msg)


class PackageFolder:
    """The parts of a package that is on its way to ``out``, in a folder nobody looks into yet."""

    def __init__(self, root: Path, out: Path) -> None:
        """Write into ``root``; errors speak of ``out``."""
        self.root = root
        self._shown = out
        self._adopted: dict[Path, tuple[int, int, int, int]] = {}

    def create(self, name: str, size: int) -> None:
        """Make part ``name`` with ``size`` bytes, to be written at any offset. Raises ``Unavailable``."""
        place = self.root / name
        try:
            place.parent.mkdir(exist_ok=True)
            with Descriptor(place, CREATE) as fd:
                os.ftruncate(fd, size)
        except OSError as exc:
            raise cannot_write(self._shown) from exc

    def write(self, name: str, offset: int, data: memoryview) -> None:
        """Write ``data`` into part ``name``. Raises ``Unavailable``, for example when the disk is full."""
        try:
            with Descriptor(self.root / name, WRITE) as fd:
                pour(fd, offset, data)
        except OSError as exc:
            raise cannot_write(self._shown) from exc

    def adopt(self, name: str, place: Path) -> None:
        """Take the file at ``place`` for part ``name``: itself where the file system can, else a copy.

        Raises ``Unavailable``. It is not opened for writing any more: an older package may be the same file. What is
        to be proven of it is proven by ``taken``, and holds unless ``demand_unchanged`` raises.
        """
        target = self.root / name
        try:
            target.parent.mkdir(exist_ok=True)
            with Descriptor(place, READ) as fd:
                try:
                    os.link(place, target, follow_symlinks=False)
                except OSError:  # another file system, or one without hard links
                    with Descriptor(target, CREATE) as out:
                        _copy(fd, out)
            self._adopted[target] = _stamp(target)
        except OSError as exc:
            raise cannot_write(self._shown) from exc

    @property
    def taken(self) -> DirectorySource:
        """Return what reads the parts that lie here so far."""
        return DirectorySource(self.root)

    def drop(self, name: str) -> None:
        """Take an adopted part out again; the file that it was stays where it is. Raises ``Unavailable``."""
        try:
            del self._adopted[self.root / name]
            (self.root / name).unlink()
        except OSError as exc:
            raise cannot_write(self._shown) from exc

    def demand_unchanged(self) -> None:
        """Refuse adopted parts that were written to, as the older package's, since then. Raises ``UsageError``."""
        try:
            changed = [place for place, stamp in self._adopted.items() if _stamp(place) != stamp]
        except OSError as exc:
            raise cannot_write(self._shown) from exc
        if changed:
            msg = f"{self._shown}: {len(changed)} parts of the older version changed while they were taken over"
            raise UsageError(msg, hint="make sure that nobody writes to it, and seal again")


def _stamp(place: Path) -> tuple[int, int, int, int]:
    status = place.lstat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _copy(source: int, target: int) -> None:
    """Copy a whole file, by the kernel's own means."""
    offset, size = 0, os.fstat(source).st_size
    while offset < size:
        done = os.sendfile(target, source, offset, size - offset)
        if done == 0:
            break  # cut meanwhile: its size is held against the manifest before it is opened
        offset += done


class DirectorySink:
    """Writes a package into a folder beside its place, and moves it there when it is whole.

    A context manager: what was not committed is removed.
    """

    def __init__(self, out: Path) -> None:
        """Begin. Raises ``UsageError`` when ``out`` exists, ``Unavailable`` when its folder cannot be written."""
        self._out = out
        demand_free(out)
        try:
            self._temporary = Path(tempfile.mkdtemp(prefix=f".{out.name[:64]}.sealing-", dir=out.parent))
        except OSError as exc:
            raise cannot_write(out) from exc
        self.parts = PackageFolder(self._temporary, out)

    def commit(self) -> None:
        """Make everything durable and put the package in its place. Raises ``Unavailable``, ``UsageError``."""
        self.parts.demand_unchanged()
        try:
            sync_tree(self._temporary)
            move_durably(self._temporary, self._out)
        except OSError as exc:
            raise cannot_write(self._out) from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._temporary, ignore_errors=True)


def sync_tree(folder: Path) -> None:
    """Make a package's folder durable with all that is in it, readable for everybody. Raises ``OSError``."""
    for place in sorted(folder.rglob("*"), reverse=True):
        sync(place)
    folder.chmod(0o755)
    sync(folder)


def move_durably(folder: Path, out: Path) -> None:
    """Give a package its name, or take that back: who is told of a failure finds nothing there. Raises ``OSError``."""
    try:
        folder.rename(out)
        sync(out.parent)
    except OSError:
        if not folder.exists():
            out.rename(folder)
        raise
