"""Versions of one lent model: what may be served, what is counted, what may change without a new agreement."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cloister.errors import Malformed
from cloister.lending.clauses import Clauses
from cloister.lending.standing import standing_models
from cloister.lending.state import LoanState
from cloister.lending.terms import (
    LOAN_METER,
    MAX_VERSIONS,
    Consumer,
    ConsumerId,
    LoanId,
    ModelDigest,
    ModelTerms,
    Terms,
)
from cloister.lending.usage_report import ticketed_units, units_by_meter

ONE, TWO, THREE = (ModelDigest(digit * 64) for digit in "123")
MODEL = ModelTerms(name="digits", digest=THREE, metered=True, replaces=(TWO, ONE))
OTHER = ModelTerms(name="other", digest=ModelDigest("9" * 64))
TERMS = Terms(loan=LoanId("loan-" + "a" * 16), borrower="b", models=(MODEL, OTHER), consumers=None)


def test_the_newest_version_and_the_one_before_it_stand() -> None:
    assert MODEL.standing == (THREE, TWO)
    assert MODEL.versions == (THREE, TWO, ONE)
    assert MODEL.at(THREE) is MODEL
    assert MODEL.at(TWO) == replace(MODEL, digest=TWO, replaces=(ONE,))
    assert MODEL.at(ONE) is None
    assert OTHER.standing == (OTHER.digest,)


def test_a_lease_lists_what_stands_and_a_block_takes_any_of_it_out() -> None:
    loan = LoanState(terms=TERMS, balances={LOAN_METER: 5}, policy_digest="c" * 64, block_version=1)
    assert standing_models(loan) == (THREE, TWO, OTHER.digest)
    assert standing_models(replace(loan, blocked_models=frozenset({TWO}))) == (THREE, OTHER.digest)
    assert standing_models(replace(loan, blocked_models=frozenset({THREE}))) == (TWO, OTHER.digest)


def test_records_of_every_version_count_under_the_models_name() -> None:
    totals = {(ONE, None): 1, (TWO, None): 2, (THREE, None): 4, (OTHER.digest, None): 8}
    assert units_by_meter(totals, TERMS) == {LOAN_METER: 15, "model:digits": 7}
    ticketed = replace(TERMS, models=(replace(MODEL, ticketed=True), OTHER))
    assert units_by_meter(totals, ticketed) == {LOAN_METER: 8}
    assert ticketed_units(totals, ticketed) == 7


def test_a_version_is_written_and_read_back() -> None:
    value = TERMS.to_json()
    assert Terms.from_json(value) == TERMS
    assert "replaces" not in OTHER.to_json()  # type: ignore[operator]  # an object


@pytest.mark.parametrize(
    "replaces",
    [
        [],
        None,
        "1" * 64,
        ["1" * 63],
        ["A" * 64],
        [1],
        [ONE, ONE],
        [THREE],  # replaces itself
        [format(number, "064x") for number in range(MAX_VERSIONS)],
    ],
)
def test_bad_versions_are_malformed(replaces: Any) -> None:
    with pytest.raises(Malformed):
        ModelTerms.from_json({"digest": THREE, "metered": False, "name": "digits", "replaces": replaces})


def test_one_sealed_model_with_tickets_and_without_is_malformed_in_any_version() -> None:
    value = replace(TERMS, models=(replace(MODEL, ticketed=True), replace(OTHER, replaces=(ONE,)))).to_json()
    with pytest.raises(Malformed, match="tickets"):
        Terms.from_json(value)


def test_terms_that_differ_in_versions_only() -> None:
    older = replace(TERMS, models=(ModelTerms(name="digits", digest=ONE, metered=True), OTHER), version=1)
    assert older.differs_in_versions_only(replace(TERMS, version=9))
    consumer = Consumer(id=ConsumerId("ann"), token_sha256=bytes(32))
    named = replace(older, consumers=(consumer,))
    assert named.differs_in_versions_only(replace(TERMS, consumers=(consumer, replace(consumer, id=ConsumerId("bob")))))
    for changed in (
        replace(TERMS, models=(MODEL,)),
        replace(TERMS, models=(OTHER, MODEL)),
        replace(TERMS, models=(replace(MODEL, metered=False), OTHER)),
        replace(TERMS, models=(replace(MODEL, ticketed=True), OTHER)),
        replace(TERMS, models=(replace(MODEL, name="digit"), OTHER)),
        replace(TERMS, consumers=(consumer,)),
        replace(TERMS, max_ceiling=7),
        replace(TERMS, ttl=timedelta(seconds=61)),
        replace(TERMS, clauses=Clauses(purpose="other")),
        replace(TERMS, borrower="c"),
    ):
        assert not older.differs_in_versions_only(changed)
