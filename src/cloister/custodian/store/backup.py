"""Copies of the database, whole at one moment, taken beside a running custodian.

The copy is made through sqlite's own backup interface by a connection that cannot write, so that the one
writer stays the only one. It holds no key that opens anything (T19). Not done here: putting a copy back;
that is a file in its place and ``cloister custodian recover``.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING
from urllib.parse import quote

from cloister.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["back_up", "copy_into"]

_BUSY_S = 5


def back_up(database: Path, out: Path) -> int:
    """Copy the database file to the new file ``out`` of mode 0600, durably; return its size in bytes.

    Raises ``UsageError`` where there is no database or ``out`` exists, ``Unavailable`` where a disk fails.
    """
    if not database.exists():
        msg = f"database {database}: no such file"
        raise UsageError(msg, hint="run cloister custodian init first")
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{quote(str(database.absolute()))}?mode=ro", uri=True, timeout=_BUSY_S)
        ) as source:
            copy_into(source, out)
    except sqlite3.Error as exc:
        msg = f"database {database}: {getattr(exc, 'sqlite_errorname', 'cannot be read')}"
        raise Unavailable(msg) from exc
    return out.stat().st_size


def copy_into(source: sqlite3.Connection, out: Path) -> None:
    """Copy what ``source`` sees into the new file ``out``. Leaves no half of it. Raises as ``back_up``."""
    try:
        os.close(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError as exc:
        msg = f"{out}: exists already"
        raise UsageError(msg, hint="choose another name: a backup replaces nothing") from exc
    except OSError as exc:
        msg = f"{out}: {exc.strerror}"
        raise Unavailable(msg) from exc
    try:
        with contextlib.closing(sqlite3.connect(out)) as copy:
            source.backup(copy)
    except sqlite3.Error as exc:
        out.unlink()
        msg = f"{out}: {getattr(exc, 'sqlite_errorname', 'cannot be written')}"
        raise Unavailable(msg) from exc
