"""What a database can fail by, as the house's own errors: its kind, never a statement, never a value."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from cloister.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["RESTORE", "Contended", "database_faults", "is_torn", "sqlite_code", "sqlstate"]

RESTORE = "restore a backup, then run cloister custodian recover"
_RETRY_AFTER_S = 2
_TORN = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_CONTENDED = frozenset({"40001", "40P01", "23505", "55P03"})
"""PostgreSQL, appendix A: serialization failure, deadlock, a row that another made first, no lock in time."""


class Contended(Unavailable):
    """Another transaction came between; nothing was written, and the same may go through when run again."""


def sqlstate(error: SQLAlchemyError) -> str:
    """Return the SQLSTATE of a PostgreSQL error, empty for any other."""
    original = error.orig if isinstance(error, DBAPIError) else None
    return str(getattr(original, "sqlstate", None) or "")


def sqlite_code(error: SQLAlchemyError) -> int:
    """Return the primary result code of an SQLite error, 0 for any other."""
    original = error.orig if isinstance(error, DBAPIError) else None
    return int(getattr(original, "sqlite_errorcode", 0) or 0) & 0xFF


def is_torn(error: SQLAlchemyError) -> bool:
    """Tell whether the database itself is damaged."""
    return sqlite_code(error) in _TORN


@contextlib.contextmanager
def database_faults(note: Callable[[SQLAlchemyError], None] | None = None) -> Iterator[None]:
    """Turn every database error into ``Unavailable`` or ``Contended``; ``note`` sees it first."""
    try:
        yield
    except SQLAlchemyError as exc:
        if note is not None:
            note(exc)
        original = exc.orig if isinstance(exc, DBAPIError) else exc
        msg = f"store: {type(original).__name__}: {_reason(exc, original)}"
        kind = Contended if sqlstate(exc) in _CONTENDED else Unavailable
        raise kind(msg, retry_after_s=_RETRY_AFTER_S, hint=RESTORE if is_torn(exc) else None) from exc


def _reason(error: SQLAlchemyError, original: object) -> str:
    """Return the database's own name for the error."""
    name = str(getattr(original, "sqlite_errorname", "") or "")
    state = sqlstate(error)
    return name or (f"sqlstate {state}" if state else "the database refused")
