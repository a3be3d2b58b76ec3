"""Rows of active alarms: since when each is. They outlive a restart, and all custodians over a database share them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from cloister.custodian.store.tables import ALARM, moment, stamp

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from sqlalchemy import Connection

__all__ = ["active_alarms", "clear_alarm", "raise_alarm"]


def active_alarms(connection: Connection, places: Collection[str]) -> Mapping[tuple[str, str], datetime]:
    """Return every alarm of these places that was raised and not cleared, by code and place."""
    rows = connection.execute(select(ALARM).where(ALARM.c.place.in_(places)).order_by(ALARM.c.code, ALARM.c.place))
    return {(row.code, row.place): moment(row.since) for row in rows}


def raise_alarm(connection: Connection, code: str, place: str, now: datetime) -> None:
    """Write an alarm."""
    connection.execute(insert(ALARM).values(code=code, place=place, since=stamp(now)))


def clear_alarm(connection: Connection, code: str, place: str) -> None:
    """Forget an alarm."""
    connection.execute(delete(ALARM).where(ALARM.c.code == code, ALARM.c.place == place))
