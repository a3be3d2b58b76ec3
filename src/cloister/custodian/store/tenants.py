"""Rows of a host: which tenants there are, and the figures of one tenant that an operator may see."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select, update

from cloister.custodian.store.loans import credited_in_all
from cloister.custodian.store.tables import INSTANCE, LOAN, TENANT, moment, stamp
from cloister.custodian.tenants.names import TenantName
from cloister.lending.ledger import SPENT
from cloister.lending.state import InstanceStatus
from cloister.lending.terms import LOAN_METER

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

__all__ = [
    "TenantRow",
    "TenantState",
    "Totals",
    "drop_tenant",
    "find_tenant",
    "insert_tenant",
    "list_tenants",
    "move_tenant",
    "totals",
]


class TenantState(Enum):
    """What the operator last said of a tenant."""

    MAKING = "making"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    ERASING = "erasing"
    ERASED = "erased"


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantRow:
    """One tenant as the host knows it. ``discoverable``: its public routes are for strangers too."""

    name: TenantName
    state: TenantState
    discoverable: bool
    created_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """How much there is of what, and nothing of what it is."""

    loans: int
    live_instances: int
    units_served: int


def insert_tenant(connection: Connection, row: TenantRow) -> None:
    """Write a new tenant."""
    connection.execute(
        insert(TENANT).values(
            name=row.name, state=row.state.value, discoverable=int(row.discoverable),
            created_at=stamp(row.created_at), changed_at=stamp(row.changed_at),
        )
    )  # fmt: skip


def find_tenant(connection: Connection, name: TenantName) -> TenantRow | None:
    """Return the tenant of this name, also one that was erased."""
    return next(iter(list_tenants(connection, name)), None)


def list_tenants(connection: Connection, name: TenantName | None = None) -> Sequence[TenantRow]:
    """Return every tenant there is or was, by name."""
    query = select(TENANT).order_by(TENANT.c.name)
    return [
        TenantRow(
            name=TenantName(row.name),
            state=TenantState(row.state),
            discoverable=bool(row.discoverable),
            created_at=moment(row.created_at),
            changed_at=moment(row.changed_at),
        )
        for row in connection.execute(query if name is None else query.where(TENANT.c.name == name))
    ]


def move_tenant(connection: Connection, name: TenantName, state: TenantState, now: datetime) -> None:
    """Put a tenant into another state."""
    connection.execute(update(TENANT).where(TENANT.c.name == name).values(state=state.value, changed_at=stamp(now)))


def drop_tenant(connection: Connection, name: TenantName) -> None:
    """Forget a tenant that was never made whole."""
    connection.execute(delete(TENANT).where(TENANT.c.name == name, TENANT.c.state == TenantState.MAKING.value))


def totals(connection: Connection, now: datetime) -> Totals:
    """Return a tenant's own figures, from its own database."""
    alive = (INSTANCE.c.status == InstanceStatus.ACTIVE.value) & (INSTANCE.c.dead_at > stamp(now))
    return Totals(
        loans=int(connection.execute(select(func.count()).select_from(LOAN)).scalar_one()),
        live_instances=int(connection.execute(select(func.count()).select_from(INSTANCE).where(alive)).scalar_one()),
        units_served=credited_in_all(connection, SPENT, LOAN_METER),
    )
