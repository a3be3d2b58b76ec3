"""Files that their owner alone may touch: vaults, key files, shares, tokens, backups, receipts. One way for all rooms.

A new file is of mode 0600 from the start, takes nobody's place, and is there durably with its name, or not at all.

Not done here: what is in them.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

__all__ = ["new_private", "read_private", "replace_private", "write_private"]

_ROOT = 0  # who can touch everything anyway
_HINT = "choose another place, or move the old file away"


def read_private(path: Path | str, *, cap: int, holds: str = "", links: bool = False) -> bytes:
    """Return a file's bytes if it is a regular file of this user's that group and others cannot touch.

    The mode is read from the open descriptor, so that nobody swaps the file in between. ``holds`` says of what it is
    full; ``links`` lets the name be a link, as those are under which secrets are mounted into containers: what counts
    is the file behind it. Raises ``UsageError``.
    """
    try:
        # A pipe must not make us wait before we can say that it is none of ours.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW))
    except FileNotFoundError as exc:
        msg = f"{path}: no such file"
        raise UsageError(msg) from exc
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc
    try:
        _demand_private(path, os.fstat(fd), cap, f": it holds {holds}" if holds else "")
        return os.read(fd, cap)
    finally:
        os.close(fd)


def _demand_private(path: Path | str, status: os.stat_result, cap: int, holds: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        msg = f"{path}: not a regular file"
        raise UsageError(msg)
    if status.st_uid not in (os.geteuid(), _ROOT):
        msg = f"{path}: belongs to user {status.st_uid}, who could change it"
        raise UsageError(msg, hint=f"chown {os.geteuid()} {path}")
    if status.st_mode & 0o077:
        msg = f"{path}: mode {stat.S_IMODE(status.st_mode):04o}, want 0600{holds}"
        raise UsageError(msg, hint=f"chmod 600 {path}", code="open_to_others")
    if status.st_size > cap:
        msg = f"{path}: {status.st_size} bytes, want at most {cap}"
        raise UsageError(msg)


@contextmanager
def new_private(path: Path | str, *, hint: str = _HINT) -> Iterator[BinaryIO]:
    """Make the empty file, to be filled through what is yielded, or by its name; then it and its name are durable.

    On any error, an interrupt too, there is no file: half of one would be in the way. Raises ``UsageError`` with
    ``hint`` where one is there already, ``Unavailable`` where the disk fails.
    """
    place = Path(path)
    try:
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as exc:
        msg = f"{path}: exists already"
        raise UsageError(msg, hint=hint, code="file_exists") from exc
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise Unavailable(msg) from exc
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(fd)
        _sync_folder(place.parent)  # else a power loss may take the name away, and with it the only key
    except BaseException as exc:
        place.unlink(missing_ok=True)
        if not isinstance(exc, OSError):
            raise
        msg = f"{path}: {exc.strerror}"
        raise Unavailable(msg) from exc


def write_private(path: Path | str, data: bytes, *, hint: str = _HINT) -> None:
    """Write a new file of mode 0600, durably, or none. Raises as ``new_private``."""
    with new_private(path, hint=hint) as file:
        file.write(data)


def replace_private(path: Path, data: bytes) -> None:
    """Put ``data`` where a file of mode 0600 is, durably, or leave that as it is. Raises as ``write_private``.

    Only where the last sync of the folder fails, a power loss may bring back either.
    """
    fresh = path.with_name(path.name + ".new")
    write_private(fresh, data)
    try:
        fresh.replace(path)
    except BaseException as exc:
        fresh.unlink(missing_ok=True)
        if not isinstance(exc, OSError):
            raise
        msg = f"{path}: {exc.strerror}"
        raise Unavailable(msg) from exc
    try:
        _sync_folder(path.parent)
    except OSError as exc:
        msg = f"{path}: replaced, and not known to be durable: {exc.strerror}"
        raise Unavailable(msg, hint="keep what opens the old file and what opens the new one") from exc


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
