"""When an allowance is used up is said as a span, from what was really spent, and never beyond what was seen."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.lending.forecast import Forecast, Outlook, Spent, forecast, rates_between, span_words

AT = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOW = AT + HOUR


def spent(*units: int, every: timedelta = timedelta(minutes=1), until: datetime = NOW) -> list[Spent]:
    """Return sums that grow by ``units``, one after the other, the last of them at ``until``."""
    start = until - every * len(units)
    sums = itertools.accumulate(units, initial=0)
    return [Spent(at=start + every * number, units=total) for number, total in enumerate(sums)]


def said(units: list[Spent], left: int, *, window: timedelta = HOUR) -> Forecast:
    return forecast(units, left=left, now=NOW, window=window)


def test_even_spending_ends_when_division_says() -> None:
    found = said(spent(*[60] * 60), 7200)
    assert found.rate is not None
    assert (found.rate.low, found.rate.middle, found.rate.high) == pytest.approx((1, 1, 1))
    assert found.earliest is not None
    assert found.latest is not None
    assert abs(found.earliest - (NOW + 2 * HOUR)) < timedelta(seconds=1)
    assert found.outlook is Outlook.ENDS


@pytest.mark.parametrize(
    ("units", "left", "words"),
    [
        ([60] * 60, 7200, "empty in about 2 h"),
        ([30, 60, 90, 40] * 15, 10, "empty in 10 to 12 s"),
        ([30, 60, 90, 40] * 15, 1000, "empty in 17 to 19 min"),
        ([30, 60, 90, 40] * 15, 100_000, "empty in 29 to 32 h"),
        ([*[600] * 15, *[30] * 45], 9000, "empty in 31 min to 5 h"),
    ],
)
def test_the_words_go_outwards_and_are_short(units: list[int], left: int, words: str) -> None:
    assert said(spent(*units), left).words == words


def test_the_span_holds_what_comes_of_going_on_with_any_of_its_stretches() -> None:
    found = said(spent(*[30, 90] * 30), 7200)
    assert found.words == "empty in 118 to 122 min"


def test_one_burst_moves_the_middle_little_and_the_earliest_end_much() -> None:
    calm, burst = said(spent(*[60] * 60), 7200), said(spent(*[60] * 30, 6000, *[60] * 29), 7200)
    assert calm.rate is not None
    assert burst.rate is not None
    assert burst.rate.middle < 4 * calm.rate.middle
    assert burst.rate.high > 5 * calm.rate.high
    assert burst.rate.low == pytest.approx(calm.rate.low, rel=0.01)


def test_what_was_spent_before_the_window_does_not_count() -> None:
    units = spent(*[6000] * 60, *[6] * 60)
    found = said(units, 7200)
    assert found.rate is not None
    assert found.rate.high == pytest.approx(0.1)
    wider = said(units, 7200, window=2 * HOUR)
    assert wider.rate is not None
    assert wider.rate.high > 50


def test_nothing_spent_is_never_at_this_rate() -> None:
    found = said(spent(*[0] * 60), 5)
    assert (found.outlook, found.words, found.earliest, found.latest) == (
        Outlook.NEVER, "never at this rate", None, None,
    )  # fmt: skip


def test_spending_that_pauses_has_no_latest_end() -> None:
    found = said(spent(*[600] * 20, *[0] * 40), 7200)
    assert found.latest is None
    assert found.words.startswith("not before ")


@pytest.mark.parametrize(
    "units", [[], spent(), spent(10, every=timedelta(seconds=30)), spent(10, 10, until=AT - 3 * HOUR)]
)
def test_too_little_seen_says_so_instead_of_guessing(units: list[Spent]) -> None:
    found = said(units, 100)
    assert (found.outlook, found.rate, found.words) == (Outlook.UNKNOWN, None, "too little seen")


@pytest.mark.parametrize("left", [0, -3])
def test_an_empty_allowance_is_empty_whatever_was_seen(left: int) -> None:
    assert said([], left).words == "empty"
    assert said(spent(*[60] * 60), left).outlook is Outlook.EMPTY


def test_a_sum_that_falls_begins_anew() -> None:
    before = spent(*[10_000] * 30, until=NOW - timedelta(minutes=30))
    after = spent(*[60] * 29)
    found = said([*before, *after], 7200)
    assert found.rate is not None
    assert found.rate.high == pytest.approx(1)


def test_order_does_not_matter_and_what_is_ahead_of_the_clock_is_left_out() -> None:
    units = spent(*[7, 50, 0, 90] * 15)
    ahead = Spent(at=NOW + HOUR, units=10**9)
    assert said([ahead, *reversed(units)], 900) == said(units, 900)


def test_a_year_is_as_far_as_anybody_looks() -> None:
    assert said(spent(*[1] * 60), 2**53 - 1).words == "in over a year"
    assert said(spent(0, *[1] * 59), 500_000).words.startswith(("not before", "empty in"))
    assert said(spent(*[1] * 30, *[0] * 12, *[1] * 18), 600_000 * 60).words == "in over a year"


def test_units_per_second_step_by_step_for_a_plot() -> None:
    found = rates_between(spent(*[60] * 30, *[0] * 30), now=NOW, window=2 * HOUR, steps=4)
    assert found == (None, None, pytest.approx(1), pytest.approx(0))
    assert rates_between([], now=NOW, window=HOUR, steps=3) == (None, None, None)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (-5, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (172_800, "2 d")],
)
def test_how_long_in_one_unit(seconds: int, words: str) -> None:
    assert span_words(timedelta(seconds=seconds)) == words


def test_a_program_gets_rates_and_times() -> None:
    found = said(spent(*[60] * 60), 3600).to_json()
    assert found["outlook"] == "ends"
    assert str(found["earliest"]).startswith("2026-01-01T02:00:00")
    assert found["rate"] == {"high": 1.0, "low": 1.0, "middle": 1.0}
    assert said([], 1).to_json() == {"earliest": None, "latest": None, "outlook": "unknown", "rate": None}


_SUMS = st.lists(st.tuples(st.integers(0, 7200), st.integers(0, 2**53 - 1)), max_size=40)


@given(_SUMS, st.integers(0, 2**53 - 1), st.integers(1, 86_400))
def test_whatever_was_counted_the_span_is_a_span_and_lies_ahead(
    counted: list[tuple[int, int]], left: int, window: int
) -> None:
    units = [Spent(at=AT + timedelta(seconds=at), units=total) for at, total in counted]
    found = said(units, left, window=timedelta(seconds=window))
    assert (found.earliest is None) == (found.outlook is not Outlook.ENDS)
    if found.rate is not None:
        assert 0 <= found.rate.low <= found.rate.middle <= found.rate.high
    if found.earliest is not None:
        assert found.at <= found.earliest <= (found.latest or found.earliest)
    assert found.words
    assert found.to_json()["outlook"] == found.outlook.value
