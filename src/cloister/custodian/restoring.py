"""Putting a backup back, bringing the schema up to date, moving from one database to another.

What is put back may be older than what was there, and then the custodian does not start until ``recover`` (C10, C11);
this says which it is, before anybody tries. Nothing is replaced: a file that was there is kept beside it.
"""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.custodian.checkpoint import marks_at
from cloister.custodian.database import take_lock
from cloister.custodian.service.start import load_log, log_owner, verify_start
from cloister.custodian.store.backup import copy_file, demand_whole
from cloister.custodian.store.copying import carry, claim, file_engine, snapshot_of
from cloister.custodian.store.enclosed import drop_enclosed, enclosed
from cloister.custodian.store.migrations import MIGRATIONS, migrate, schema_version
from cloister.custodian.store.postgres import is_postgres, plain_engine
from cloister.custodian.variants import restore_variants
from cloister.errors import Rejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from sqlalchemy import Engine

    from cloister.crypto.sign import VerifyKey
    from cloister.custodian.config import Config
    from cloister.custodian.vaults import Vault

__all__ = ["Restored", "migrate_database", "move_database", "restore_database"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A backup that lies where the database was. ``older`` says what it lacks, empty where it lacks nothing.

    ``variants`` is how many of its records of variants were written, None where it is from before backups had any.
    """

    entries: int
    older: str
    variants: int | None
    kept: Path | None = None


def restore_database(home: Path, config: Config, source: Path, *, vault: Vault) -> Restored:
    """Put a backup where the settings say that the database is, and its records of variants beside it.

    The backup is proven whole, of this custodian and of no newer schema first. The records go first: done again after
    it was cut short, this writes what is missing. Raises ``UsageError``, ``Rejected``
    (``wrong_origin``, ``audit_broken``, ``audit_changed``, ``ledger_changed``), ``Malformed``, ``Unavailable``.
    """
    origin = vault.signing_key.verify_key
    with take_lock(home, config), tempfile.TemporaryDirectory(dir=home, prefix=".restore-") as folder:
        fresh = Path(folder) / "database"
        demand_whole(source)
        copy_file(source, fresh)
        with file_engine(fresh) as engine, engine.begin() as connection:
            migrate(connection)
            log = load_log(connection)
            owner = log_owner(connection)
        if owner != origin.raw:
            raise Rejected.because("wrong_origin", "backup", got=owner.hex()[:16], want=origin.raw.hex()[:16])
        older = _older(home, config, origin, fresh)
        written = restore_variants(home, vault, enclosed(fresh))
        variants = written if drop_enclosed(fresh) else None
        kept = None
        if config.is_shared:
            with file_engine(fresh) as full, plain_engine(config.database) as target:
                carry(full, target)
                claim(target, origin.raw)
        else:
            kept = _into_place(fresh, home / config.database)
    return Restored(entries=log.tree.size, older=older, variants=variants, kept=kept)


def _older(home: Path, config: Config, origin: VerifyKey, database: Path) -> str:
    with file_engine(database) as engine, snapshot_of(engine) as connection:
        log = load_log(connection)
    try:
        verify_start(log, marks_at(home / config.checkpoint, shared=config.is_shared), origin)
    except Rejected as exc:
        return exc.message
    return ""


def _into_place(fresh: Path, path: Path) -> Path | None:
    """Move the file into place; what was there goes beside it, with what belongs to it."""
    kept = None
    if path.exists():
        names = (path.with_name(f"{path.name}.{number}") for number in itertools.count(1))
        kept = next(name for name in names if not name.exists())
        for suffix in ("-wal", "-shm", ""):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(kept.with_name(kept.name + suffix))
    fresh.chmod(0o600)
    fresh.rename(path)
    return kept


def migrate_database(home: Path, config: Config, *, check: bool = False) -> tuple[int, int]:
    """Bring the schema up to date, or only look; return the versions before and after.

    Raises ``UsageError`` for a newer schema, ``Unavailable`` where a custodian has the file open.
    """
    with _engine(home, config.database) as engine:
        if check:
            with engine.connect() as connection:
                return schema_version(connection), len(MIGRATIONS)
        if config.is_shared:
            with engine.begin() as connection:
                return migrate(connection)
        with take_lock(home, config), engine.begin() as connection:
            return migrate(connection)


def move_database(
    home: Path, config: Config, target: str, *, progress: Callable[[int, int], None] | None = None
) -> int:
    """Carry every row into the empty database ``target``, a PostgreSQL URL or a new file; return how many.

    No custodian may run on the old one: the lock of the home is held. The settings are for the caller to change;
    started on the old database afterwards, a custodian is refused by the checkpoint as soon as the new one has written.
    """
    if not is_postgres(target) and (home / target).exists():
        msg = f"{home / target}: exists already"
        raise UsageError(msg, hint="choose another name: moving replaces nothing")
    with take_lock(home, config), _engine(home, config.database) as full, _engine(home, target) as fresh:
        with full.connect() as connection:
            if schema_version(connection) != len(MIGRATIONS):
                msg = "database: an older schema"
                raise UsageError(msg, hint="run cloister custodian migrate first")
            owner = log_owner(connection)
        copied = carry(full, fresh, progress)
        claim(fresh, owner)
        return copied


def _engine(home: Path, database: str) -> AbstractContextManager[Engine]:
    return plain_engine(database) if is_postgres(database) else file_engine(home / database)
