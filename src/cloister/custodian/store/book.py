"""Rows about the custodian itself: its epoch, remembered answers, TPM devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select, update

from cloister.custodian.store.tables import DEVICE, ENROLMENT, EPOCH, IDEMPOTENCY, moment, stamp
from cloister.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

__all__ = [
    "Answer",
    "DeviceRow",
    "EpochRow",
    "find_answer",
    "initialise_epoch",
    "insert_answer",
    "insert_device",
    "insert_enrolment",
    "list_devices",
    "open_enrolments",
    "purge_answers",
    "raise_epoch",
    "read_epoch",
    "take_enrolment",
]


_EPOCH = select(EPOCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRow:
    """Where the custodian stands in its own history. ``latest`` is when it began; since then the log's head knows."""

    epoch: int
    latest: datetime
    quiet_until: datetime | None
    block_version: int


def initialise_epoch(connection: Connection, *, fence: bytes, now: datetime) -> None:
    """Write the first row of a new custodian."""
    connection.execute(
        insert(EPOCH).values(id=1, epoch=1, fence=fence, latest=stamp(now), quiet_until=0, block_version=0)
    )


def read_epoch(connection: Connection) -> EpochRow:
    """Return the row. Raises ``Unavailable`` for a database nobody initialised."""
    row = connection.execute(_EPOCH).one_or_none()
    if row is None:
        msg = "store: the database belongs to no custodian yet"
        raise Unavailable(msg, hint="restore a backup; a new custodian is made by cloister custodian init elsewhere")
    return EpochRow(
        epoch=row.epoch,
        latest=moment(row.latest),
        quiet_until=moment(row.quiet_until) if row.quiet_until else None,
        block_version=row.block_version,
    )


def raise_epoch(connection: Connection, *, epoch: int, block_version: int, quiet_until: datetime) -> None:
    """Begin a new epoch after a recovery (C11)."""
    connection.execute(update(EPOCH).values(epoch=epoch, block_version=block_version, quiet_until=stamp(quiet_until)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A remembered answer, wrapped by the vault, and the digest of what it answered."""

    digest: bytes
    answer: bytes


def find_answer(connection: Connection, actor: str, key: str, now: datetime) -> Answer | None:
    """Return the answer this actor got under this Idempotency-Key."""
    row = connection.execute(
        select(IDEMPOTENCY).where(
            IDEMPOTENCY.c.actor == actor, IDEMPOTENCY.c.key == key, IDEMPOTENCY.c.expires_at > stamp(now)
        )
    ).one_or_none()
    return None if row is None else Answer(digest=row.digest, answer=row.answer)


def insert_answer(connection: Connection, actor: str, key: str, answer: Answer, expires_at: datetime) -> None:
    """Remember an answer."""
    connection.execute(
        insert(IDEMPOTENCY).values(
            actor=actor, key=key, digest=answer.digest, answer=answer.answer, expires_at=stamp(expires_at)
        )
    )


def purge_answers(connection: Connection, now: datetime) -> None:
    """Forget answers that are too old."""
    connection.execute(delete(IDEMPOTENCY).where(IDEMPOTENCY.c.expires_at <= stamp(now)))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """One enrolled TPM device."""

    id: str
    ak_sha256: bytes
    certificate: bytes
    enrolled_at: datetime


def insert_enrolment(connection: Connection, enrolment: str, device: str, pending: bytes, expires_at: datetime) -> None:
    """Remember an enrolment that waits for its secret. ``pending`` is wrapped by the vault."""
    connection.execute(
        insert(ENROLMENT).values(id=enrolment, device=device, pending=pending, expires_at=stamp(expires_at))
    )


def take_enrolment(connection: Connection, enrolment: str, now: datetime) -> tuple[str, bytes] | None:
    """Use an enrolment up and return its device and what is pending; None for unknown and for expired."""
    row = connection.execute(select(ENROLMENT).where(ENROLMENT.c.id == enrolment)).one_or_none()
    connection.execute(delete(ENROLMENT).where((ENROLMENT.c.id == enrolment) | (ENROLMENT.c.expires_at <= stamp(now))))
    return None if row is None or row.expires_at <= stamp(now) else (row.device, row.pending)


def open_enrolments(connection: Connection, now: datetime) -> int:
    """Return how many enrolments wait for their secret."""
    query = select(func.count()).select_from(ENROLMENT).where(ENROLMENT.c.expires_at > stamp(now))
    return int(connection.execute(query).scalar_one())


def insert_device(connection: Connection, device: DeviceRow) -> None:
    """Write an enrolled device; a second enrolment of the same device replaces its certificate."""
    connection.execute(delete(DEVICE).where(DEVICE.c.id == device.id))
    connection.execute(
        insert(DEVICE).values(
            id=device.id,
            ak_sha256=device.ak_sha256,
            certificate=device.certificate,
            enrolled_at=stamp(device.enrolled_at),
        )
    )


def list_devices(connection: Connection) -> Sequence[DeviceRow]:
    """Return every enrolled device, oldest first."""
    return [
        DeviceRow(id=row.id, ak_sha256=row.ak_sha256, certificate=row.certificate, enrolled_at=moment(row.enrolled_at))
        for row in connection.execute(select(DEVICE).order_by(DEVICE.c.enrolled_at, DEVICE.c.id))
    ]
