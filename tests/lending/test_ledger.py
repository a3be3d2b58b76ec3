"""Double entry: nothing is made, nothing is lost, top-up adds, set sets (the earlier system's mistakes)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import Rejected, UsageError
from cloister.lending.ledger import (
    ALLOWANCE,
    ISSUED,
    SPENT,
    WITHDRAWN,
    WRITTEN_OFF,
    Account,
    Posting,
    balance_of,
    escrow,
    granted,
    set_allowance,
    top_up,
    verify_postings,
)
from cloister.lending.terms import LOAN_METER, MAX_UNITS, InstanceId, LoanId, Meter

LOAN = LoanId("loan-" + "a" * 16)
HELD = escrow(InstanceId("1" * 64))


def moved(debit: Account, credit: Account, units: int, *, loan: LoanId = LOAN, meter: Meter = LOAN_METER) -> Posting:
    return Posting(loan=loan, meter=meter, debit_account=debit, credit_account=credit, units=units)


def test_top_up_adds_and_does_not_replace() -> None:
    book = [top_up(LOAN, LOAN_METER, balance=0, units=5), top_up(LOAN, LOAN_METER, balance=5, units=3)]
    assert balance_of(book, ALLOWANCE, loan=LOAN, meter=LOAN_METER) == 8
    assert granted(book, loan=LOAN, meter=LOAN_METER) == 8


@pytest.mark.parametrize(("balance", "units"), [(5, 9), (9, 5), (5, 5), (0, 0), (5, 0)])
def test_set_sets(balance: int, units: int) -> None:
    book = [moved(ISSUED, ALLOWANCE, balance)] if balance else []
    book += set_allowance(LOAN, LOAN_METER, balance=balance, units=units)
    assert balance_of(book, ALLOWANCE, loan=LOAN, meter=LOAN_METER) == units
    assert granted(book, loan=LOAN, meter=LOAN_METER) == units


@pytest.mark.parametrize("units", [0, -1, True, 1.5, MAX_UNITS, 2**64])
def test_t46_a_top_up_is_a_positive_integer_within_bounds(units: int) -> None:
    with pytest.raises(UsageError):
        top_up(LOAN, LOAN_METER, balance=1, units=units)


@pytest.mark.parametrize("units", [-1, True, 1.5, MAX_UNITS + 1])
def test_t46_an_allowance_is_set_to_an_integer_within_bounds(units: int) -> None:
    with pytest.raises(UsageError):
        set_allowance(LOAN, LOAN_METER, balance=1, units=units)


@pytest.mark.parametrize("units", [0, -1, 1.0, True, MAX_UNITS + 1])
def test_a_posting_moves_a_positive_number_of_units(units: int) -> None:
    with pytest.raises(UsageError):
        moved(ALLOWANCE, SPENT, units)


def test_a_posting_goes_somewhere_else() -> None:
    with pytest.raises(UsageError):
        moved(ALLOWANCE, ALLOWANCE, 1)


def test_meters_and_loans_do_not_mix() -> None:
    other = LoanId("loan-" + "b" * 16)
    book = [moved(ISSUED, ALLOWANCE, 5), moved(ISSUED, ALLOWANCE, 7, loan=other)]
    book.append(moved(ISSUED, ALLOWANCE, 9, meter=Meter("model:a")))
    assert balance_of(book, ALLOWANCE, loan=LOAN, meter=LOAN_METER) == 5


def test_an_overdraft_is_named() -> None:
    verify_postings([moved(ISSUED, ALLOWANCE, 5), moved(ALLOWANCE, HELD, 5), moved(HELD, SPENT, 5)])
    with pytest.raises(Rejected, match="posting 1: ledger_negative"):
        verify_postings([moved(ISSUED, ALLOWANCE, 5), moved(ALLOWANCE, HELD, 6)])


ACCOUNTS = (ISSUED, ALLOWANCE, HELD, SPENT, WRITTEN_OFF, WITHDRAWN)


@given(st.lists(st.tuples(st.sampled_from(ACCOUNTS), st.sampled_from(ACCOUNTS), st.integers(1, 100)), max_size=30))
def test_whatever_is_posted_the_sum_of_all_accounts_is_zero(moves: list[tuple[Account, Account, int]]) -> None:
    book = [moved(debit, credit, units) for debit, credit, units in moves if debit != credit]
    assert sum(balance_of(book, account, loan=LOAN, meter=LOAN_METER) for account in ACCOUNTS) == 0
