"""Instances that can serve no more are written off (C8): by a timer, and before a usage statement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.service.debts import repay_booked
from cloister.custodian.store.instances import dead_instances, save_instance
from cloister.lending.ending import decide_write_off

if TYPE_CHECKING:
    from cloister.custodian.service.context import Context, Transaction

__all__ = ["sweep", "write_off_dead"]

_BATCH = 200  # instances written off in one transaction


def write_off_dead(transaction: Transaction) -> int:
    """Write off the dead; returns how many there were."""
    rows = dead_instances(transaction.connection, transaction.now, cap=_BATCH)
    for row in rows:
        ended = decide_write_off(row.state, now=transaction.now)
        if ended is not None:
            save_instance(transaction.connection, ended.instance)
            transaction.post(ended.postings)
            transaction.record_all(ended.events)
            repay_booked(transaction, row.state.loan, ended.postings)
    return len(rows)


def sweep(context: Context) -> int:
    """Write off the dead, where there are any, and order what a custodian that died has left waiting."""
    if context.store.shared:
        context.sequence()
    with context.reading() as connection:
        waiting = dead_instances(connection, context.now(), cap=1)
    if not waiting:
        return 0
    return context.transact(write_off_dead)
