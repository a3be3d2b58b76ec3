"""The end of a tenant: first the vault, without which everything else is noise; then the rest.

The vault file and a key file that the host made are overwritten and deleted, durably, before any other file is
touched: from then on no model key, no remembered answer and no signature can come of what is left, on this disk
or in a backup of the database. May be run again wherever it ended.

What it does not reach: copies of the vault file elsewhere together with what opens it, what a disk still holds that
writes elsewhere than it is told (flash, snapshots), and rows in a PostgreSQL database, which its keeper drops.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from cloister.custodian.setup import vault_place
from cloister.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["erase"]


def erase(home: Path, key: Path | None) -> None:
    """Destroy a tenant's home, its vault first, then the key file that the host made for it, if any.

    Raises ``Unavailable``; then something is left, and never the vault alone.
    """
    try:
        _shred(vault_place(home))
        if key is not None:
            _shred(key)
        if home.exists():
            shutil.rmtree(home)
            _sync(home.parent)
    except OSError as exc:
        msg = f"{home}: {exc.strerror}"
        raise Unavailable(msg, hint="ask again for what is left to be erased") from exc


def _shred(path: Path) -> None:
    """Overwrite and delete a file, durably. One that is not there is gone already."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.pwrite(fd, os.urandom(os.fstat(fd).st_size), 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    path.unlink()
    _sync(path.parent)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
