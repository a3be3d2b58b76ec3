"""Letting entries go whose period is over: bodies are dropped, hashes stay, and one entry says what was taken.

Whether a second person must agree is said by the route (``routes.duties``).
"""

from __future__ import annotations

from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING

from cloister.custodian.service.holds import holds_entry
from cloister.custodian.store.retention import bodies_before, list_holds, next_pruning, prune
from cloister.custodian.store.veils import destroy_openings
from cloister.lending.audit import AuditEntry
from cloister.lending.events import EventKind
from cloister.lending.merkle import leaf_hash
from cloister.lending.pruning import pruning_digest
from cloister.lending.retention import Retention, retention_of
from cloister.wire import dump_time

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from cloister.custodian.config import Config
    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.tokens import Actor
    from cloister.wire import Fields, Json

__all__ = ["due_list", "periods", "prune_log"]


def periods(config: Config) -> dict[Retention, timedelta]:
    """Return how long each class is kept; one that is kept for ever is not in it."""
    days = {
        Retention.SECURITY: config.audit_security_days,
        Retention.BILLING: config.audit_billing_days,
        Retention.ACCESS: config.audit_access_days,
        Retention.OPERATIONAL: config.audit_operational_days,
    }
    return {kept: timedelta(days=count) for kept, count in days.items() if count}


def due_list(context: Context, *, most: int | None = None) -> Json:
    """Return the periods, and how many entries of each class could be pruned now: of all, or of the ``most`` oldest."""
    with context.reading() as connection:
        due, held = _due(connection, context.config, context.now(), most=most)
    lasting = periods(context.config)
    return {
        "classes": [
            {
                "class": kept.value,
                "days": lasting[kept].days if kept in lasting else 0,
                "due": len(due.get(kept, [])),
                "held": held.get(kept, 0),
            }
            for kept in Retention
        ]
    }


def prune_log(transaction: Transaction, actor: Actor, body: Fields) -> Json:
    """Drop the bodies of all entries whose period is over and that no hold keeps. Takes no members."""
    body.end()
    connection, config = transaction.connection, transaction.context.config
    due, held = _due(connection, config, transaction.now)
    taken: dict[str, Json] = {}
    for kept, entries in sorted(due.items(), key=lambda item: item[0].value):
        number = next_pruning(connection)
        transaction.destroying()
        destroy_openings(connection, (digest for entry in entries for digest in entry.committed.values()))
        gone = [(entry.index, leaf_hash(entry.dump())) for entry in entries]
        prune(connection, number, gone)
        transaction.record(
            EventKind.LOG_PRUNED, actor, "log",
            before=dump_time(transaction.now - periods(config)[kept]), first=gone[0][0], kind=kept.value,
            last=gone[-1][0], root=pruning_digest(gone), seq=number, size=len(gone),
        )  # fmt: skip
        taken[kept.value] = len(gone)
    return {"held": sum(held.values()), "pruned": taken}


def _due(
    connection: Connection, config: Config, now: datetime, *, most: int | None = None
) -> tuple[dict[Retention, list[AuditEntry]], dict[Retention, int]]:
    """Return the entries of each class that may go, and how many more a hold keeps; at most ``most`` are looked at."""
    due: dict[Retention, list[AuditEntry]] = {}
    held: dict[Retention, int] = {}
    lasting = periods(config)
    if not lasting:
        return due, held
    holds = list_holds(connection, standing=True)
    for _, at, line in islice(bodies_before(connection, now - min(lasting.values())), most):
        entry = AuditEntry.parse(line)
        kept = retention_of(entry.kind)
        if kept not in lasting or at >= now - lasting[kept]:
            continue
        if holds_entry(holds, entry):
            held[kept] = held.get(kept, 0) + 1
        else:
            due.setdefault(kept, []).append(entry)
    return due, held
