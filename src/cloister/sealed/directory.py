"""Packages and plain models in folders, as they are read.

``PlainTree`` reads what is to be sealed and refuses links and devices; ``DirectorySource`` reads a package. Files are
opened anew for every part: a few microseconds per mebibyte, and nothing to keep open or to lose.

Not done here: writing a package (``package_folder``), but for its envelope, which a rotation replaces.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.errors import Malformed, Unavailable, UsageError
from cloister.sealed.descriptor import CREATE, READ, Descriptor, fill, pour, sync
from cloister.sealed.envelope import MAX_ENVELOPE_BYTES, Envelope
from cloister.sealed.manifest import (
    ENVELOPE_NAME,
    MANIFEST_NAME,
    MAX_FILE_BYTES,
    MAX_FILES,
    SIGNATURE_NAME,
    blob_name,
    leaves_name,
)
from cloister.sealed.parts import Package, demand_part, read_parts, read_small
from cloister.sealed.paths import ModelPath, parse_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.sealed.manifest import Manifest

__all__ = [
    "DirectorySource",
    "PlainFile",
    "PlainTree",
    "cannot_write",
    "read_envelope",
    "read_package",
    "settle",
    "strangers",
    "write_envelope",
]

_MAX_STRANGERS = 1000  # named; a folder may hold any number
_COPY_HINT = "copy the model with 'cp -rL' to get plain files"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainFile:
    """A file to be sealed, and what told it apart when it was found."""

    path: ModelPath
    size: int
    place: Path
    stamp: tuple[int, int, int, int]
    changed_ns: int
    """When the file system last noted a change, of its times too: no program sets it."""


class PlainTree:
    """One file or one folder to be sealed."""

    def __init__(self, root: Path) -> None:
        """List all files below ``root``, sorted. Raises ``UsageError`` for links, devices and unfit names."""
        try:
            found = sorted(islice(_walk(root), MAX_FILES + 1), key=lambda entry: entry.path)
        except OSError as exc:
            msg = f"{_shown(root)}: cannot be read"
            raise UsageError(msg) from exc
        if not 1 <= len(found) <= MAX_FILES:
            msg = f"{_shown(root)}: {'no' if not found else 'more than allowed'} files, want 1 to {MAX_FILES}"
            raise UsageError(msg)
        self.files = tuple(found)

    def read_into(self, entry: PlainFile, offset: int, out: memoryview) -> None:
        """Fill ``out`` from ``entry``. Raises ``UsageError`` when the file is not the one that was found."""
        try:
            with Descriptor(entry.place, READ) as fd:
                got = fill(fd, offset, out)
                same = _stamp(os.fstat(fd)) == entry.stamp
        except OSError as exc:
            msg = f"{_shown(entry.place)}: cannot be read"
            raise UsageError(msg) from exc
        if got != len(out) or not same:
            msg = f"{_shown(entry.place)}: changed while it was being sealed"
            raise UsageError(msg)


def settle(entry: PlainFile) -> bool:
    """Make a file that is to be sealed durable: a power cut must not take from it what was sealed. Tell whether it is.

    Nothing waits in memory for a file system that is mounted read-only.
    """
    try:
        with Descriptor(entry.place, READ) as fd:
            os.fsync(fd)
    except OSError as exc:
        return exc.errno == errno.EROFS
    return True


def _shown(place: Path) -> str:
    """Return a printable name; file names on Linux need not be text."""
    return os.fsencode(place).decode("utf-8", "replace")


def _walk(root: Path) -> Iterator[PlainFile]:
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode):
        yield _plain_file(root, root.name, status)
        return
    folders = [(root, "")]
    while folders:
        folder, prefix = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append((Path(entry.path), f"{prefix}{entry.name}/"))
                else:
                    yield _plain_file(Path(entry.path), prefix + entry.name, entry.stat(follow_symlinks=False))


def _plain_file(place: Path, logical: str, status: os.stat_result) -> PlainFile:
    if not stat.S_ISREG(status.st_mode):
        kind = "a link" if stat.S_ISLNK(status.st_mode) else "no plain file"
        msg = f"{_shown(place)}: {kind}, and only plain files are sealed"
        raise UsageError(msg, hint=_COPY_HINT)
    if status.st_size > MAX_FILE_BYTES:
        msg = f"{_shown(place)}: {status.st_size} bytes, want at most {MAX_FILE_BYTES}"
        raise UsageError(msg)
    try:
        path = parse_path(logical)
    except Malformed as exc:
        raise UsageError(exc.message, hint="rename the file") from exc
    return PlainFile(path=path, size=status.st_size, place=place, stamp=_stamp(status), changed_ns=status.st_ctime_ns)


def _stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class DirectorySource:
    """The parts of a package in a folder. Links and devices among them are not followed."""

    def __init__(self, root: Path) -> None:
        """Read from ``root``; nothing is opened yet."""
        self._root = root

    def _place(self, name: str) -> Path:
        demand_part(name)
        return self._root / name

    def size(self, name: str) -> int:
        """Return the size of part ``name``. Raises ``Unavailable``."""
        place = self._place(name)
        try:
            with Descriptor(place, READ) as fd:
                return os.fstat(fd).st_size
        except OSError as exc:
            raise _cannot_read(place) from exc

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return at most ``size`` bytes of part ``name``. Raises ``Unavailable``."""
        place = self._place(name)
        try:
            with Descriptor(place, READ) as fd:
                size = max(0, min(size, os.fstat(fd).st_size - offset))  # no more memory than there is to read
                out = bytearray(size)
                return bytes(out[: fill(fd, offset, memoryview(out))])
        except OSError as exc:
            raise _cannot_read(place) from exc

    def read_into(self, name: str, offset: int, out: memoryview) -> int:
        """Fill ``out`` from part ``name``; return the bytes there were. Raises ``Unavailable``."""
        place = self._place(name)
        try:
            with Descriptor(place, READ) as fd:
                return fill(fd, offset, out)
        except OSError as exc:
            raise _cannot_read(place) from exc


def cannot_write(out: Path) -> Unavailable:
    """Return the error of a place that takes no more."""
    return Unavailable(f"{out}: cannot be written", hint="is there space left, and may you write there?")


def _cannot_read(place: Path) -> Unavailable:
    return Unavailable(f"{place}: cannot be read", hint="is the sealed model whole, and may you read it?")


def strangers(root: Path, manifest: Manifest) -> tuple[str, ...]:
    """Return what lies in a package's folder and is no part of it, sorted; parts that are no plain files too.

    Raises ``Unavailable`` where the folder cannot be read.
    """
    known = {ENVELOPE_NAME, MANIFEST_NAME, SIGNATURE_NAME}
    for entry in manifest.files:
        known |= {blob_name(entry.blob), leaves_name(entry.blob)}
    try:
        return tuple(sorted(islice(_strange(root, known), _MAX_STRANGERS)))
    except OSError as exc:
        raise _cannot_read(root) from exc


def _strange(root: Path, known: set[str]) -> Iterator[str]:
    for folder, prefix in ((root, ""), (root / "blobs", "blobs/")):
        if not prefix or folder.is_dir():
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = prefix + _shown(Path(entry.name))
                    if name == "blobs" and entry.is_dir(follow_symlinks=False):
                        continue
                    if name not in known or not entry.is_file(follow_symlinks=False):
                        yield name


def read_package(root: Path) -> Package:
    """Return manifest and signature of the package in ``root``. Raises ``Malformed`` or ``Unavailable``."""
    return read_parts(DirectorySource(root))


def read_envelope(root: Path) -> Envelope:
    """Return the envelope of the package in ``root``. Raises ``Malformed`` or ``Unavailable``."""
    return Envelope.parse(read_small(DirectorySource(root), ENVELOPE_NAME, MAX_ENVELOPE_BYTES))


def write_envelope(root: Path, envelope: Envelope) -> None:
    """Put ``envelope`` into the package in ``root``, whole or not at all; this is all a rotation writes."""
    data = envelope.dump()
    temporary = root / f".{ENVELOPE_NAME}.new"
    try:
        temporary.unlink(missing_ok=True)  # left by a writer that was killed
        with Descriptor(temporary, CREATE) as fd:
            pour(fd, 0, memoryview(data))
            os.fsync(fd)
        temporary.rename(root / ENVELOPE_NAME)
        sync(root)
    except OSError as exc:
        raise cannot_write(root / ENVELOPE_NAME) from exc
