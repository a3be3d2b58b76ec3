"""Rates and budgets of each consumer: what cannot be won by waiting cleverly, restarting, or moving a clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import TOKENS, Enclave, World, terms

from cloister.crypto.sign import SigningKey
from cloister.errors import Malformed, Rejected
from cloister.lending.clauses import Clauses
from cloister.lending.consumer_limits import Budget, ConsumerLimits, Limits, Rate
from cloister.lending.consumer_meters import GUESTS, ConsumerMeters
from cloister.lending.lease_clock import LeaseClock, Passed
from cloister.lending.sub_allowance import Caveats, Chain
from cloister.lending.terms import Terms
from cloister.wire import Json, dump_b64u

START = datetime(2026, 3, 1, 12, 17, 5, tzinfo=UTC)
HOUR = Budget(units=60, window_s=3600)
BORROWER, ANN, BEN = (SigningKey(bytes([number]) * 32) for number in (1, 2, 3))


def passed(seconds: float) -> Passed:
    return Passed(began=START, lasted=timedelta(seconds=seconds))


def meters(limits: Limits, *, instances: int = 1) -> ConsumerMeters:
    return ConsumerMeters(ConsumerLimits(each=limits), max_instances=instances)


def asked(counts: ConsumerMeters, seconds: float, units: int = 1, who: str = "ann") -> Rejected | None:
    """Ask, and return the refusal where there is one."""
    try:
        counts.demand(who, units, passed(seconds))
    except Rejected as exc:
        return exc
    counts.count(who, units, passed(seconds))
    return None


STEPS = st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 7)), max_size=80)
"""Seconds to let pass, units to ask for."""


@given(steps=STEPS, fixed=st.booleans(), units=st.integers(1, 20))
def test_a_budget_is_never_exceeded_in_any_window(steps: list[tuple[int, int]], *, fixed: bool, units: int) -> None:
    counts = meters(Limits(budgets=(Budget(units=units, window_s=3600, fixed=fixed),)))
    now, served = 0, []
    for wait, wanted in steps:
        now += wait
        if asked(counts, now, wanted) is None:
            served.append((now, wanted))
    offset = int(START.timestamp()) % 3600
    for at, _ in served:
        if fixed:
            window = (at + offset) // 3600
            assert sum(n for when, n in served if (when + offset) // 3600 == window) <= units
        else:
            assert sum(n for when, n in served if at <= when < at + 3600) <= units


@given(steps=STEPS, fixed=st.booleans())
def test_an_instance_that_is_restarted_at_will_earns_no_more_than_one_that_lives(
    steps: list[tuple[int, int]], *, fixed: bool
) -> None:
    """Each life gives at most its share of age over window, while it is younger than a window."""
    budget = Budget(units=60, window_s=3600, fixed=fixed)
    counts = meters(Limits(budgets=(budget,), rate=Rate(units=5, per_s=60, burst=3)))
    age = served = 0
    for wait, wanted in steps:
        age += wait
        if asked(counts, age, wanted) is None:
            served += wanted
        if age < 3600:
            assert served <= min(budget.units * age / 3600, 5 * age / 60)


@given(steps=STEPS)
def test_a_rate_lets_no_more_pass_than_its_burst_and_what_time_brings(steps: list[tuple[int, int]]) -> None:
    rate = Rate(units=2, per_s=60, burst=5)
    counts = meters(Limits(rate=rate))
    now, served = 0, []
    for wait, wanted in steps:
        now += wait
        if asked(counts, now, wanted) is None:
            served.append((now, wanted))
    for first, _ in served:
        for last, _ in served:
            between = sum(n for when, n in served if first <= when <= last)
            assert last < first or between <= rate.burst + (last - first) * rate.units / rate.per_s


@given(steps=STEPS, fixed=st.booleans())
def test_who_waits_as_long_as_it_is_told_is_served(steps: list[tuple[int, int]], *, fixed: bool) -> None:
    counts = meters(Limits(budgets=(replace(HOUR, units=5, fixed=fixed),), rate=Rate(units=1, per_s=5, burst=7)))
    now = 0
    for wait, wanted in steps:
        now += wait
        refusal = asked(counts, now, wanted)
        for _ in range(4):  # what it is told is when the first of several limits may be met
            if refusal is None or refusal.retry_after_s is None:
                break
            assert refusal.retry_after_s > 0
            now += refusal.retry_after_s
            refusal = asked(counts, now, wanted)
        assert refusal is None or (wanted > 5 and refusal.retry_after_s is None)


def test_a_request_that_never_fits_is_told_no_time() -> None:
    counts = meters(Limits(rate=Rate(units=1, per_s=1, burst=3), budgets=(HOUR,)))
    refusal = asked(counts, 7200, 61)
    assert refusal is not None
    assert [reason.code for reason in refusal.reasons] == ["rate_limited", "budget_spent"]
    assert refusal.retry_after_s is None


def test_what_failed_is_given_back_to_the_budget_where_it_was_counted_and_not_to_the_rate() -> None:
    counts = meters(Limits(budgets=(replace(HOUR, units=4),), rate=Rate(units=1, per_s=60, burst=8)))
    mark = counts.count("ann", 4, passed(7200))
    assert counts.room("ann", passed(7200)) == 0
    counts.give_back("ann", 4, mark)
    assert counts.room("ann", passed(7200)) == 4
    assert asked(counts, 7200, 4) is None
    assert getattr(asked(counts, 7200, 1), "code", "") == "rate_limited"


def test_what_is_given_back_after_its_window_wins_nothing() -> None:
    counts = meters(Limits(budgets=(replace(HOUR, units=4),)))
    mark = counts.count("ann", 4, passed(7200))
    assert asked(counts, 2 * 7200, 4) is None
    counts.give_back("ann", 4, mark)
    assert counts.room("ann", passed(2 * 7200)) == 0


def test_a_budget_is_divided_by_the_instances_that_may_live() -> None:
    counts = meters(Limits(budgets=(HOUR,)), instances=4)
    assert counts.room("ann", passed(7200)) == 15
    assert counts.room("ann", passed(1800)) == 7  # and half of a window is half of it


def test_names_have_limits_of_their_own_and_guests_are_one_together() -> None:
    limits = ConsumerLimits(
        each=Limits(budgets=(HOUR,)), named=(("ann", Limits()), ("ben", Limits(budgets=(replace(HOUR, units=2),))))
    )
    counts = ConsumerMeters(limits, max_instances=1)
    assert [counts.room(who, passed(7200)) for who in ("ann", "ben", "cleo", GUESTS)] == [None, 2, 60, 60]


def limited(each: Limits, *, guests: bool = False) -> Terms:
    more = Clauses(borrower=BORROWER.verify_key, sub_allowances=True) if guests else Clauses()
    return replace(terms(cap=100, instances=1), clauses=replace(more, consumer_limits=ConsumerLimits(each=each)))


def started(each: Limits, *, guests: bool = False) -> tuple[World, Enclave]:
    world = World((limited(each, guests=guests), 1000))
    enclave = world.launch()
    assert enclave is not None
    assert world.renew(enclave)
    return world, enclave


def age(world: World, enclave: Enclave, seconds: int) -> None:
    """Let an enclave live so long, renewing as it should."""
    for _ in range(seconds // 20):
        world.advance(20)
        assert world.renew(enclave)


def code(world: World, enclave: Enclave, units: int = 1, who: str = "ann") -> str:
    try:
        enclave.holder.reserve("plain", TOKENS[who], units, enclave.time(world.now))
    except Rejected as exc:
        return exc.code
    return ""


MINUTE = Limits(budgets=(Budget(units=6, window_s=60),))


def test_a_spent_budget_refuses_before_anything_is_spent_and_one_consumer_spends_no_others() -> None:
    world, enclave = started(MINUTE)
    age(world, enclave, 80)
    assert code(world, enclave, 6) == ""
    before = enclave.holder.snapshot()
    assert code(world, enclave) == "budget_spent"
    assert enclave.holder.snapshot() == before
    assert enclave.holder.remaining("plain", enclave.holder.consumer(TOKENS["ann"])) == 0
    assert code(world, enclave, who="bob") == ""


@pytest.mark.parametrize("step", [-3600, 3600, 86_400])
def test_a_clock_that_steps_voids_the_lease_and_refills_no_budget(step: int) -> None:
    world, enclave = started(Limits(budgets=MINUTE.budgets, rate=Rate(units=1, per_s=60, burst=6)))
    age(world, enclave, 400)
    assert code(world, enclave, 6) == ""
    enclave.clock += timedelta(seconds=step)
    enclave.holder.void(enclave.time(world.now))
    assert code(world, enclave) == "clock_step"
    assert world.renew(enclave)
    assert code(world, enclave) in ("budget_spent", "rate_limited")
    age(world, enclave, 40)
    assert code(world, enclave) in ("budget_spent", "rate_limited")
    age(world, enclave, 40)
    assert code(world, enclave) == ""


@given(steps=st.lists(st.tuples(st.integers(-100_000, 100_000), st.booleans()), max_size=30))
def test_only_time_that_was_seen_to_pass_counts(steps: list[tuple[int, bool]]) -> None:
    """However a clock jumps, what passed is the sum of its steps forward that nobody voided."""
    clock, now, want = LeaseClock(), START, timedelta(0)
    clock.observe(now)
    for seconds, noticed in steps:
        now += timedelta(seconds=seconds)
        if noticed:
            clock.void(now)
        else:
            want += max(timedelta(0), now - (clock.seen or now))
        clock.observe(now)
        assert clock.passed == Passed(began=START, lasted=want)
        if clock.seen is not None:
            now = clock.seen


MOVES = st.lists(
    st.tuples(st.sampled_from(["pass", "step", "gap"]), st.integers(-100_000, 100_000), st.integers(1, 5)), max_size=60
)


@given(moves=MOVES, fixed=st.booleans())
def test_no_sequence_of_steps_and_gaps_wins_a_unit_over_time_that_passed(
    moves: list[tuple[str, int, int]], *, fixed: bool
) -> None:
    """A step is a moved clock that is noticed and voids; a gap is time without a lease. Only the second is time."""
    clock, now, real, served = LeaseClock(), START, 0, []
    clock.observe(now)
    counts = meters(Limits(budgets=(Budget(units=5, window_s=3600, fixed=fixed),)))
    for kind, seconds, wanted in moves:
        now += timedelta(seconds=abs(seconds) % 2000 if kind == "pass" else abs(seconds) if kind == "gap" else seconds)
        if kind == "step":
            clock.void(now)
        else:
            real += abs(seconds) % 2000 if kind == "pass" else abs(seconds)
        clock.observe(now)
        seen = clock.passed
        assert seen is not None
        assert seen.lasted == timedelta(seconds=real)
        try:
            counts.demand("ann", wanted, seen)
        except Rejected:
            continue
        counts.count("ann", wanted, seen)
        served.append((real, wanted))
    for at, _ in served:
        most = 2 * 5 if fixed else 5  # a fixed window may end in the middle of an hour that begins here
        assert sum(n for when, n in served if at <= when < at + 3600) <= most


def test_a_gap_without_a_lease_is_time_like_any_other() -> None:
    world, enclave = started(Limits(rate=Rate(units=1, per_s=10, burst=6)))
    age(world, enclave, 80)
    assert code(world, enclave, 6) == ""
    assert code(world, enclave) == "rate_limited"
    world.advance(61)
    assert code(world, enclave) == "lease_expired"
    assert world.renew(enclave)
    assert code(world, enclave, 6) == ""


def test_a_relaunched_instance_has_not_earned_what_the_one_before_it_spent() -> None:
    world, enclave = started(MINUTE)
    age(world, enclave, 80)
    assert code(world, enclave, 6) == ""
    world.kill(enclave)
    world.advance(200)
    again = world.launch()
    assert again is not None
    assert world.renew(again)
    assert code(world, again) == "budget_spent"


def test_a_borrower_that_hands_out_more_sub_allowances_wins_no_second_budget() -> None:
    world, enclave = started(MINUTE, guests=True)
    age(world, enclave, 80)
    codes = []
    for holder in (ANN, BEN):
        caveats = Caveats(not_after=world.now + timedelta(days=1))
        chain = Chain.start(BORROWER, loan=world.loan, holder=holder.verify_key, caveats=caveats)
        now = enclave.time(world.now)
        sub = enclave.holder.conditions.admit(chain.dump(), dump_b64u(holder.seed()).encode(), now)
        try:
            enclave.holder.reserve("plain", sub, 4, now)
            codes.append("")
        except Rejected as exc:
            codes.append(exc.code)
    assert codes == ["", "budget_spent"]
    assert code(world, enclave, 6) == ""  # a consumer of the loan has its own


RATE: Json = {"burst": 1, "per_s": 1, "units": 1}


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"each": {}},
        {"each": {"budgets": []}},
        {"each": {"rate": {"burst": 0, "per_s": 1, "units": 1}}},
        {"each": {"rate": {"per_s": 1, "units": 1}}},
        {"each": {"rate": RATE, "more": 1}},
        {"each": {"budgets": [{"units": 1, "window_s": 61}]}},
        {"each": {"budgets": [{"units": 1, "window_s": 30}]}},
        {"each": {"budgets": [{"units": 1, "window_s": 60, "fixed": False}]}},
        {"each": {"budgets": [{"units": 1, "window_s": 120}, {"units": 1, "window_s": 60}]}},
        {"each": {"budgets": [{"units": 1, "window_s": 60}, {"units": 2, "window_s": 60}]}},
        {"named": []},
        {"named": [{"id": "b"}, {"id": "a"}]},
        {"named": [{"id": "a"}, {"id": "a"}]},
        {"named": [{"id": "A"}]},
        {"anybody": {"rate": RATE}},
    ],
)
def test_limits_in_another_form_are_malformed(value: Json) -> None:
    with pytest.raises(Malformed):
        ConsumerLimits.from_json(value)


def test_limits_have_one_spelling() -> None:
    limits = ConsumerLimits(
        each=Limits(rate=Rate(units=5, per_s=1, burst=9), budgets=(HOUR, Budget(units=9, window_s=86_400, fixed=True))),
        guests=MINUTE,
        named=(("ann", Limits()),),
    )
    assert ConsumerLimits.from_json(limits.to_json()) == limits


def test_a_budget_that_leaves_an_instance_nothing_is_malformed() -> None:
    value = replace(limited(Limits(budgets=(Budget(units=3, window_s=60),))), max_instances=4).to_json()
    with pytest.raises(Malformed, match="leaves an instance nothing"):
        Terms.from_json(value)
