"""Rows of loans, their allowances, their ledger and what is blocked.

Balances change by postings only: ``post`` writes the ledger rows and moves the balance in one step, so
that the two can never tell different stories.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, func, insert, select, update

from cloister.custodian.store.dialects import POSTGRESQL
from cloister.custodian.store.tables import ALLOWANCE, LEDGER, LOAN, LOAN_MODEL, moment, stamp
from cloister.errors import Rejected
from cloister.lending.ledger import ALLOWANCE as ALLOWANCE_ACCOUNT
from cloister.lending.ledger import Account, Posting
from cloister.lending.terms import LOAN_METER, LoanId, Meter, Terms
from cloister.wire import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

__all__ = [
    "HALVES",
    "LoanRow",
    "account_balances",
    "balances_of",
    "credited_in_all",
    "debited_in_all",
    "find_loan",
    "insert_loan",
    "ledger_size",
    "list_loans",
    "post",
    "postings_of",
    "replace_policy",
    "replace_terms",
    "some_loans",
    "take_turn",
    "whole",
]


_ONE = select(LOAN).where(LOAN.c.id == bindparam("of"))
_BALANCES = select(ALLOWANCE.c.meter, ALLOWANCE.c.balance).where(ALLOWANCE.c.loan == bindparam("of"))
_POST = insert(LEDGER)
_ALLOWANCE = (ALLOWANCE.c.loan == bindparam("of")) & (ALLOWANCE.c.meter == bindparam("named"))
_CREDIT = update(ALLOWANCE).where(_ALLOWANCE).values(balance=ALLOWANCE.c.balance + bindparam("units"))
_DEBIT = (
    update(ALLOWANCE)
    .where(_ALLOWANCE, ALLOWANCE.c.balance >= bindparam("units"))
    .values(balance=ALLOWANCE.c.balance - bindparam("units"))
)
_TERMS_KEPT = 256  # terms of so many loans are not parsed anew at each lease


@dataclass(frozen=True, slots=True, kw_only=True)
class LoanRow:
    """One loan: its terms and the policy that evidence must satisfy, as their exact bytes say."""

    terms: Terms
    policy: bytes
    policy_version: int
    created_at: datetime


@lru_cache(maxsize=_TERMS_KEPT)
def _terms(stored: bytes) -> Terms:
    """Return what these bytes say: a value that never changes, of bytes that are read anew each time (T90)."""
    return Terms.from_json(parse_json(stored, what="stored terms", canonical=True))


def _loan(row: Row[tuple[object, ...]]) -> LoanRow:
    return LoanRow(
        terms=_terms(bytes(row.terms)),
        policy=row.policy,
        policy_version=row.policy_version,
        created_at=moment(row.created_at),
    )


def insert_loan(connection: Connection, loan: LoanRow) -> None:
    """Write a new loan with an allowance of zero for every meter that ``post`` will name."""
    terms = loan.terms
    connection.execute(
        insert(LOAN).values(
            id=terms.loan,
            borrower=terms.borrower,
            terms=terms.dump(),
            policy=loan.policy,
            policy_version=loan.policy_version,
            created_at=stamp(loan.created_at),
        )
    )
    connection.execute(
        insert(LOAN_MODEL),
        [{"loan": terms.loan, "name": model.name, "digest": model.digest} for model in terms.models],
    )


def find_loan(connection: Connection, loan: LoanId) -> LoanRow | None:
    """Return one loan."""
    row = connection.execute(_ONE, {"of": loan}).one_or_none()
    return None if row is None else _loan(row)


def some_loans(connection: Connection, loans: Sequence[LoanId]) -> dict[LoanId, LoanRow]:
    """Return these loans, those that are there, in one query."""
    found = connection.execute(select(LOAN).where(LOAN.c.id.in_(list(loans))))
    return {row.terms.loan: row for row in map(_loan, found)}


def list_loans(connection: Connection) -> Sequence[LoanRow]:
    """Return every loan, oldest first."""
    return [_loan(row) for row in connection.execute(select(LOAN).order_by(LOAN.c.created_at, LOAN.c.id))]


def replace_terms(connection: Connection, terms: Terms) -> None:
    """Write the next version of a loan's terms."""
    connection.execute(update(LOAN).where(LOAN.c.id == terms.loan).values(terms=terms.dump()))
    for model in terms.models:
        key = (LOAN_MODEL.c.loan == terms.loan) & (LOAN_MODEL.c.name == model.name)
        connection.execute(update(LOAN_MODEL).where(key).values(digest=model.digest))


def replace_policy(connection: Connection, loan: LoanId, policy: bytes, version: int) -> None:
    """Write the next version of a loan's policy."""
    connection.execute(update(LOAN).where(LOAN.c.id == loan).values(policy=policy, policy_version=version))


def balances_of(connection: Connection, loan: LoanId) -> dict[Meter, int]:
    """Return what every meter's allowance still holds."""
    rows = connection.execute(_BALANCES, {"of": loan})
    return {Meter(row.meter): row.balance for row in rows}


def post(connection: Connection, postings: Iterable[Posting], *, now: datetime) -> None:
    """Write postings and move the balances they touch, none of which may go below zero (C6).

    Raises ``Rejected`` (``allowance_exhausted``); the caller's transaction then rolls back.
    """
    moved = tuple(postings)
    rows = [
        {
            "at": stamp(now),
            "loan": posting.loan,
            "meter": posting.meter,
            "debit": posting.debit_account,
            "credit": posting.credit_account,
            "units": posting.units,
        }
        for posting in moved
    ]
    if rows:
        connection.execute(_POST, rows)
    for posting in moved:
        if posting.credit_account == ALLOWANCE_ACCOUNT:
            _credit(connection, posting)
        if posting.debit_account == ALLOWANCE_ACCOUNT:
            _debit(connection, posting)


def _credit(connection: Connection, posting: Posting) -> None:
    found = connection.execute(_CREDIT, {"of": posting.loan, "named": posting.meter, "units": posting.units})
    if found.rowcount == 0:
        connection.execute(insert(ALLOWANCE).values(loan=posting.loan, meter=posting.meter, balance=posting.units))


def _debit(connection: Connection, posting: Posting) -> None:
    found = connection.execute(_DEBIT, {"of": posting.loan, "named": posting.meter, "units": posting.units})
    if found.rowcount != 1:
        raise Rejected.because("allowance_exhausted", posting.meter, want=str(posting.units))


def postings_of(connection: Connection, loan: LoanId) -> Sequence[Posting]:
    """Return a loan's ledger, in order."""
    rows = connection.execute(select(LEDGER).where(LEDGER.c.loan == loan).order_by(LEDGER.c.id))
    return [
        Posting(
            loan=LoanId(row.loan),
            meter=Meter(row.meter),
            debit_account=Account(row.debit),
            credit_account=Account(row.credit),
            units=row.units,
        )
        for row in rows
    ]


HALVES = (
    func.coalesce(func.sum(LEDGER.c.units.op(">>")(32)), 0).label("high"),
    func.coalesce(func.sum(LEDGER.c.units.op("&")(0xFFFFFFFF)), 0).label("low"),
)
"""Sums of units in halves: SQLite refuses a sum beyond 2**63, and a ledger's turnover grows without end."""


def whole(high: object, low: object) -> int:
    """Return the sum of both halves, whatever number type the database sums into."""
    return (int(str(high)) << 32) + int(str(low))


def take_turn(connection: Connection, loan: LoanId) -> None:
    """Come before or after every other transaction that takes this loan's turn, never beside it.

    Where several custodians write, transactions that only read what another changes could stand in the log in an
    order in which they cannot have happened. Writing the same row makes the later of two fail and run again. A loan
    without that row has never had a unit.
    """
    if connection.dialect.name == POSTGRESQL:
        key = (ALLOWANCE.c.loan == loan) & (ALLOWANCE.c.meter == LOAN_METER)
        connection.execute(update(ALLOWANCE).where(key).values(balance=ALLOWANCE.c.balance))


def account_balances(
    connection: Connection, loan: LoanId, accounts: Iterable[Account]
) -> dict[tuple[Meter, Account], int]:
    """Return what entered each of ``accounts`` less what left it, per meter; summed by the database."""
    wanted = tuple(accounts)
    found: dict[tuple[Meter, Account], int] = {}
    for side, sign in ((LEDGER.c.credit, 1), (LEDGER.c.debit, -1)):
        query = select(LEDGER.c.meter, side.label("account"), *HALVES)
        rows = connection.execute(query.where(LEDGER.c.loan == loan, side.in_(wanted)).group_by(LEDGER.c.meter, side))
        for row in rows:
            key = (Meter(row.meter), Account(row.account))
            found[key] = found.get(key, 0) + sign * whole(row.high, row.low)
    return found


def debited_in_all(connection: Connection, account: Account) -> int:
    """Return the units that ever left ``account``, over all loans and meters."""
    row = connection.execute(select(*HALVES).where(LEDGER.c.debit == account)).one()
    return whole(row.high, row.low)


def credited_in_all(connection: Connection, account: Account, meter: Meter) -> int:
    """Return the units of one meter that ever came into ``account``, over all loans."""
    row = connection.execute(select(*HALVES).where(LEDGER.c.credit == account, LEDGER.c.meter == meter)).one()
    return whole(row.high, row.low)


def ledger_size(connection: Connection) -> int:
    """Return how many postings there are in all. Numbers may have gaps: a transaction that failed took some."""
    return int(connection.execute(select(func.count()).select_from(LEDGER)).scalar_one())
