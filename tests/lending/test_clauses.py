"""The clauses of a loan: one spelling each, absent means default."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from cloister.crypto.sign import SigningKey
from cloister.errors import Malformed, UsageError
from cloister.lending.clauses import NO_CLAUSES, Clauses, OfflineTerm, RefundRule, Window
from cloister.lending.terms import LoanId, ModelDigest, ModelTerms, OutageRule, Terms
from cloister.wire import dump_json, parse_json

if TYPE_CHECKING:
    from cloister.wire import Json

FULL = Clauses(
    purpose="triage of chest images",
    hours=(Window(day=1, start=480, end=1080), Window(day=2, start=0, end=1440)),
    precision=3,
    budget=5000,
    offline=OfflineTerm(lasts=timedelta(days=2), units=300, overdraft=20),
    refund=RefundRule.UNUSED,
    borrower=SigningKey.generate().verify_key,
)
MONDAY = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
TERMS = Terms(
    loan=LoanId("loan-" + "a" * 16),
    borrower="clinic",
    models=(ModelTerms(name="digits", digest=ModelDigest("0" * 64)),),
    consumers=None,
)


def test_what_is_dumped_is_parsed_again() -> None:
    assert Clauses.from_json(parse_json(dump_json(FULL.to_json()), what="clauses")) == FULL
    assert Clauses.from_json({}) == NO_CLAUSES
    assert NO_CLAUSES.to_json() == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("purpose", ""),
        ("purpose", "two\nlines"),
        ("hours", []),
        ("hours", None),
        ("hours", [{"day": 0, "start": 0, "end": 1}]),
        ("hours", [{"day": 8, "start": 0, "end": 1}]),
        ("hours", [{"day": 1, "start": 5, "end": 5}]),
        ("hours", [{"day": 1, "start": 0, "end": 1441}]),
        ("hours", [{"day": 1, "start": 0, "end": 9}, {"day": 1, "start": 0, "end": 9}]),
        ("hours", [{"day": 2, "start": 0, "end": 9}, {"day": 1, "start": 0, "end": 9}]),
        ("precision", 16),
        ("precision", -1),
        ("precision", 1.5),
        ("precision", None),
        ("budget", -1),
        ("offline", {"lasts_s": 0, "units": 1}),
        ("offline", {"lasts_s": 60, "units": 0}),
        ("offline", {"lasts_s": 60, "units": 1, "overdraft": 0}),
        ("offline", {"lasts_s": 90 * 86_400 + 1, "units": 1}),
        ("refund", "none"),
        ("refund", True),
        ("borrower", "AAAA"),
        ("other", 1),
    ],
)
def test_another_spelling_is_malformed(name: str, value: Json) -> None:
    with pytest.raises(Malformed):
        Clauses.from_json({**FULL.to_json(), name: value})


def test_terms_without_clauses_are_spelled_as_they_always_were() -> None:
    assert "clauses" not in parse_json(TERMS.dump(), what="terms")  # type: ignore[operator]  # an object
    with pytest.raises(Malformed, match="clauses"):
        Terms.from_json({**parse_json(TERMS.dump(), what="terms"), "clauses": {}})  # type: ignore[dict-item]


def test_an_offline_outage_rule_needs_its_term_and_the_other_way_round() -> None:
    whole = replace(TERMS, outage=OutageRule.OFFLINE, clauses=FULL)
    assert Terms.from_json(whole.to_json()) == whole
    for torn in (replace(whole, outage=OutageRule.STOP), replace(whole, clauses=replace(FULL, offline=None))):
        with pytest.raises(Malformed, match="outage"):
            Terms.from_json(torn.to_json())


def test_a_ticketed_model_is_spelled_only_where_it_is_one() -> None:
    model = replace(TERMS.models[0], ticketed=True)
    assert ModelTerms.from_json(model.to_json()) == model
    assert "ticketed" not in TERMS.models[0].to_json()  # type: ignore[operator]  # an object
    with pytest.raises(Malformed, match="ticketed"):
        ModelTerms.from_json({**TERMS.models[0].to_json(), "ticketed": False})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("now", "open_"),
    [
        (MONDAY, True),
        (MONDAY - timedelta(seconds=1), False),
        (MONDAY.replace(hour=17, minute=59, second=59), True),
        (MONDAY.replace(hour=18), False),
        (MONDAY + timedelta(days=1), True),
        (MONDAY + timedelta(days=2), False),
    ],
)
def test_a_window_is_open_from_its_first_minute_to_before_its_last(now: datetime, open_: bool) -> None:  # noqa: FBT001
    assert FULL.open_at(now) is open_
    assert NO_CLAUSES.open_at(now)


def test_a_window_that_is_none_is_our_own_mistake() -> None:
    with pytest.raises(UsageError):
        Window(day=1, start=60, end=60)
