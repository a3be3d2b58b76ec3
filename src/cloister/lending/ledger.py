"""The ledger: where every unit of every meter went, in double entry (docs/spec/lease.md, section "Ledger").

A posting moves units out of ``debit_account`` into ``credit_account`` of one meter of one loan, so that
what leaves one account always arrives in another: nothing is made or lost, only moved. The allowance
is debited when a ceiling is raised (escrow), never when use is reported.

    issued -> allowance -> escrow:INSTANCE -> spent
                        -> withdrawn        -> written_off
                        -> overdraft -> escrow:INSTANCE

Only ``issued`` and ``overdraft`` may be negative: by what was granted in all, and by what is owed. Append-only: a
mistake is corrected by another posting. Not done here: storing, and the row lock that stops two debits at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NewType

from cloister.errors import Rejected, UsageError
from cloister.lending.terms import MAX_UNITS, InstanceId, LoanId, Meter

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "ALLOWANCE",
    "ISSUED",
    "OVERDRAFT",
    "SPENT",
    "WITHDRAWN",
    "WRITTEN_OFF",
    "Account",
    "Posting",
    "balance_of",
    "escrow",
    "granted",
    "repay",
    "set_allowance",
    "top_up",
    "verify_postings",
]

Account = NewType("Account", str)

ISSUED = Account("issued")
"""Where allowance comes from; the only account that may be negative."""
ALLOWANCE = Account("allowance")
"""What the loan may still spend: the balance."""
SPENT = Account("spent")
"""Units that an instance reported as served."""
WRITTEN_OFF = Account("written_off")
"""Units of a ceiling whose instance died or closed without serving them; counted as spent."""
OVERDRAFT = Account("overdraft")
"""Where units come from that a voucher promised beyond all ceilings; negative by what the loan owes."""
WITHDRAWN = Account("withdrawn")
"""Units that the custodian took back from the allowance by setting it lower."""


def escrow(instance: InstanceId) -> Account:
    """Return the account of what an instance may serve and has not reported as served."""
    return Account(f"escrow:{instance}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """``units`` of one meter of one loan leave ``debit_account`` and enter ``credit_account``."""

    loan: LoanId
    meter: Meter
    debit_account: Account
    credit_account: Account
    units: int

    def __post_init__(self) -> None:
        """Refuse what is no movement. Raises ``UsageError``."""
        if type(self.units) is not int or not 1 <= self.units <= MAX_UNITS:
            msg = f"posting: {self.units!r} units, want an integer of 1 to {MAX_UNITS}"
            raise UsageError(msg)
        if self.debit_account == self.credit_account:
            msg = f"posting: from {self.debit_account} to itself"
            raise UsageError(msg)


def balance_of(postings: Iterable[Posting], account: Account, *, loan: LoanId, meter: Meter) -> int:
    """Return what entered ``account`` of this meter less what left it."""
    balance = 0
    for posting in postings:
        if posting.loan == loan and posting.meter == meter:
            balance += posting.units * ((posting.credit_account == account) - (posting.debit_account == account))
    return balance


def granted(postings: Iterable[Posting], *, loan: LoanId, meter: Meter) -> int:
    """Return all units ever granted to this meter and not withdrawn again."""
    kept = tuple(postings)
    issued = balance_of(kept, ISSUED, loan=loan, meter=meter)
    return -issued - balance_of(kept, WITHDRAWN, loan=loan, meter=meter)


def top_up(loan: LoanId, meter: Meter, *, balance: int, units: int) -> Posting:
    """Return the posting that adds ``units`` to an allowance that holds ``balance``.

    Adds, never replaces. Raises ``UsageError`` when the sum is beyond ``MAX_UNITS``.
    """
    if type(units) is not int or not 1 <= units <= MAX_UNITS - balance:
        msg = f"top-up: {units!r} units onto {balance}, want an integer of 1 to {MAX_UNITS - balance}"
        raise UsageError(msg)
    return Posting(loan=loan, meter=meter, debit_account=ISSUED, credit_account=ALLOWANCE, units=units)


def set_allowance(loan: LoanId, meter: Meter, *, balance: int, units: int) -> tuple[Posting, ...]:
    """Return the posting (none where nothing changes) after which the allowance holds ``units``.

    What instances already hold in escrow stays theirs. Raises ``UsageError``.
    """
    if type(units) is not int or not 0 <= units <= MAX_UNITS:
        msg = f"set: {units!r} units, want an integer of 0 to {MAX_UNITS}"
        raise UsageError(msg)
    if units > balance:
        return (top_up(loan, meter, balance=balance, units=units - balance),)
    if units < balance:
        lower = Posting(
            loan=loan, meter=meter, debit_account=ALLOWANCE, credit_account=WITHDRAWN, units=balance - units
        )
        return (lower,)
    return ()


def repay(loan: LoanId, meter: Meter, *, balance: int, owed: int) -> tuple[Posting, ...]:
    """Return the posting that pays an overdraft from the allowance; none where nothing is owed, or nothing there."""
    units = min(balance, owed)
    if units <= 0:
        return ()
    return (Posting(loan=loan, meter=meter, debit_account=ALLOWANCE, credit_account=OVERDRAFT, units=units),)


def verify_postings(postings: Iterable[Posting]) -> None:
    """Prove that no account but ``issued`` and ``overdraft`` was ever below zero, and no more repaid than owed.

    In the order of the postings. Raises ``Rejected`` (``ledger_negative``) naming the first posting that overdraws.
    """
    balances: dict[tuple[LoanId, Meter, Account], int] = {}
    for index, posting in enumerate(postings):
        source = (posting.loan, posting.meter, posting.debit_account)
        target = (posting.loan, posting.meter, posting.credit_account)
        balances[target] = balances.get(target, 0) + posting.units
        balances[source] = balances.get(source, 0) - posting.units
        if posting.debit_account not in (ISSUED, OVERDRAFT) and balances[source] < 0:
            raise Rejected.because("ledger_negative", f"posting {index}", got=str(balances[source]), want="0 or more")
        if posting.credit_account == OVERDRAFT and balances[target] > 0:
            raise Rejected.because("ledger_negative", f"posting {index}", got=f"{balances[target]} more than owed")
