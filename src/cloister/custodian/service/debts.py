"""What a loan owes for overdrafts, and paying it from its allowances (docs/spec/voucher.md, section 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.store.loans import account_balances, balances_of
from cloister.custodian.tokens import SYSTEM
from cloister.lending.events import EventKind
from cloister.lending.ledger import OVERDRAFT, repay

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from cloister.custodian.service.context import Transaction
    from cloister.lending.ledger import Posting
    from cloister.lending.terms import LoanId, Meter

__all__ = ["owed", "repay_booked", "repay_owed"]


def owed(connection: Connection, loan: LoanId) -> dict[Meter, int]:
    """Return the units that a loan owes per meter, where it owes any."""
    sums = account_balances(connection, loan, (OVERDRAFT,))
    return {meter: -units for (meter, _), units in sums.items() if units < 0}


def repay_booked(transaction: Transaction, loan: LoanId, postings: Iterable[Posting]) -> None:
    """Pay what is owed where ``postings``, just made, have booked an overdraft; else nothing is looked up."""
    if any(posting.debit_account == OVERDRAFT for posting in postings):
        repay_owed(transaction, loan)


def repay_owed(transaction: Transaction, loan: LoanId) -> None:
    """Pay what is owed as far as the allowances go: a top-up pays debts first."""
    debts = owed(transaction.connection, loan)
    if not debts:
        return
    balances = balances_of(transaction.connection, loan)
    for meter, units in debts.items():
        for posting in repay(loan, meter, balance=balances.get(meter, 0), owed=units):
            transaction.post([posting])
            transaction.record(EventKind.OVERDRAFT_REPAID, SYSTEM, loan, meter=meter, units=posting.units)
