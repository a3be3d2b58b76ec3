"""A package that is being fetched: a hidden folder beside its place, which nothing takes for a model.

The folder has a name of its own model's digest, so that another fetch of the same model goes on where this one was
broken off, killed or cut from power. ``blobs/ID.have`` has a bit for each segment that was written: a hint of what is
worth looking at, and no more. Whoever goes on holds every such segment against its leaf, so that neither a write that
never reached the disk nor a file that somebody changed counts. Only a whole package is moved to its name.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack
from threading import Lock
from typing import TYPE_CHECKING, Self

from cloister.errors import Unavailable, UsageError
from cloister.sealed.manifest import MANIFEST_NAME, blob_name
from cloister.sealed.package_folder import move_durably, sync_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["PartialFolder"]

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_NAME_CHARS = 64  # of the place's name in the hidden one
_DIGEST_CHARS = 32
_HAVE = ".have"


class PartialFolder:
    """Collects parts; use it in a ``with`` block. What was not committed stays for the next time."""

    def __init__(self, out: Path, digest: str) -> None:
        """Open or make the hidden folder, alone. Raises ``UsageError`` where ``out`` exists, ``Unavailable``."""
        self._out = out
        self._folder = out.parent / f".{out.name[:_NAME_CHARS]}.pulling-{digest[:_DIGEST_CHARS]}"
        self._have: dict[str, bytearray] = {}
        self._turn = Lock()
        self._stack = ExitStack()
        self._demand_free()
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
            self._stack.callback(os.close, lock)
            self._demand_ours(lock)
            (self._folder / "blobs").mkdir(exist_ok=True)
        except OSError as exc:
            self._stack.close()
            raise self._cannot_write(exc) from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            self._stack.close()
            msg = f"{out}: somebody else is fetching this model to there"
            raise UsageError(msg, hint="wait for it, or choose another place") from exc

    def _demand_free(self) -> None:
        if self._out.exists() or self._out.is_symlink():
            msg = f"{self._out}: is there already"
            raise UsageError(msg, hint="choose another place, or remove it first")
        if not self._out.parent.is_dir():
            msg = f"{self._out.parent}: no such folder"
            raise UsageError(msg)

    def _demand_ours(self, fd: int) -> None:
        """Refuse a folder that somebody else put there in advance: they could change what is in it."""
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            self._stack.close()
            msg = f"{self._folder}: not ours alone"
            raise UsageError(msg, hint="remove it, or choose another place")

    def begin(self, blob: str, size: int, count: int) -> None:
        """Make room for a blob of ``size`` bytes in ``count`` segments; what is there stays. Raises ``Unavailable``."""
        name = blob_name(blob)
        try:
            fresh = not (self._folder / name).exists()
            fd = os.open(self._folder / name, _FLAGS, 0o644)
            try:
                os.ftruncate(fd, size)
            finally:
                os.close(fd)
            place = self._folder / (name + _HAVE)
            # A body without its bits was about to be committed: all of it is worth looking at.
            known = place.read_bytes() if place.exists() else (b"" if fresh else b"\xff" * -(-count // 8))
            bits = bytearray(known[: -(-count // 8)].ljust(-(-count // 8), b"\0"))
            place.write_bytes(bits)
        except OSError as exc:
            raise self._cannot_write(exc) from exc
        self._have[blob] = bits

    def has(self, blob: str, index: int) -> bool:
        """Tell whether segment ``index`` is worth looking at."""
        return bool(self._have[blob][index // 8] >> index % 8 & 1)

    def read_into(self, blob: str, offset: int, out: memoryview) -> None:
        """Fill ``out`` from a blob. Raises ``Unavailable``."""
        self._at(blob_name(blob), lambda fd: _read(fd, offset, out))

    def write(self, blob: str, index: int, offset: int, data: memoryview) -> None:
        """Write a segment that passed, and note it. Raises ``Unavailable``, for example when the disk is full."""
        self._at(blob_name(blob), lambda fd: _write(fd, offset, data))
        with self._turn:
            bits = self._have[blob]
            bits[index // 8] |= 1 << index % 8
            self._at(blob_name(blob) + _HAVE, lambda fd: _write(fd, index // 8, memoryview(bits)[index // 8 :][:1]))

    def put(self, name: str, data: bytes) -> None:
        """Write a small part. Raises ``Unavailable``."""

        def work(fd: int) -> None:
            os.ftruncate(fd, 0)
            _write(fd, 0, memoryview(data))

        self._at(name, work)

    def commit(self, small: Mapping[str, bytes]) -> None:
        """Add ``small`` parts, make all durable, move it to its name. Raises ``UsageError`` or ``Unavailable``."""
        try:
            for name in (*(one for one in small if one != MANIFEST_NAME), MANIFEST_NAME):
                self.put(name, small[name])
            for blob in self._have:
                (self._folder / (blob_name(blob) + _HAVE)).unlink(missing_ok=True)
            sync_tree(self._folder)
            self._demand_free()
            move_durably(self._folder, self._out)
        except OSError as exc:
            raise self._cannot_write(exc) from exc

    def _at(self, name: str, work: Callable[[int], None]) -> None:
        try:
            fd = os.open(self._folder / name, _FLAGS, 0o644)
            try:
                work(fd)
            finally:
                os.close(fd)
        except OSError as exc:
            raise self._cannot_write(exc) from exc

    def _cannot_write(self, exc: OSError) -> Unavailable:
        msg = f"{self._out}: cannot be written: {exc.strerror}"
        return Unavailable(msg, hint="what was fetched is kept; run it again when there is space")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _read(fd: int, offset: int, out: memoryview) -> None:
    while out:
        got = os.preadv(fd, [out], offset)
        if not got:
            out[:] = bytes(len(out))
            return
        out, offset = out[got:], offset + got


def _write(fd: int, offset: int, data: memoryview) -> None:
    while data:
        done = os.pwrite(fd, data, offset)
        data, offset = data[done:], offset + done
