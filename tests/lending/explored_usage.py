"""Usage reports as the explorer sees them: what of a chain of records the protocol reads, and nothing else.

Records carry the minute they were made in. No decision over an honest chain hangs on it, so here they are all of
one minute: what two enclaves served in the same portions has the same head, whenever it was.
"""

from __future__ import annotations

from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING

from books import Violation
from custodian_fake import EPOCH_START

from cloister.errors import Rejected, Unavailable
from cloister.lending.receipt import GENESIS
from cloister.lending.state import InstanceStatus
from cloister.lending.usage_chain import UsageChain

if TYPE_CHECKING:
    from collections.abc import Hashable
    from datetime import datetime

    from custodian_fake import Db, MemoryCustodian

    from cloister.lending.lease import LeaseHolder
    from cloister.lending.state import InstanceState

_GRANTED = b"cloister.lease+json"


class Fate(Enum):
    """What becomes of the reports that are due."""

    HEARD = "brings its reports"
    UNHEARD = "brings a report, unheard"
    LOST = "brings a report, lost"


class TimelessChain(UsageChain):
    """A chain whose records are all of one minute."""

    def _forward(self, now: datetime) -> datetime:
        del now
        return EPOCH_START


def count_without_time(holder: LeaseHolder) -> LeaseHolder:
    """Give a fresh enclave a timeless chain."""
    holder._usage = TimelessChain(instance=holder.instance, loan=holder._terms.loan)
    return holder


def reports_due(holder: LeaseHolder) -> bool:
    """Tell whether there is a report to bring, made or to be made."""
    chain, pending = holder._usage, holder._pending
    if chain._made or pending is None or not chain._records:
        return bool(chain._made)
    return chain._records[0][0].index <= pending.served


def chain_key(chain: UsageChain) -> Hashable:
    made = tuple(item.last for item in chain._made)
    return (chain.index, chain.head, chain._reported, len(chain._records), made)


def reports_key(db: Db) -> Hashable:
    return tuple((name, tuple((item.first, item.last, item.head) for item in db.reports[name])) for name in db.reports)


def bring_reports(custodian: MemoryCustodian, holder: LeaseHolder, now: datetime, fate: Fate) -> None:
    """Bring what is due; stop where the custodian says no, or where nothing is heard."""
    with suppress(Rejected, Unavailable):
        while (statement := holder.report()) is not None and fate is not Fate.LOST:
            ack = custodian.report(holder.instance, statement, now)
            if fate is Fate.UNHEARD:
                return
            holder.acknowledge(ack)


def demand_reported(item: InstanceState, db: Db) -> None:
    """Prove that a lease was given only for what was reported (I9)."""
    if item.reply is None or item.status is InstanceStatus.CLOSED or _GRANTED not in item.reply:
        return
    if item.chain_head not in {GENESIS} | {report.head for report in db.reports.get(item.id, ())}:
        raise Violation("I9", "a lease for what was not reported")


__all__ = [
    "Fate",
    "TimelessChain",
    "bring_reports",
    "chain_key",
    "count_without_time",
    "demand_reported",
    "reports_due",
    "reports_key",
]
