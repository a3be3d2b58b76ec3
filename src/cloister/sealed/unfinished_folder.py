"""A package that is being sealed: a hidden folder beside its place, kept where sealing is interrupted.

``unfinished.json`` has the wrapped keys, ``package/`` the parts; only ``package/`` is moved to the package's name, and
after that nothing here is worth anything. One process at a time works in it. Nobody but its owner may look inside.
Not done here: what the file says (``unfinished``), and which segments are whole (``resume``).
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Self

from cloister.errors import Malformed, UsageError
from cloister.sealed.descriptor import READ, WRITE, Descriptor, fill, pour, sync
from cloister.sealed.directory import DirectorySource, cannot_write
from cloister.sealed.manifest import blob_name
from cloister.sealed.package_folder import PackageFolder, demand_free, move_durably, sync_tree
from cloister.sealed.unfinished import MAX_UNFINISHED_BYTES, UNFINISHED_NAME, Unfinished

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["UnfinishedFolder"]

_PACKAGE = "package"
_REMOVE = "remove it to begin anew"
_WRITE_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class UnfinishedFolder:
    """The folder of one sealing; use it in a ``with`` block. What was not committed stays for the next time."""

    def __init__(self, out: Path, *, resume: bool) -> None:
        """Open or make it, alone.

        Raises ``UsageError`` where ``out`` exists, where another process is at it, and for what an earlier sealing
        left, unless it is to ``resume``; ``Unavailable`` where nothing can be written.
        """
        self._out = out
        self.place = out.parent / f".{out.name}.sealing"
        self._stack = ExitStack()
        self.is_kept = True  # until it is known to be ours, and empty
        demand_free(out)
        try:
            self._enter()
            self.found = self._read()
            self._demand_resume(resume=resume)
        except BaseException as exc:
            self._leave()
            if isinstance(exc, OSError):
                raise cannot_write(out) from exc
            raise
        self.is_kept = self.found is not None
        self.parts = PackageFolder(self.place / _PACKAGE, out)
        self.source = DirectorySource(self.parts.root)

    def _enter(self) -> None:
        with suppress(FileExistsError):
            self.place.mkdir(mode=0o700)
        lock = os.open(self.place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._stack.callback(os.close, lock)
        status = os.fstat(lock)
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            msg = f"{self.place}: not ours alone, mode {status.st_mode & 0o777:04o}, want 0700"
            raise UsageError(msg, hint=f"choose another place, or {_REMOVE}")
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            now = self.place.stat(follow_symlinks=False)
            if (now.st_dev, now.st_ino) == (status.st_dev, status.st_ino):  # not removed by who had it locked
                return
        msg = f"{self._out}: another process is sealing to there"
        raise UsageError(msg, hint="wait for it, or choose another place")

    def _demand_resume(self, *, resume: bool) -> None:
        if self.found is not None and not resume:
            msg = f"{self.place}: left by a sealing that was interrupted"
            raise UsageError(msg, hint=f"pass --resume to go on with it, or {_REMOVE}")

    def _read(self) -> Unfinished | None:
        """Return what an earlier sealing left; None where it left nothing, or had come to its end."""
        if not (self.place / _PACKAGE).is_dir():  # never begun, or moved to its name: its keys must not serve again
            return None
        try:
            with Descriptor(self.place / UNFINISHED_NAME, READ) as fd:
                size = os.fstat(fd).st_size
                if size > MAX_UNFINISHED_BYTES:
                    msg = f"{self.place / UNFINISHED_NAME}: {size} bytes, want at most {MAX_UNFINISHED_BYTES}"
                    raise Malformed(msg, hint=_REMOVE)
                data = bytearray(size)
                fill(fd, 0, memoryview(data))
        except FileNotFoundError:
            return None
        return Unfinished.parse(bytes(data))

    def begin(self, state: Unfinished) -> None:
        """Keep ``state``, durably, before anything is sealed under its keys; remove every part that is not of it.

        Raises ``Unavailable``.
        """
        try:
            if self.found is None:
                self._clear()
            self._write(state.dump())
            self.is_kept = True
            self.parts.root.mkdir(exist_ok=True)
            (self.parts.root / "blobs").mkdir(exist_ok=True)
            self._keep({blob_name(item.entry.blob) for item in state.files})
            for place in (self.parts.root, self.place, self.place.parent):
                sync(place)
        except OSError as exc:
            raise cannot_write(self._out) from exc

    def _clear(self) -> None:
        for place in self.place.iterdir():
            shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()

    def _write(self, data: bytes) -> None:
        fresh = self.place / f".{UNFINISHED_NAME}.new"
        fresh.unlink(missing_ok=True)  # left by a process that was killed
        with Descriptor(fresh, _WRITE_NEW, 0o600) as fd:
            pour(fd, 0, memoryview(data))
            os.fsync(fd)
        fresh.rename(self.place / UNFINISHED_NAME)
        sync(self.place)

    def _keep(self, names: Iterable[str]) -> None:
        """Remove every file of the package but these: leaves and manifests of a run that came far, and adopted parts.

        An adopted part may be the same file as an older package's: it is unlinked, never written.
        """
        kept = {self.parts.root / name for name in names}
        for place in self.parts.root.rglob("*"):
            if place not in kept and (place.is_symlink() or not place.is_dir()):
                place.unlink()

    def has(self, blob: str, size: int) -> bool:
        """Tell whether a blob is there, and give it the size it must have. Raises ``Unavailable``."""
        try:
            with Descriptor(self.parts.root / blob_name(blob), WRITE) as fd:
                if os.fstat(fd).st_size != size:
                    os.ftruncate(fd, size)
        except FileNotFoundError:
            return False
        except OSError as exc:
            raise cannot_write(self._out) from exc
        return True

    def commit(self) -> None:
        """Make the package durable and move it to its name. Raises ``UsageError``, ``Unavailable``."""
        self.parts.demand_unchanged()
        try:
            sync_tree(self.parts.root)
            demand_free(self._out)
            move_durably(self.parts.root, self._out)
        except OSError as exc:
            raise cannot_write(self._out) from exc
        self.is_kept = False

    def _leave(self) -> None:
        with self._stack:  # the lock goes last
            if not self.is_kept:
                shutil.rmtree(self.place, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()
