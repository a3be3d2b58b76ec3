"""A store on SQLite, for one custodian.

WAL with ``synchronous=FULL``: a commit that was acknowledged survives a power loss (30-metering,
"Storage facts"). One writer connection behind a lock; readers are query-only, so that never two
connections write or checkpoint at once: SQLite 3.7.0 to 3.51.2 can corrupt a WAL then.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Engine, create_engine, event, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool, StaticPool

from cloister.custodian.store.backup import copy_into
from cloister.custodian.store.faults import RESTORE, database_faults, sqlite_code
from cloister.custodian.store.migrations import migrate
from cloister.custodian.store.rewrite import write_again
from cloister.custodian.store.tables import EPOCH
from cloister.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlalchemy import Connection
    from sqlalchemy.pool import PoolProxiedConnection

__all__ = ["SqliteStore", "is_affected_sqlite"]

_BUSY_TIMEOUT_MS = 5000
_READERS = 8  # read connections at once
_READER_CACHE_KIB = 128  # of pages that each keeps: of SQLite's default, nine connections would keep 18 MiB
_WRITER_CACHE_KIB = 1024  # of pages that the writer keeps; both together bound what caches take, at 2 MiB
_FENCE = select(EPOCH.c.fence)
_WAL_BUG_FIRST, _WAL_BUG_LAST = (3, 7, 0), (3, 51, 2)


def is_affected_sqlite(version: tuple[int, ...]) -> bool:
    """Tell whether this SQLite can corrupt a WAL when two connections write or checkpoint at once."""
    return _WAL_BUG_FIRST <= version <= _WAL_BUG_LAST


class SqliteStore:
    """An open database. Closing it drops the readers first, so that only the writer checkpoints."""

    def __init__(self, path: Path, *, fence: bytes, cap_mib: int = 0) -> None:
        """Open or create, check, migrate and fence off whoever had it open before (T39).

        The file grows to ``cap_mib`` MiB, or as the disk allows; beyond that it is full, as a disk would be.
        """
        self._fence = fence
        self._lock = threading.Lock()
        self._broken = False
        self._closed = False
        write_again(path.with_name(f"{path.name}-wal"))  # an earlier process may have seen a sync of it fail
        self._writer = _engine(path, query_only=False, cap_mib=cap_mib)
        self._readers = _engine(path, query_only=True)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        with database_faults():
            with self._writer.connect() as connection:
                # Not quick_check: that overlooks an index that lost rows, and sums go through indices.
                verdict = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one()
            if verdict != "ok":
                msg = "store: the database is damaged"
                raise Unavailable(msg, hint=RESTORE)
            with self._writer.begin() as connection:
                migrate(connection)
                connection.execute(update(EPOCH).values(fence=self._fence))

    @property
    def shared(self) -> bool:
        """One custodian, one writer."""
        return False

    @contextlib.contextmanager
    def writing(self, *, fenced: bool = True, alone: bool = False) -> Iterator[Connection]:  # noqa: ARG002 - each is
        """Run one read-write transaction; commits at the end, rolls back on any exception.

        Raises ``Unavailable`` when the database fails, or when another custodian opened it since.
        """
        with self._lock, database_faults(self._break):
            if self._closed:
                msg = "store: closed"
                raise Unavailable(msg)
            if self._broken:
                msg = "store: a commit failed; nothing more is written until a restart"
                raise Unavailable(msg)
            with self._writer.connect() as connection:
                transaction = connection.begin()
                try:
                    if fenced:
                        self._demand_fence(connection)
                    yield connection
                except BaseException:
                    transaction.rollback()
                    raise
                self._commit(connection)

    def _commit(self, connection: Connection) -> None:
        """Commit durably. After a commit of unknown outcome only a restart can tell: stop writing (fsyncgate)."""
        try:
            connection.commit()
        except SQLAlchemyError:
            self._broken = True
            raise

    def _break(self, error: SQLAlchemyError) -> None:
        """Remember a failure of the disk itself: what it holds is unknown until a restart."""
        if sqlite_code(error) in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            self._broken = True

    def _demand_fence(self, connection: Connection) -> None:
        fence = connection.execute(_FENCE).scalar_one_or_none()
        if fence != self._fence:
            msg = "store: another custodian opened this database"
            raise Unavailable(msg, hint="only one custodian may run on a ledger; stop one of them")

    def sequencing(self) -> AbstractContextManager[Connection]:
        """Run one transaction: with one writer each is one at a time."""
        return self.writing()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Run one read-only transaction: a consistent snapshot."""
        with database_faults(), self._readers.connect() as connection, connection.begin():
            yield connection

    @property
    def is_writable(self) -> bool:
        """Tell whether writing was still possible at the last attempt."""
        return not self._broken

    def scrub(self) -> None:
        """Write everything to the database file and empty the write-ahead log, which has deleted rows as they were."""
        with self._lock, database_faults(self._break), self._writer.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()

    def backup(self, path: Path) -> None:
        """Write a consistent copy of the database. It holds no key that opens anything (T19)."""
        with contextlib.closing(self._readers.raw_connection()) as source:
            driver: Any = source.driver_connection
            copy_into(driver, path)

    def close(self) -> None:
        """Close every connection, once the transaction under way has ended; nothing is written afterwards.

        The driver crashes where a connection is closed under a statement of another thread.
        """
        with self._lock:
            self._closed = True
            self._readers.dispose()
            self._writer.dispose()


def _engine(path: Path, *, query_only: bool, cap_mib: int = 0) -> Engine:
    """Return an engine: the writer has one connection, readers a small pool."""
    pool: dict[str, Any] = {"poolclass": StaticPool}
    if query_only:  # the last one given back is taken first: the others keep few pages, or are never opened
        pool = {"poolclass": QueuePool, "pool_size": _READERS, "max_overflow": 0, "pool_use_lifo": True}
    engine = create_engine(
        URL.create("sqlite", database=str(path)),  # a path with ? or % is still only a path
        hide_parameters=True,  # an error text never carries a value
        connect_args={"check_same_thread": False, "isolation_level": None, "timeout": _BUSY_TIMEOUT_MS / 1000},
        **pool,
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        cursor = connection.cursor()
        if not query_only:
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")
        if cap_mib:
            page = cursor.execute("PRAGMA page_size").fetchone()[0]
            cursor.execute(f"PRAGMA max_page_count={(cap_mib << 20) // page}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA mmap_size=0")
        cursor.execute("PRAGMA trusted_schema=OFF")
        cursor.execute(f"PRAGMA cache_size=-{_READER_CACHE_KIB if query_only else _WRITER_CACHE_KIB}")
        cursor.execute(f"PRAGMA query_only={'ON' if query_only else 'OFF'}")
        cursor.close()

    def do_begin(dbapi_connection: PoolProxiedConnection) -> None:
        # The driver would start its transaction late; ours starts where it is written. No listener does it: one
        # would cost every statement a look for others.
        cursor = dbapi_connection.cursor()
        cursor.execute("BEGIN" if query_only else "BEGIN IMMEDIATE")
        cursor.close()

    engine.dialect.do_begin = do_begin  # type: ignore[method-assign]
    return engine
