"""The database that a home's settings name: a SQLite file in the home, or a PostgreSQL that several custodians share.

Not done here: putting a backup back and moving from one database to another (``restoring``), what the rows mean.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

from cloister.custodian.lock import HomeLock
from cloister.custodian.store.backup import back_up, last_bundle
from cloister.custodian.store.book import initialise_epoch
from cloister.custodian.store.copying import beside, demand_newest, snapshot_of
from cloister.custodian.store.postgres import PostgresStore, copy_out, plain_engine
from cloister.custodian.store.releases import accepted_bundle
from cloister.custodian.store.sqlite import SqliteStore
from cloister.custodian.variants import variant_files
from cloister.errors import UsageError
from cloister.private_file import write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Connection

    from cloister.attest.endorse.bundle import Accepted
    from cloister.custodian.config import Config
    from cloister.custodian.store import Store

__all__ = ["accepted_before", "back_up_database", "open_store", "reading_beside", "take_lock"]


def take_lock(home: Path, config: Config) -> HomeLock:
    """Take what keeps a second process out: of the home, or of a checkpoint where processes share a database (T39).

    Each process has a checkpoint of its own: two that wrote one file could set it back. Raises ``Unavailable``.
    """
    if not config.is_shared:
        return HomeLock(home / "lock")
    return HomeLock((home / config.checkpoint).with_suffix(".lock"))


def open_store(
    home: Path,
    config: Config,
    *,
    fence: bytes,
    identity: bytes,
    new_at: datetime | None = None,
    make_store: Callable[..., Store] = SqliteStore,
) -> Store:
    """Open the database; ``new_at`` makes it and says when. ``make_store`` takes the place of ``SqliteStore``.

    ``fence`` is fresh for each process that has a file to itself, ``identity`` the custodian's own key, the same in
    all processes that share a database. Raises ``UsageError``, ``Unavailable``.
    """
    if config.is_shared:
        fence = identity
        store: Store = PostgresStore(
            config.database, fence=identity, production=config.is_production,
            connections=config.database_connections,
        )  # fmt: skip
    else:
        store = _open_file(
            home / config.database, fence, new=new_at is not None, make_store=_bounded(make_store, config)
        )
    if new_at is not None:
        try:
            with store.writing(fenced=False) as connection:
                initialise_epoch(connection, fence=fence, now=new_at)
        except BaseException:
            store.close()
            raise
    return store


def _bounded(make_store: Callable[..., Store], config: Config) -> Callable[..., Store]:
    return partial(make_store, cap_mib=config.database_mib) if config.database_mib else make_store


def _open_file(path: Path, fence: bytes, *, new: bool, make_store: Callable[..., Store]) -> Store:
    if not new and not path.exists():
        msg = f"database {path}: no such file"
        raise UsageError(msg, hint="restore the database; init makes a new custodian elsewhere")
    if new:
        write_private(path, b"", hint="a new custodian makes its own database")  # its owner's alone from the start
    store = make_store(path, fence=fence)
    path.chmod(0o600)
    return store


def back_up_database(home: Path, config: Config, out: Path) -> int:
    """Copy the database, and the home's records of variants, into a new SQLite file; return its size in bytes.

    Also while custodians run. A variant that is sealed meanwhile is in it or not, as a row would be.
    """
    if not config.is_shared:
        return back_up(home / config.database, out, variant_files(home))
    copy_out(config.database, out, variant_files(home))
    return out.stat().st_size


@contextlib.contextmanager
def reading_beside(home: Path, config: Config) -> Iterator[Connection]:
    """Run one read-only transaction on the database, also while the custodian runs. Raises ``UsageError``."""
    if not config.is_shared:
        with beside(home / config.database) as connection:
            yield connection
        return
    with plain_engine(config.database) as engine, snapshot_of(engine) as connection:
        demand_newest(connection)
        yield connection


def accepted_before(home: Path, config: Config) -> Accepted | None:
    """Return the newest bundle of endorsements that the custodian accepted, also while it runs."""
    if not config.is_shared:
        return last_bundle(home / config.database)
    with plain_engine(config.database) as engine, snapshot_of(engine) as connection:
        return accepted_bundle(connection)
