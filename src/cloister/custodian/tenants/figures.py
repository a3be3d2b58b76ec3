"""What an operator sees of a tenant: name, state, health, and how much there is of what. Nothing of what it is.

No loan, borrower, consumer, model, digest, policy, token or log entry is read to be shown, here or anywhere else in
the operator's API; the figures are counts and sizes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cloister.custodian.store.tenants import TenantState, totals
from cloister.custodian.tenants.roster import Health, cause_of
from cloister.wire import dump_time

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.custodian.service import CustodianService
    from cloister.custodian.store.tenants import TenantRow
    from cloister.custodian.tenants.roster import Tenant
    from cloister.wire import Json

__all__ = ["shown"]


def shown(row: TenantRow, tenant: Tenant | None, url: str) -> dict[str, Json]:
    """Return a tenant for its operator; totals are null while it does not run."""
    health, cause, figures = _state_of(tenant)
    return {
        "cause": cause,
        "changed_at": dump_time(row.changed_at),
        "created_at": dump_time(row.created_at),
        "discoverable": row.discoverable,
        "disk_bytes": 0 if tenant is None or row.state is TenantState.ERASED else _disk_bytes(tenant.home),
        "health": health.value,
        "name": row.name,
        "state": row.state.value,
        "totals": figures,
        "url": url,
    }


def _state_of(tenant: Tenant | None) -> tuple[Health, str, Json]:
    """Return health, cause and totals; a tenant that cannot say is not well."""
    if tenant is None:
        return Health.STOPPED, "", None
    running = tenant.running
    if running is None:
        return tenant.health, tenant.cause, None
    try:
        if running.service.context.store.is_writable:
            return tenant.health, tenant.cause, _totals(running.service)
    except Exception as exc:  # noqa: BLE001 - an edge: what is wrong with one hides none of the others
        return Health.FAILED, cause_of(exc), None
    return Health.FAILED, "unavailable", None


def _totals(service: CustodianService) -> Json:
    with service.context.reading() as connection:
        found = totals(connection, service.context.now())
    return {
        "live_instances": found.live_instances,
        "loans": found.loans,
        "log_entries": service.context.size,
        "units_served": found.units_served,
    }


def _disk_bytes(home: Path) -> int:
    """Return what the files of a home take; one that is deleted meanwhile takes nothing."""
    total = 0
    for folder, _folders, files in os.walk(home):
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118 - thousands of them, as text
            except FileNotFoundError:
                continue
    return total
