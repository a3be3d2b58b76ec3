"""What a guest's kernel offers under a root directory: files, and character devices that take ioctls.

A fake root, or a fake that runs these protocols, is a test's machine. What the kernel answers becomes one of the
house's errors in ``cannot``, the one table from errno to words.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from cloister.errors import Malformed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

__all__ = ["Device", "Devices", "Filesystem", "Kernel", "LocalFiles", "cannot", "read_part"]

_LIBC = ctypes.CDLL(None, use_errno=True)
_CHUNK_BYTES = 64 * 1024
_NO_RIGHT = "run as root, or join the group that owns it"
_HINTS: Final = {
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.ENOENT: "'cloister attest detect' says what this machine has",
    errno.ENXIO: "the kernel has no driver for this tee: is this a confidential guest?",
    errno.ENODEV: "the kernel has no driver for this tee: is this a confidential guest?",
}
_PASSING: Final = frozenset({errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ETIMEDOUT})


class Filesystem(Protocol):
    """Files by path below a root. Contract: ``OSError`` as the kernel gives it, nothing else."""

    def exists(self, path: str) -> bool:
        """Tell whether something is there."""
        ...

    def read(self, path: str, *, cap: int) -> bytes:
        """Return the file, or its first ``cap`` + 1 bytes where it is longer."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Hand ``data`` to the kernel in one write and close the file: only then does configfs take it."""
        ...

    def mkdir(self, path: str) -> None:
        """Make a directory."""
        ...

    def rmdir(self, path: str) -> None:
        """Remove a directory."""
        ...


class Device(Protocol):
    """An open character device. Contract: ``OSError`` as the kernel gives it, nothing else."""

    def ioctl(self, request: int, argument: ctypes.Structure) -> None:
        """Make the call; the kernel reads and writes ``argument`` and what it points to."""
        ...


class Devices(Protocol):
    """Character devices by path below a root. Contract: ``OSError``, nothing else."""

    def device(self, path: str) -> AbstractContextManager[Device]:
        """Open a device for as long as the context lasts."""
        ...


class Kernel(Filesystem, Devices, Protocol):
    """Files and devices together."""


class _OpenDevice:
    def __init__(self, handle: int) -> None:
        self._handle = handle

    def ioctl(self, request: int, argument: ctypes.Structure) -> None:
        """Make the call on ``argument`` itself: what a failing call wrote there counts too, which fcntl may lose."""
        if _LIBC.ioctl(ctypes.c_int(self._handle), ctypes.c_ulong(request), ctypes.byref(argument)) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


class LocalFiles:
    """The files and devices of this machine, or of a tree that looks like one."""

    def __init__(self, root: Path = Path("/")) -> None:
        """Take every path below ``root``."""
        self._root = root

    def exists(self, path: str) -> bool:
        """Tell whether something is there."""
        return os.path.lexists(self._root / path)

    def read(self, path: str, *, cap: int) -> bytes:
        """Return the file, or its first ``cap`` + 1 bytes where it is longer."""
        handle = os.open(self._root / path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = b""
            while len(data) <= cap:
                part = os.read(handle, min(_CHUNK_BYTES, cap + 1 - len(data)))
                if not part:
                    break
                data += part
            return data
        finally:
            os.close(handle)

    def write(self, path: str, data: bytes) -> None:
        """Hand ``data`` to the kernel in one write and close the file."""
        handle = os.open(self._root / path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            if os.write(handle, data) != len(data):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        finally:
            os.close(handle)

    def mkdir(self, path: str) -> None:
        """Make a directory."""
        (self._root / path).mkdir()

    def rmdir(self, path: str) -> None:
        """Remove a directory."""
        (self._root / path).rmdir()

    @contextmanager
    def device(self, path: str) -> Iterator[Device]:
        """Open a character device."""
        handle = os.open(self._root / path, os.O_RDWR | os.O_CLOEXEC)
        try:
            yield _OpenDevice(handle)
        finally:
            os.close(handle)


def cannot(what: str, exc: OSError) -> Unavailable:
    """Return what to raise where the kernel answered with an error: what it was, and what to do about it."""
    reason = os.strerror(exc.errno).lower() if exc.errno else "no reason given"
    retry = 1 if exc.errno in _PASSING else None
    return Unavailable(f"{what}: {reason}", retry_after_s=retry, hint=_HINTS.get(exc.errno or 0))


def read_part(files: Filesystem, path: str, *, cap: int, what: str) -> bytes:
    """Return a whole file. Raises ``Unavailable`` where it cannot be read, ``Malformed`` where it is too long."""
    try:
        data = files.read(path, cap=cap)
    except OSError as exc:
        raise cannot(f"{what}: cannot read /{path}", exc) from exc
    if len(data) > cap:
        msg = f"{what}: /{path} has more than {cap} bytes"
        raise Malformed(msg)
    return data
