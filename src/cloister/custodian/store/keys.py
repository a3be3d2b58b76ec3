"""Rows of key-encryption keys, of their schedule, and of which wrapping each instance was given a key from.

Not done here: wrapping, and deciding when (``service.rotation``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, func, insert, select, update

from cloister.custodian.store.instances import MAX_LISTED
from cloister.custodian.store.tables import INSTANCE, KEK, RELEASED_KEY, ROTATION, moment, stamp
from cloister.lending.messages.keys import Behind
from cloister.lending.terms import InstanceId, LoanId, ModelDigest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row, Select

__all__ = [
    "FIRST_EPOCH",
    "KekRow",
    "ReleasedKeyRow",
    "Schedule",
    "behind",
    "current_kek",
    "destroy_kek",
    "find_kek",
    "insert_kek",
    "insert_released_key",
    "keks",
    "live_instances",
    "move_instance",
    "read_schedule",
    "released_keys",
    "released_to",
    "retire_keks",
    "retired_keks",
    "set_schedule",
]

FIRST_EPOCH = 1
"""The key epoch of the vault file's own key-encryption key, before any rotation."""

_NEWEST = select(func.coalesce(func.max(KEK.c.number), FIRST_EPOCH)).scalar_subquery()
_MOVE = (
    update(INSTANCE).where(INSTANCE.c.id == bindparam("of"), INSTANCE.c.key_epoch < _NEWEST).values(key_epoch=_NEWEST)
)
_CURRENT = select(KEK).order_by(KEK.c.number.desc()).limit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class KekRow:
    """One key-encryption key that a rotation made; ``wrapped`` is None once it is destroyed."""

    number: int
    id: str
    wrapped: bytes | None
    made_at: datetime
    retired_at: datetime | None = None
    destroyed_at: datetime | None = None


def _kek(row: Row[tuple[object, ...]]) -> KekRow:
    return KekRow(
        number=row.number,
        id=row.id,
        wrapped=row.wrapped,
        made_at=moment(row.made_at),
        retired_at=None if row.retired_at is None else moment(row.retired_at),
        destroyed_at=None if row.destroyed_at is None else moment(row.destroyed_at),
    )


def keks(connection: Connection) -> Sequence[KekRow]:
    """Return every key-encryption key that a rotation made, newest first, destroyed ones too."""
    return [_kek(row) for row in connection.execute(select(KEK).order_by(KEK.c.number.desc()))]


def current_kek(connection: Connection) -> KekRow | None:
    """Return the one in use, None where it is the vault file's own."""
    row = connection.execute(_CURRENT).one_or_none()
    return None if row is None else _kek(row)


def find_kek(connection: Connection, kek_id: str) -> KekRow | None:
    """Return the one of that name, None where no rotation made it."""
    row = connection.execute(select(KEK).where(KEK.c.id == kek_id)).one_or_none()
    return None if row is None else _kek(row)


def retired_keks(connection: Connection, before: datetime) -> Sequence[KekRow]:
    """Return those that were retired at ``before`` or earlier and are still held, newest first."""
    held = select(KEK).where(KEK.c.retired_at <= stamp(before), KEK.c.wrapped.is_not(None))
    return [_kek(row) for row in connection.execute(held.order_by(KEK.c.number.desc()))]


def insert_kek(connection: Connection, row: KekRow) -> None:
    """Write a new key-encryption key; it is the one in use from now on."""
    values = {"number": row.number, "id": row.id, "wrapped": row.wrapped, "made_at": stamp(row.made_at)}
    connection.execute(insert(KEK).values(values))


def retire_keks(connection: Connection, now: datetime) -> None:
    """Note that nothing is wrapped under any of them from now on."""
    connection.execute(update(KEK).where(KEK.c.retired_at.is_(None)).values(retired_at=stamp(now)))


def destroy_kek(connection: Connection, number: int, now: datetime) -> None:
    """Forget a key; that there was one stays."""
    connection.execute(update(KEK).where(KEK.c.number == number).values(wrapped=None, destroyed_at=stamp(now)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How often keys rotate by themselves, and when next."""

    every: timedelta
    next_at: datetime


def read_schedule(connection: Connection) -> Schedule | None:
    """Return the schedule, None where keys rotate by hand only."""
    row = connection.execute(select(ROTATION)).one_or_none()
    if row is None:
        return None
    return Schedule(every=timedelta(seconds=row.every_s), next_at=moment(row.next_at))


def set_schedule(connection: Connection, schedule: Schedule | None) -> None:
    """Write the schedule in place of the one before."""
    connection.execute(delete(ROTATION))
    if schedule is not None:
        values = {"every_s": int(schedule.every.total_seconds()), "next_at": stamp(schedule.next_at)}
        connection.execute(insert(ROTATION).values(id=1, **values))


def move_instance(connection: Connection, instance: InstanceId) -> None:
    """Note that a lease was granted in the newest key epoch."""
    connection.execute(_MOVE, {"of": instance})


def live_instances(connection: Connection, now: datetime) -> int:
    """Return how many instances may still serve."""
    query = select(func.count()).select_from(INSTANCE)
    return int(
        connection.execute(query.where(INSTANCE.c.written_off == 0, INSTANCE.c.dead_at > stamp(now))).scalar_one()
    )


def behind(connection: Connection, now: datetime, *, key_epoch: int, cap: int) -> tuple[Sequence[Behind], int]:
    """Return up to ``cap`` instances that may serve by a lease of an older key epoch, and how many there are."""
    live = (INSTANCE.c.written_off == 0, INSTANCE.c.dead_at > stamp(now), INSTANCE.c.key_epoch < key_epoch)
    count = int(connection.execute(select(func.count()).select_from(INSTANCE).where(*live)).scalar_one())
    query = select(INSTANCE.c.id, INSTANCE.c.loan, INSTANCE.c.key_epoch, INSTANCE.c.dead_at).where(*live)
    rows = connection.execute(query.order_by(INSTANCE.c.dead_at.desc(), INSTANCE.c.id).limit(cap))
    found = [
        Behind(instance=InstanceId(row.id), loan=LoanId(row.loan), key_epoch=row.key_epoch, dead_at=moment(row.dead_at))
        for row in rows
    ]
    return found, count


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedKeyRow:
    """Which wrapping of a model's key an instance was given the key from. ``envelope`` is a SHA-256."""

    instance: InstanceId
    model: ModelDigest
    envelope: bytes
    kek_id: str
    key_version: int
    at: datetime


def insert_released_key(connection: Connection, row: ReleasedKeyRow) -> None:
    """Keep where a key came from."""
    connection.execute(
        insert(RELEASED_KEY).values(
            instance=row.instance,
            model=row.model,
            envelope=row.envelope,
            kek_id=row.kek_id,
            key_version=row.key_version,
            at=stamp(row.at),
        )
    )


def released_keys(connection: Connection, loan: LoanId) -> Sequence[ReleasedKeyRow]:
    """Return the keys that were released to instances of this loan, newest first, up to a cap."""
    query = select(RELEASED_KEY).join_from(RELEASED_KEY, INSTANCE, RELEASED_KEY.c.instance == INSTANCE.c.id)
    return _released(connection, query.where(INSTANCE.c.loan == loan))


def released_to(connection: Connection, instance: InstanceId) -> Sequence[ReleasedKeyRow]:
    """Return the keys that were released to one instance, newest first, up to a cap."""
    return _released(connection, select(RELEASED_KEY).where(RELEASED_KEY.c.instance == instance))


def _released(connection: Connection, query: Select[Any]) -> Sequence[ReleasedKeyRow]:
    rows = connection.execute(query.order_by(RELEASED_KEY.c.id.desc()).limit(MAX_LISTED))
    return [
        ReleasedKeyRow(
            instance=InstanceId(row.instance),
            model=ModelDigest(row.model),
            envelope=bytes(row.envelope),
            kek_id=row.kek_id,
            key_version=row.key_version,
            at=moment(row.at),
        )
        for row in rows
    ]
