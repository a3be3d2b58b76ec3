"""Packages and plain models in folders: the one file of this room that opens files.

``PlainTree`` reads what is to be sealed and refuses links and devices; ``DirectorySink`` writes a
package whole or not at all; ``DirectorySource`` reads one. Files are opened anew for every part: a
few microseconds per mebibyte, and nothing to keep open or to lose.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cloister.errors import Malformed, Unavailable, UsageError
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
    "DirectorySink",
    "DirectorySource",
    "PlainFile",
    "PlainTree",
    "move_durably",
    "read_envelope",
    "read_package",
    "strangers",
    "sync_tree",
    "write_envelope",
]

# A pipe or a device must not hold us up, nor a link lead us elsewhere; what was opened is then looked at.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_WRITE = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_MAX_STRANGERS = 1000  # named; a folder may hold any number
_COPY_HINT = "copy the model with 'cp -rL' to get plain files"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainFile:
    """A file to be sealed, and what told it apart when it was found."""

    path: ModelPath
    size: int
    place: Path
    stamp: tuple[int, int, int, int]


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
            with _Descriptor(entry.place, _READ) as fd:
                got = _fill(fd, offset, out)
                same = _stamp(os.fstat(fd)) == entry.stamp
        except OSError as exc:
            msg = f"{_shown(entry.place)}: cannot be read"
            raise UsageError(msg) from exc
        if got != len(out) or not same:
            msg = f"{_shown(entry.place)}: changed while it was being sealed"
            raise UsageError(msg)


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
    return PlainFile(path=path, size=status.st_size, place=place, stamp=_stamp(status))


def _stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class _Descriptor:
    """An open plain file, closed at the end of ``with``."""

    def __init__(self, place: Path, flags: int, mode: int = 0o644) -> None:
        self._fd = os.open(place, flags, mode)

    def __enter__(self) -> int:
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            msg = "not a plain file"
            raise OSError(msg)
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _fill(fd: int, offset: int, out: memoryview) -> int:
    """Read until ``out`` is full or the file ends; return the bytes read."""
    done = 0
    while done < len(out):
        got = os.preadv(fd, [out[done:]], offset + done)
        if got == 0:
            break
        done += got
    return done


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
        try:
            there = out.exists() or out.is_symlink()
        except OSError as exc:  # a name too long, or a file among the folders
            raise _cannot_write(out) from exc
        if there:
            msg = f"{out}: is there already"
            raise UsageError(msg, hint="choose another place, or remove it first")
        if not out.parent.is_dir():
            msg = f"{out.parent}: no such folder"
            raise UsageError(msg)
        try:
            self._temporary = Path(tempfile.mkdtemp(prefix=f".{out.name[:64]}.sealing-", dir=out.parent))
        except OSError as exc:
            raise _cannot_write(out) from exc

    def create(self, name: str, size: int) -> None:
        """Make part ``name`` with ``size`` bytes, to be written at any offset. Raises ``Unavailable``."""
        place = self._temporary / name
        try:
            place.parent.mkdir(exist_ok=True)
            with _Descriptor(place, _CREATE) as fd:
                os.ftruncate(fd, size)
        except OSError as exc:
            raise _cannot_write(self._out) from exc

    def write(self, name: str, offset: int, data: memoryview) -> None:
        """Write ``data`` into part ``name``. Raises ``Unavailable``, for example when the disk is full."""
        try:
            with _Descriptor(self._temporary / name, _WRITE) as fd:
                while data:
                    done = os.pwrite(fd, data, offset)
                    data, offset = data[done:], offset + done
        except OSError as exc:
            raise _cannot_write(self._out) from exc

    def adopt(self, name: str, place: Path) -> None:
        """Take the file at ``place`` for part ``name``: itself where the file system can, else a copy.

        Raises ``Unavailable``. It is not opened for writing any more: an older package may be the same file.
        """
        target = self._temporary / name
        try:
            target.parent.mkdir(exist_ok=True)
            with _Descriptor(place, _READ) as fd:
                try:
                    os.link(place, target, follow_symlinks=False)
                except OSError:  # another file system, or one without hard links
                    with _Descriptor(target, _CREATE) as out:
                        _copy(fd, out)
        except OSError as exc:
            raise _cannot_write(self._out) from exc

    def commit(self) -> None:
        """Make everything durable and put the package in its place. Raises ``Unavailable``."""
        try:
            sync_tree(self._temporary)
            move_durably(self._temporary, self._out)
        except OSError as exc:
            raise _cannot_write(self._out) from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._temporary, ignore_errors=True)


def sync_tree(folder: Path) -> None:
    """Make a package's folder durable with all that is in it, readable for everybody. Raises ``OSError``."""
    for place in sorted(folder.rglob("*"), reverse=True):
        _sync(place)
    folder.chmod(0o755)
    _sync(folder)


def move_durably(folder: Path, out: Path) -> None:
    """Give a package its name, or take that back: who is told of a failure finds nothing there. Raises ``OSError``."""
    try:
        folder.rename(out)
        _sync(out.parent)
    except OSError:
        if not folder.exists():
            out.rename(folder)
        raise


def _sync(place: Path) -> None:
    fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _cannot_write(out: Path) -> Unavailable:
    return Unavailable(f"{out}: cannot be written", hint="is there space left, and may you write there?")


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
            with _Descriptor(place, _READ) as fd:
                return os.fstat(fd).st_size
        except OSError as exc:
            raise _cannot_read(place) from exc

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return at most ``size`` bytes of part ``name``. Raises ``Unavailable``."""
        place = self._place(name)
        try:
            with _Descriptor(place, _READ) as fd:
                size = max(0, min(size, os.fstat(fd).st_size - offset))  # no more memory than there is to read
                out = bytearray(size)
                return bytes(out[: _fill(fd, offset, memoryview(out))])
        except OSError as exc:
            raise _cannot_read(place) from exc

    def read_into(self, name: str, offset: int, out: memoryview) -> int:
        """Fill ``out`` from part ``name``; return the bytes there were. Raises ``Unavailable``."""
        place = self._place(name)
        try:
            with _Descriptor(place, _READ) as fd:
                return _fill(fd, offset, out)
        except OSError as exc:
            raise _cannot_read(place) from exc


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
        with _Descriptor(temporary, _CREATE) as fd:
            left = memoryview(data)
            while left:  # a disk that fills up takes a part and says so only by the count
                left = left[os.write(fd, left) :]
            os.fsync(fd)
        temporary.rename(root / ENVELOPE_NAME)
        _sync(root)
    except OSError as exc:
        raise _cannot_write(root / ENVELOPE_NAME) from exc
