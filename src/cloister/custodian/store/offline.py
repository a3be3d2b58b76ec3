"""Rows of vouchers, consumption statements and tickets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select

from cloister.custodian.store.tables import CONSUMPTION, TICKET, VOUCHER, stamp
from cloister.lending.messages import Consumption
from cloister.lending.ticket_grant import TicketState
from cloister.lending.voucher_grant import Issued

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from cloister.lending.terms import InstanceId

__all__ = [
    "find_ticket",
    "insert_voucher",
    "is_voucher",
    "last_consumption",
    "last_voucher",
    "save_consumption",
    "save_ticket",
]


def insert_voucher(
    connection: Connection, instance: InstanceId, issued: Issued, *, digest: bytes, now: datetime
) -> None:
    """Write a signed voucher; ``digest`` is SHA-256 over its payload."""
    connection.execute(
        insert(VOUCHER).values(
            instance=instance,
            seq=issued.seq,
            req_digest=issued.req_digest,
            digest=digest,
            reply=issued.reply,
            issued_at=stamp(now),
        )
    )


def last_voucher(connection: Connection, instance: InstanceId) -> Issued | None:
    """Return the voucher of an instance with the largest number."""
    largest = select(func.max(VOUCHER.c.seq)).where(VOUCHER.c.instance == instance).scalar_subquery()
    row = connection.execute(
        select(VOUCHER).where(VOUCHER.c.instance == instance, VOUCHER.c.seq == largest)
    ).one_or_none()
    return None if row is None else Issued(seq=row.seq, req_digest=row.req_digest, reply=row.reply)


def is_voucher(connection: Connection, instance: InstanceId, digest: bytes) -> bool:
    """Tell whether a voucher with this payload was signed for this instance."""
    query = select(VOUCHER.c.seq).where(VOUCHER.c.instance == instance, VOUCHER.c.digest == digest)
    return connection.execute(query).one_or_none() is not None


def last_consumption(connection: Connection, instance: InstanceId) -> Consumption | None:
    """Return the consumption statement of an instance with the largest number so far."""
    row = connection.execute(select(CONSUMPTION).where(CONSUMPTION.c.instance == instance)).one_or_none()
    return None if row is None else Consumption.parse(row.statement)


def save_consumption(connection: Connection, statement: Consumption, now: datetime) -> None:
    """Keep a consumption statement in the place of the one before."""
    connection.execute(delete(CONSUMPTION).where(CONSUMPTION.c.instance == statement.instance))
    connection.execute(
        insert(CONSUMPTION).values(instance=statement.instance, statement=statement.dump(), at=stamp(now))
    )


def find_ticket(connection: Connection, instance: InstanceId) -> TicketState:
    """Return the latest ticket of an instance; the state of none where there was none."""
    row = connection.execute(select(TICKET).where(TICKET.c.instance == instance)).one_or_none()
    if row is None:
        return TicketState()
    return TicketState(index=row.idx, req_digest=row.req_digest, reply=row.reply, units=row.units)


def save_ticket(connection: Connection, instance: InstanceId, state: TicketState) -> None:
    """Keep the latest ticket of an instance in the place of the one before."""
    connection.execute(delete(TICKET).where(TICKET.c.instance == instance))
    connection.execute(
        insert(TICKET).values(
            instance=instance, idx=state.index, req_digest=state.req_digest, reply=state.reply, units=state.units
        )
    )
