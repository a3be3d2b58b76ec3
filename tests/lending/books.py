"""The custodian's books followed posting by posting: I2, I4 and I5 of its database, at the cost of what is new.

A ledger only grows and values are frozen, so what was added up once stays added up. ``Books.of`` adds up
a database from nothing: whoever followed one must have come to the same.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from cloister.lending.ledger import ALLOWANCE, ISSUED, SPENT, WITHDRAWN, WRITTEN_OFF, escrow
from cloister.lending.terms import unserved_cap

if TYPE_CHECKING:
    from collections.abc import Iterable

    from custodian_fake import Db

    from cloister.lending.ledger import Account, Posting
    from cloister.lending.state import InstanceState, LoanState
    from cloister.lending.terms import InstanceId, LoanId, Meter

_OWN = frozenset((ISSUED, ALLOWANCE, SPENT, WITHDRAWN, WRITTEN_OFF))


class Violation(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


@dataclass
class Books:
    """Sums over one database, and the values they were taken from."""

    accounts: dict[tuple[LoanId, Meter], dict[Account, int]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(int))
    )
    lost: dict[tuple[LoanId, Meter], int] = field(default_factory=lambda: defaultdict(int))
    limits: dict[tuple[LoanId, Meter], int] = field(default_factory=lambda: defaultdict(int))
    loans: dict[LoanId, LoanState] = field(default_factory=dict)
    instances: dict[InstanceId, InstanceState] = field(default_factory=dict)
    seen: int = 0
    last: Posting | None = None
    epoch: int = 0
    block_version: int = 0

    @classmethod
    def of(cls, db: Db) -> Self:
        """Return the proven books of this database. Raises ``Violation``."""
        books = cls()
        books.follow(db)
        return books

    def follow(self, db: Db) -> tuple[InstanceState, ...]:
        """Prove what is new since the last time, and return the instances that changed. Raises ``Violation``."""
        touched, accounts = self._add(db)
        changed = tuple(item for item in db.instances.values() if item is not self.instances.get(item.id))
        self._demand_forward(db)
        for item in changed:
            self._take(item)
            touched |= {(item.loan, meter) for meter in item.limits}
            accounts |= {(item.loan, meter, escrow(item.id)) for meter in item.limits}
        for loan, state in db.loans.items():
            if state is not self.loans.get(loan):
                touched |= {(loan, meter) for meter in state.balances}
        for key in touched:
            self._demand_balanced(db, *key)
        for loan, meter, account in accounts:
            self._demand_escrow(db, loan, meter, account)
        self._demand_small_loss(changed, db)
        self.loans, self.instances = db.loans, db.instances
        self.epoch, self.block_version = db.epoch, db.block_version
        return changed

    def _add(self, db: Db) -> tuple[set[tuple[LoanId, Meter]], set[tuple[LoanId, Meter, Account]]]:
        """Add the new postings, in their order; no account but ``issued`` may fall below zero (I5)."""
        if len(db.postings) < self.seen or (self.seen and db.postings[self.seen - 1] is not self.last):
            raise Violation("I5", "the ledger went back")
        touched, accounts = set(), set()
        for posting in db.postings[self.seen :]:
            loan, meter = key = posting.loan, posting.meter
            sums = self.accounts[key]
            sums[posting.credit_account] += posting.units
            sums[posting.debit_account] -= posting.units
            if posting.debit_account != ISSUED and sums[posting.debit_account] < 0:
                raise Violation("I5", f"{meter}: {posting.debit_account} at {sums[posting.debit_account]}")
            if (posting.debit_account, posting.credit_account) == (ALLOWANCE, WRITTEN_OFF):
                self.lost[key] += posting.units
            touched.add(key)
            accounts |= {(loan, meter, name) for name in (posting.debit_account, posting.credit_account)} - {
                (loan, meter, name) for name in _OWN
            }
        self.seen = len(db.postings)
        self.last = db.postings[-1] if db.postings else None
        return touched, accounts

    def _demand_forward(self, db: Db) -> None:
        if db.epoch < self.epoch or db.block_version < self.block_version:
            raise Violation("I5", "epoch or block version went back")
        if not self.instances.keys() <= db.instances.keys():
            raise Violation("I5", "an instance is gone")

    def _take(self, after: InstanceState) -> None:
        """Prove that what an instance counts only grew (I5), and add its ceilings."""
        before = self.instances.get(after.id)
        old_limits = {} if before is None else before.limits
        for meter, limit in after.limits.items():
            self.limits[after.loan, meter] += limit - old_limits.get(meter, 0)
        counts = [after.seq, after.epoch, *after.limits.values(), *after.used.values()]
        back = min(counts) < 0
        if before is not None:
            back |= after.seq < before.seq or after.epoch < before.epoch
            back |= any(after.limits.get(meter, 0) < units for meter, units in before.limits.items())
            back |= any(after.used.get(meter, 0) < units for meter, units in before.used.items())
        if back:
            raise Violation("I5", f"instance {after.id[:8]}: seq, limit or used went back")

    def _demand_balanced(self, db: Db, loan: LoanId, meter: Meter) -> None:
        """Prove balance + sum of limits + written off = granted, in the ledger's own words too (I2)."""
        sums = self.accounts[loan, meter]
        balance, limits, lost = db.loans[loan].balances[meter], self.limits[loan, meter], self.lost[loan, meter]
        total = -sums[ISSUED] - sums[WITHDRAWN]
        if balance < 0:
            raise Violation("I5", f"{meter}: balance {balance}")
        if balance + limits + lost != total:
            raise Violation("I2", f"{meter}: {balance} + {limits} + {lost} is not {total}")
        if sums[ALLOWANCE] != balance:
            raise Violation("I2", f"{meter}: the ledger's allowance is not the balance {balance}")

    def _demand_escrow(self, db: Db, loan: LoanId, meter: Meter, account: Account) -> None:
        """Prove that an account which is not the loan's own is the escrow of an instance, and holds its rest (I2)."""
        item = db.instances.get(account.removeprefix("escrow:"))  # type: ignore[call-overload]  # a name to look up
        if item is None or item.loan != loan or account != escrow(item.id):
            raise Violation("I2", f"{meter}: units in {account}")
        held = 0 if item.written_off else item.limits.get(meter, 0) - item.used.get(meter, 0)
        if self.accounts[loan, meter][account] != held:
            raise Violation("I2", f"{meter}: the ledger's escrow is not {held}")

    def _demand_small_loss(self, changed: Iterable[InstanceState], db: Db) -> None:
        """Prove that the end of one of these instances loses no more than N (I4)."""
        for item in changed:
            cap = unserved_cap(db.loans[item.loan].terms)
            for meter, limit in item.limits.items():
                left = limit - item.used.get(meter, 0)
                if left > cap:
                    raise Violation("I4", f"{meter}: one crash loses {left}, more than {cap}")


__all__ = ["Books", "Violation"]
