"""Rows of TPM devices: what is enrolled, what was retired, and enrolments that wait for their secret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select, update

from cloister.custodian.store.tables import DEVICE, ENROLMENT, INSTANCE, moment, stamp
from cloister.lending.terms import InstanceId

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

__all__ = [
    "DeviceRow",
    "device_of",
    "find_device",
    "insert_device",
    "insert_enrolment",
    "instances_on",
    "list_devices",
    "name_device",
    "note_device",
    "open_enrolments",
    "readmit_device",
    "retire_device",
    "take_enrolment",
]

_NO_KEY = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """One TPM device. ``ak_sha256`` is empty where no attestation key of it counts: it must enrol first.

    ``retired_at`` None: not retired. ``reason`` is of the last retirement.
    """

    id: str
    ak_sha256: bytes
    certificate: bytes
    enrolled_at: datetime
    label: str = ""
    maker: str = ""
    retired_at: datetime | None = None
    reason: str = ""

    @property
    def state(self) -> str:
        """How it stands, in one word."""
        if self.retired_at is not None:
            return "retired"
        return "enrolled" if self.ak_sha256 else "awaited"


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
    """Write an enrolled device; a second enrolment of the same device replaces its key, and keeps its name."""
    known = find_device(connection, device.id)
    connection.execute(delete(DEVICE).where(DEVICE.c.id == device.id))
    connection.execute(
        insert(DEVICE).values(
            id=device.id,
            ak_sha256=device.ak_sha256,
            certificate=device.certificate,
            enrolled_at=stamp(device.enrolled_at),
            label=device.label if known is None else known.label,
            maker=device.maker,
            reason="",
        )
    )


def find_device(connection: Connection, device: str) -> DeviceRow | None:
    """Return one device."""
    row = connection.execute(select(DEVICE).where(DEVICE.c.id == device)).one_or_none()
    return None if row is None else _device(row)


def list_devices(connection: Connection) -> Sequence[DeviceRow]:
    """Return every device that ever enrolled, oldest first."""
    return [_device(row) for row in connection.execute(select(DEVICE).order_by(DEVICE.c.enrolled_at, DEVICE.c.id))]


def _device(row: Row[Any]) -> DeviceRow:
    return DeviceRow(
        id=row.id,
        ak_sha256=bytes(row.ak_sha256),
        certificate=bytes(row.certificate),
        enrolled_at=moment(row.enrolled_at),
        label=row.label,
        maker=row.maker,
        retired_at=None if row.retired_at is None else moment(row.retired_at),
        reason=row.reason,
    )


def name_device(connection: Connection, device: str, label: str) -> None:
    """Give a device a name for people."""
    connection.execute(update(DEVICE).where(DEVICE.c.id == device).values(label=label))


def retire_device(connection: Connection, device: str, reason: str, now: datetime) -> None:
    """Note that a device gets nothing any more. Its key counts no more either, should it come back."""
    values = {"retired_at": stamp(now), "reason": reason, "ak_sha256": _NO_KEY}
    connection.execute(update(DEVICE).where(DEVICE.c.id == device).values(values))


def readmit_device(connection: Connection, device: str) -> None:
    """Let a device enrol again."""
    connection.execute(update(DEVICE).where(DEVICE.c.id == device).values(retired_at=None))


def note_device(connection: Connection, instance: InstanceId, device: str) -> None:
    """Note on which device an instance attested."""
    connection.execute(update(INSTANCE).where(INSTANCE.c.id == instance).values(device=device))


def device_of(connection: Connection, instance: InstanceId) -> str | None:
    """Return the device that an instance attested on, None where it named none of ours."""
    return connection.execute(select(INSTANCE.c.device).where(INSTANCE.c.id == instance)).scalar() or None


def instances_on(connection: Connection, device: str) -> Sequence[InstanceId]:
    """Return the instances of a device that are not written off."""
    query = select(INSTANCE.c.id).where(INSTANCE.c.device == device, INSTANCE.c.written_off == 0)
    return [InstanceId(row.id) for row in connection.execute(query.order_by(INSTANCE.c.id))]
