"""A store on PostgreSQL, for several custodians over one database.

Transactions are SERIALIZABLE: as if one ran after the other, or ``Contended`` and run again by ``service.context``.
What puts audit entries in order runs under an advisory lock, one at a time over all custodians, in READ COMMITTED so
that it sees whatever was committed before it got the lock. Migrations run under another.

The password of the database is never in a setting: libpq takes it from a password file or its environment. Not
done here: making the server durable. It is asked whether it is, and refused in production where it is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine, event, make_url, select, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import NullPool, QueuePool

from cloister.custodian.logs import LOG, Event
from cloister.custodian.store.backup import REPLACES_NOTHING
from cloister.custodian.store.copying import carry, file_engine
from cloister.custodian.store.enclosed import enclose
from cloister.custodian.store.faults import database_faults
from cloister.custodian.store.migrations import migrate
from cloister.custodian.store.tables import EPOCH
from cloister.errors import Unavailable, UsageError
from cloister.private_file import new_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlalchemy import URL, Connection

__all__ = ["PostgresStore", "copy_out", "is_postgres", "parse_database_url", "plain_engine"]

_WAIT_S = 10  # seconds a request waits for one of them
_LOCK_CLASS = 0x436C6F69  # advisory locks of ours: "Cloi", then which
_USUAL_SCHEMA = "public"
_MIGRATING, _SEQUENCING, _WRITING = 1, 2, 3
_LOCK = text("SELECT pg_advisory_xact_lock(:a, :b)")
_LOCK_SHARED = text("SELECT pg_advisory_xact_lock_shared(:a, :b)")
_FENCE = select(EPOCH.c.fence)
_SETTINGS = {
    "application_name": "cloister",
    "enable_seqscan": "off",  # a scan of a whole table, small or not, would meet whoever writes any row of it
    "idle_in_transaction_session_timeout": "30s",
    "jit": "off",  # a plan that cannot do without a scan looks dear enough to compile: 40 ms for a table of one row
    "lock_timeout": "10s",
    "statement_timeout": "60s",
    "synchronous_commit": "on",  # an acknowledged commit survives a power loss
}
_DURABLE = ("fsync", "full_page_writes")
_OLDEST = 130_000  # server_version_num


def is_postgres(database: str) -> bool:
    """Tell whether a setting names a PostgreSQL database rather than a file."""
    return database.startswith(("postgresql://", "postgres://"))


def parse_database_url(text_: str) -> URL:
    """Return the URL ``postgresql://[user@]host[:port]/name[?libpq options]`` of a database.

    Raises ``UsageError``, naming nothing of the URL, also where it holds a password.
    """
    try:
        url = make_url(text_)
    except (ArgumentError, ValueError) as exc:
        msg = "database: not a url that can be read"
        raise UsageError(msg, hint="want postgresql://user@host:port/name") from exc
    if url.drivername not in {"postgresql", "postgres"} or not url.database:
        msg = "database: not a postgresql url with the name of a database"
        raise UsageError(msg, hint="want postgresql://user@host:port/name")
    if url.password is not None or "password" in url.query:
        msg = "database: the url holds a password"
        raise UsageError(msg, hint="put it into a password file (PGPASSFILE, mode 0600) and leave it out of the url")
    return url.set(drivername="postgresql+psycopg")


class PostgresStore:
    """An open database that other custodians may have open too."""

    def __init__(self, url: str, *, fence: bytes, production: bool = False, connections: int = 16) -> None:
        """Connect, check and migrate. ``fence`` is the custodian's own name, the same in all its processes.

        At most ``connections`` at once, and one more for who waits to run alone.

        Raises ``UsageError`` for a database of another custodian or a newer schema, ``Unavailable``.
        """
        self._fence = fence
        self._alone = threading.Lock()
        self._closed = False
        self._reachable = True
        self._locks = _LOCK_CLASS
        self._engine = _engine(parse_database_url(url), connections=connections)
        self._guards = _engine(parse_database_url(url), connections=0).execution_options(isolation_level="AUTOCOMMIT")
        self._serial = self._engine.execution_options(isolation_level="SERIALIZABLE")
        self._latest = self._engine.execution_options(isolation_level="READ COMMITTED")
        self._snapshot = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        try:
            with database_faults():
                self._open(production=production)
        except BaseException:
            self.close()
            raise

    def _open(self, *, production: bool) -> None:
        with self._latest.begin() as connection:
            _demand_server(connection, production=production)
            self._locks = _lock_class(connection)
            connection.execute(_LOCK, self._lock(_MIGRATING))
            migrate(connection)
            self._demand_fence(connection)

    @property
    def shared(self) -> bool:
        """Several custodians write here."""
        return True

    @property
    def is_writable(self) -> bool:
        """Tell whether the database answered at the last attempt."""
        return self._reachable

    @contextlib.contextmanager
    def writing(self, *, fenced: bool = True, alone: bool = False) -> Iterator[Connection]:
        """Run one SERIALIZABLE transaction, beside others or alone. Raises ``Contended``, ``Unavailable``."""
        with self._transaction(self._serial, before=self._turn if alone else contextlib.nullcontext) as connection:
            if not alone:
                connection.execute(_LOCK_SHARED, self._lock(_WRITING))
            if fenced:
                self._demand_fence(connection)
            yield connection

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the lock that all writers share, alone, from before the transaction's snapshot until its end.

        On a connection of its own, for a lock of the transaction would come after its snapshot; and taken once the
        transaction has its connection, for those who wait for the lock hold all the others.
        """
        with self._alone, self._guards.connect() as guard:
            guard.execute(text("SELECT pg_advisory_lock(:a, :b)"), self._lock(_WRITING))
            try:
                yield
            finally:
                guard.invalidate()  # the server drops the lock with the connection

    @contextlib.contextmanager
    def sequencing(self) -> Iterator[Connection]:
        """Run one transaction of which there is one at a time over all custodians."""
        with self._transaction(self._latest) as connection:
            connection.execute(_LOCK, self._lock(_SEQUENCING))
            yield connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Run one read-only transaction: a consistent snapshot."""
        with self._transaction(self._snapshot) as connection:
            yield connection

    @contextlib.contextmanager
    def _transaction(
        self, engine: Engine, before: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    ) -> Iterator[Connection]:
        if self._closed:
            msg = "store: closed"
            raise Unavailable(msg)
        with (
            database_faults(self._note),
            engine.connect() as connection,
            before(),
            connection.begin(),
        ):
            yield connection
        self._reachable = True

    def _note(self, error: Exception) -> None:
        """Remember whether the database could be reached at all; what it refused is no sign that it cannot."""
        self._reachable = not getattr(error, "connection_invalidated", False)

    def _demand_fence(self, connection: Connection) -> None:
        """Prove that the database is this custodian's, or nobody's yet (T39)."""
        fence = connection.execute(_FENCE).scalar_one_or_none()
        if fence is not None and bytes(fence) != self._fence:
            msg = "database: it belongs to another custodian"
            raise UsageError(msg, hint="each custodian has a database of its own; its processes share one vault")

    def _lock(self, which: int) -> dict[str, int]:
        """Return the two numbers of one of our advisory locks."""
        return {"a": self._locks, "b": which}

    def scrub(self) -> None:
        """Do nothing: dead rows go with the next vacuum, what was written ahead when the server reuses its segments."""

    def backup(self, path: Path) -> None:
        """Write every row, as of one moment, into a new SQLite file."""
        _copy_out(self._engine, path)

    def close(self) -> None:
        """Close every connection; nothing is written afterwards."""
        self._closed = True
        self._engine.dispose()
        self._guards.dispose()


@contextlib.contextmanager
def plain_engine(url: str) -> Iterator[Engine]:
    """Return connections to a database for its keeper, without the rules of a running custodian."""
    engine = _engine(parse_database_url(url), connections=0)
    try:
        yield engine
    finally:
        engine.dispose()


def copy_out(url: str, out: Path, records: Iterable[tuple[str, bytes]]) -> None:
    """Write every row, as of one moment, and records of variants into the new SQLite file ``out``.

    Also while custodians run.
    """
    with plain_engine(url) as engine:
        _copy_out(engine, out, records)


def _copy_out(engine: Engine, out: Path, records: Iterable[tuple[str, bytes]] | None = None) -> None:
    with new_private(out, hint=REPLACES_NOTHING):
        with file_engine(out) as target:
            carry(engine, target)
        if records is not None:
            enclose(out, records)


def _lock_class(connection: Connection) -> int:
    """Return which locks are ours: those of the schema, for custodians in schemas of one database share none.

    Advisory locks are the database's. The schema that every database has keeps the number that it always had.
    """
    schema = connection.exec_driver_sql("SELECT current_schema()").scalar_one()
    if schema is None:
        msg = "database: the schema on the search path does not exist"
        raise UsageError(msg, hint="create schema NAME authorization USER, as the database's keeper")
    if schema == _USUAL_SCHEMA:
        return _LOCK_CLASS
    return int.from_bytes(hashlib.sha256(f"cloister/{schema}".encode()).digest()[:4], "big", signed=True)


def _demand_server(connection: Connection, *, production: bool) -> None:
    """Prove that the server is new enough and keeps what it acknowledges."""
    version = int(connection.exec_driver_sql("SHOW server_version_num").scalar_one())
    if version < _OLDEST:
        msg = f"database: postgresql {version // 10_000}, want {_OLDEST // 10_000} or newer"
        raise UsageError(msg)
    off = [name for name in _DURABLE if connection.exec_driver_sql(f"SHOW {name}").scalar_one() != "on"]
    if off and production:
        msg = f"database: {' and '.join(off)} off"
        raise UsageError(msg, hint="a power loss would lose acknowledged commits; production refuses that")
    if off:
        # a power loss can lose what was acknowledged
        LOG.write(Event.DATABASE_NOT_DURABLE, state="+".join(off))


def _engine(url: URL, *, connections: int) -> Engine:
    """Return connections, each with our settings, from a pool of so many; each made anew for 0."""
    pool: dict[str, Any] = {"poolclass": NullPool}
    if connections:
        pool = {"poolclass": QueuePool, "pool_size": connections, "max_overflow": 0, "pool_timeout": _WAIT_S}
    try:
        engine = create_engine(
            url,
            hide_parameters=True,  # an error text never carries a value
            pool_pre_ping=connections > 0,  # a server that was restarted is noticed before a transaction, not in it
            **pool,
        )
    except (ImportError, NoSuchModuleError) as exc:
        msg = "database: the postgresql driver is not installed"
        raise UsageError(msg, hint="pip install 'cloister[postgres]'") from exc

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            for name, value in _SETTINGS.items():
                cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
        connection.commit()

    return engine
