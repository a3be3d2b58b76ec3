"""Records of variants that a backup carries with it: a table of the backup's own, which no database has.

They lie in files (``custodian.variants``), and a backup is one file that takes them along. Their keys are wrapped by
the vault. Not done here: proving what they say.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from typing import TYPE_CHECKING

from cloister.errors import Malformed, Unavailable
from cloister.sealed.tracing.record import MAX_RECORD_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["drop_enclosed", "enclose", "enclosed"]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAKE = "CREATE TABLE IF NOT EXISTS variant_record (digest TEXT PRIMARY KEY, record BLOB NOT NULL)"
_THERE = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'variant_record'"


def enclose(out: Path, records: Iterable[tuple[str, bytes]]) -> None:
    """Put records into a backup, all or none. Raises ``Unavailable``, and what ``records`` raises."""
    with _opened(out) as copy, copy:
        copy.execute(_MAKE)
        copy.executemany("INSERT OR REPLACE INTO variant_record VALUES (?, ?)", records)


def enclosed(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the records in a backup, each under a name that is a digest, one at a time.

    Raises ``Malformed`` for names and sizes that no record has, ``Unavailable``.
    """
    with _opened(path) as copy:
        if copy.execute(_THERE).fetchone() is None:
            return
        odd = "SELECT count(*) FROM variant_record WHERE typeof(record) != 'blob' OR length(record) > ?"
        if copy.execute(odd, (MAX_RECORD_BYTES,)).fetchone() != (0,):
            msg = f"backup: a record of a variant is none, or has more than {MAX_RECORD_BYTES} bytes"
            raise Malformed(msg)
        for digest, record in copy.execute("SELECT digest, record FROM variant_record ORDER BY digest"):
            if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
                msg = "backup: a record of a variant is under a name that is no digest"
                raise Malformed(msg)
            yield digest, record


def drop_enclosed(path: Path) -> bool:
    """Take the records out of a copy that becomes a database; tells whether the backup was one that carries them."""
    with _opened(path) as copy:
        if copy.execute(_THERE).fetchone() is None:
            return False
        copy.execute("DROP TABLE variant_record")
        copy.commit()
        return True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            yield connection
    except sqlite3.Error as exc:
        msg = f"{path}: {getattr(exc, 'sqlite_errorname', 'cannot be read or written')}"
        raise Unavailable(msg) from exc
