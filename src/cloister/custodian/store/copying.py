"""All rows carried from one database to another of the same schema, as of one moment.

This is the backup of a PostgreSQL database (into a SQLite file), its restoration, and the way from SQLite to
PostgreSQL. Tables are copied in the order in which they refer to one another.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING
from urllib.parse import quote

from sqlalchemy import URL, create_engine, func, insert, inspect, select, text, update
from sqlalchemy.pool import NullPool

from cloister.custodian.store.dialects import POSTGRESQL
from cloister.custodian.store.faults import database_faults
from cloister.custodian.store.migrations import MIGRATIONS, migrate, schema_version
from cloister.custodian.store.tables import EPOCH, TABLES
from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Engine
    from sqlalchemy.sql.expression import TableClause

__all__ = ["beside", "carry", "claim", "demand_newest", "file_engine", "snapshot_of"]

_BATCH = 1000  # rows carried at once
_BUSY_S = 5


@contextlib.contextmanager
def file_engine(path: Path) -> Iterator[Engine]:
    """Return connections to a SQLite file that no custodian has open."""
    engine = create_engine(URL.create("sqlite", database=str(path)), hide_parameters=True, poolclass=NullPool)
    try:
        yield engine
    finally:
        engine.dispose()


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Connection]:
    """Run one read-only transaction on a SQLite file, whoever has it open to write. Raises ``UsageError``.

    The schema must be the newest: who brings it up to date is the custodian, or ``migrate``.
    """
    if not path.exists():
        msg = f"database {path}: no such file"
        raise UsageError(msg, hint="run cloister custodian init first")
    place = f"file:{quote(str(path.absolute()))}?mode=ro"
    engine = create_engine(
        "sqlite://", hide_parameters=True, poolclass=NullPool,
        creator=lambda: sqlite3.connect(place, uri=True, timeout=_BUSY_S),
    )  # fmt: skip
    try:
        with snapshot_of(engine) as connection:
            demand_newest(connection)
            yield connection
    finally:
        engine.dispose()


def demand_newest(connection: Connection) -> None:
    """Prove that a database has the newest schema. Raises ``UsageError``."""
    version = schema_version(connection)
    if version != len(MIGRATIONS):
        msg = f"database: schema version {version}, want {len(MIGRATIONS)}"
        raise UsageError(msg, hint="run cloister custodian migrate first")


@contextlib.contextmanager
def snapshot_of(engine: Engine) -> Iterator[Connection]:
    """Run one read-only transaction that sees one moment."""
    if engine.dialect.name == POSTGRESQL:
        engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with database_faults(), engine.connect() as connection, connection.begin():
        yield connection


def carry(source: Engine, target: Engine, progress: Callable[[int, int], None] | None = None) -> int:
    """Copy every row into a database without any; return how many. ``progress`` hears how many are done, of how many.

    Raises ``UsageError`` for a source of another schema and a target that is not empty, ``Unavailable``.
    """
    with snapshot_of(source) as full, database_faults(), target.begin() as fresh:
        demand_newest(full)
        _demand_empty(fresh)
        migrate(fresh)
        copied, total = 0, sum(_count(full, table) for table in TABLES)
        for table in TABLES:
            rows = full.execution_options(yield_per=_BATCH).execute(select(table))
            for batch in rows.mappings().partitions(_BATCH):
                fresh.execute(insert(table), [dict(row) for row in batch])
                copied += len(batch)
                if progress is not None:
                    progress(copied, total)
        if fresh.dialect.name == POSTGRESQL:
            _set_identities(fresh)
        return copied


def claim(target: Engine, owner: bytes) -> None:
    """Make a database that was carried over the custodian's with this key, in all its processes."""
    with database_faults(), target.begin() as connection:
        connection.execute(update(EPOCH).values(fence=owner))


def _demand_empty(target: Connection) -> None:
    there = set(inspect(target).get_table_names())
    for table in TABLES:
        if table.name in there and _count(target, table):
            msg = "database: not empty"
            raise UsageError(msg, hint="choose another one: copying replaces nothing")


def _count(connection: Connection, table: TableClause) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def _set_identities(target: Connection) -> None:
    """Let numbers that the database gives go on behind those that were copied."""
    columns = target.execute(
        text(
            "SELECT table_name, column_name FROM information_schema.columns "
            "WHERE is_identity = 'YES' AND table_schema = current_schema()"
        )
    )
    known = {table.name for table in TABLES}
    for name, column in columns.all():
        if name in known:
            target.exec_driver_sql(
                f"SELECT setval(pg_get_serial_sequence('{name}', '{column}'), "  # noqa: S608 - names of our own schema
                f"coalesce((SELECT max({column}) FROM {name}), 0) + 1, false)"
            )
