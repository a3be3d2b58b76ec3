"""The database read beside a running custodian: copies of it, whole at one moment, and its last bundle.

The copy is made through sqlite's own backup interface by a connection that cannot write, so that the one
writer stays the only one. It holds no key that opens anything (T19). Not done here: putting a copy back
(``custodian.restoring``).
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING
from urllib.parse import quote

from cloister.attest.endorse.bundle import Accepted
from cloister.custodian.store.enclosed import enclose
from cloister.errors import Unavailable, UsageError
from cloister.private_file import new_private

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["REPLACES_NOTHING", "back_up", "copy_file", "copy_into", "demand_whole", "last_bundle"]

REPLACES_NOTHING = "choose another name: a backup replaces nothing"
_BUSY_S = 5


def back_up(database: Path, out: Path, records: Iterable[tuple[str, bytes]] = ()) -> int:
    """Copy the database file, and ``records`` of variants, to the new file ``out``; return its size in bytes.

    It is of mode 0600, and there durably or not at all.
    Raises ``UsageError`` where there is no database or ``out`` exists, ``Unavailable`` where a disk fails.
    """
    with _beside(database) as source:
        copy_into(source, out, records)
    return out.stat().st_size


def last_bundle(database: Path) -> Accepted | None:
    """Return the newest bundle of endorsements that the custodian accepted. Raises as ``back_up``."""
    with _beside(database) as source:
        there = source.execute("SELECT 1 FROM sqlite_master WHERE name = 'endorsement_bundle'").fetchone()
        row = source.execute("SELECT version, sha256 FROM endorsement_bundle").fetchone() if there else None
    return None if row is None else Accepted(version=row[0], sha256=row[1])


@contextlib.contextmanager
def _beside(database: Path) -> Iterator[sqlite3.Connection]:
    """Open the database for reading, whoever has it open to write."""
    if not database.exists():
        msg = f"database {database}: no such file"
        raise UsageError(msg, hint="run cloister custodian init first")
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{quote(str(database.absolute()))}?mode=ro", uri=True, timeout=_BUSY_S)
        ) as source:
            yield source
    except sqlite3.Error as exc:
        msg = f"database {database}: {getattr(exc, 'sqlite_errorname', 'cannot be read')}"
        raise Unavailable(msg) from exc


def copy_into(source: sqlite3.Connection, out: Path, records: Iterable[tuple[str, bytes]] | None = None) -> None:
    """Copy what ``source`` sees, and ``records`` where they are given, into the new file ``out``.

    Leaves no half of it. Raises as ``back_up``.
    """
    with new_private(out, hint=REPLACES_NOTHING):
        try:
            with contextlib.closing(sqlite3.connect(out)) as copy:
                source.backup(copy)
        except sqlite3.Error as exc:
            msg = f"{out}: {getattr(exc, 'sqlite_errorname', 'cannot be written')}"
            raise Unavailable(msg) from exc
        if records is not None:
            enclose(out, records)


def demand_whole(path: Path) -> None:
    """Prove that a file is a whole SQLite database. Raises ``UsageError`` where there is none, ``Unavailable``."""
    with _beside(path) as source:
        verdict = source.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != ("ok",):
        msg = f"database {path}: damaged"
        raise Unavailable(msg, hint="take another backup")


def copy_file(path: Path, out: Path) -> None:
    """Copy a SQLite database, with what is only in its write-ahead log, into the new file ``out``."""
    with _beside(path) as source:
        copy_into(source, out)
