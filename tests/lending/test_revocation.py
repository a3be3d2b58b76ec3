"""Revocation lists: read, followed by longer ones only, and never by an older one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.crypto.sign import MAX_STATEMENT_BYTES, SigningKey
from cloister.errors import Malformed, Rejected, UsageError
from cloister.lending.revocation import MAX_REVOKED, RevocationList, verify_list
from cloister.lending.sub_allowance import MAX_LIFE, BlockId
from cloister.lending.terms import LoanId
from mutations import mutated

BORROWER = SigningKey(bytes([1]) * 32)
LOAN = LoanId("loan-" + "a" * 16)
NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)


def ids(*numbers: int) -> frozenset[BlockId]:
    return frozenset(BlockId(f"{number:064x}") for number in numbers)


EMPTY = RevocationList(loan=LOAN, number=1, not_after=NOW + timedelta(days=1))


def test_what_is_signed_is_read_back() -> None:
    made = EMPTY.following(ids(1, 2), not_after=NOW)
    assert verify_list(made.sign(BORROWER), borrower=BORROWER.verify_key, loan=LOAN) == made
    assert (made.number, made.blocks) == (2, ids(1, 2))


@given(st.lists(st.sets(st.integers(0, 9)), max_size=6))
def test_whatever_is_called_back_stays_called_back(steps: list[set[int]]) -> None:
    held = EMPTY
    for step in steps:
        after = held.following(ids(*step), not_after=NOW)
        after.demand_after(held)
        with pytest.raises(Rejected, match="revocations_old"):
            held.demand_after(after)
        assert held.blocks <= after.blocks
        held = after


@given(st.sets(st.integers(0, 9), min_size=1), st.sets(st.integers(0, 9)))
def test_a_list_follows_exactly_where_it_leaves_nothing_out(before: set[int], after: set[int]) -> None:
    held, new = replace(EMPTY, blocks=ids(*before)), replace(EMPTY, number=9, blocks=ids(*after))
    if before <= after:
        new.demand_after(held)
    else:
        with pytest.raises(Rejected, match="revocations_shrunk"):
            new.demand_after(held)


def test_a_full_list_fits_into_a_statement_and_one_more_into_none() -> None:
    full = EMPTY.following(ids(*range(MAX_REVOKED)), not_after=NOW)
    assert len(full.sign(BORROWER)) < MAX_STATEMENT_BYTES
    assert RevocationList.parse(full.dump()) == full
    with pytest.raises(UsageError, match=str(MAX_REVOKED)):
        full.following(ids(MAX_REVOKED), not_after=NOW)
    beyond = replace(full, blocks=full.blocks | ids(MAX_REVOKED))
    with pytest.raises(Malformed):
        RevocationList.parse(beyond.dump())


def test_a_list_is_in_time_until_its_end_and_not_from_too_far_before() -> None:
    made = replace(EMPTY, not_after=NOW + MAX_LIFE)
    assert [made.in_time(NOW + timedelta(seconds=seconds)) for seconds in (-1, 0, 1)] == [False, True, True]
    assert not made.in_time(made.not_after)


def test_ten_thousand_mutations_raise_malformed_or_rejected_only() -> None:
    good = EMPTY.following(ids(1, 2, 3), not_after=NOW)
    for data in mutated(good.dump(), count=10_000, seed=5):
        try:
            RevocationList.parse(data)
        except Malformed:
            continue
    accepted = 0
    for data in mutated(good.sign(BORROWER), count=3000, seed=6):
        try:
            accepted += verify_list(data, borrower=BORROWER.verify_key, loan=LOAN) != good
        except (Malformed, Rejected):
            continue
    assert accepted == 0
