"""Clocks that lie: two of them compared, and a custodian's own (T37, T52)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cloister.errors import Rejected, Unavailable
from cloister.lending.clock import ClockGuard, custodian_time, lifetime
from cloister.lending.lease_clock import LeaseClock

WALL = datetime(2026, 1, 1, tzinfo=UTC)
T = timedelta(seconds=60)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def guard() -> ClockGuard:
    return ClockGuard(monotonic=seconds(1000), wall=WALL)


def test_now_follows_the_monotonic_clock() -> None:
    clock = guard()
    assert clock.now(monotonic=seconds(1000), wall=WALL) == WALL
    assert clock.now(monotonic=seconds(1010), wall=WALL + seconds(10.5)) == WALL + seconds(10)
    assert clock.now(monotonic=seconds(9000), wall=WALL + seconds(8008)) == WALL + seconds(8000)  # drift


@pytest.mark.parametrize(
    ("monotonic", "wall"),
    [
        (1010, -3600),  # the wall was set back
        (1010, 3600),  # the wall was set forward
        (1010, 8.9),  # the wall is slow
        (999, -1),  # both back: what faketime does
        (1000, 60),  # frozen
        (4600, 10),  # the monotonic clock leapt
    ],
)
def test_t37_two_clocks_apart_are_a_step(monotonic: float, wall: float) -> None:
    clock = guard()
    with pytest.raises(Rejected) as caught:
        clock.now(monotonic=seconds(monotonic), wall=WALL + seconds(wall))
    assert caught.value.code == "clock_step"
    after = clock.now(monotonic=seconds(monotonic + 5), wall=WALL + seconds(wall + 5))
    assert after == WALL + seconds(wall + 5)


def test_t52_custodian_time_never_runs_back() -> None:
    assert custodian_time(WALL + seconds(1), latest=WALL) == WALL + seconds(1)
    assert custodian_time(WALL - seconds(5), latest=WALL) == WALL
    with pytest.raises(Unavailable, match="behind the database"):
        custodian_time(WALL - seconds(5.1), latest=WALL)


def test_lifetime_is_t_with_drift_and_slack() -> None:
    assert lifetime(T) == seconds(61.06)


def test_renewal_comes_at_a_third_and_then_every_tenth() -> None:
    clock = LeaseClock()
    clock.observe(WALL)
    assert clock.due(WALL, ttl=T, hurry=False, jitter=0.5) == WALL
    clock.sent(WALL, first=True, ttl=T)
    assert clock.due(WALL, ttl=T, hurry=False, jitter=0.5) == WALL + seconds(6)
    clock.extend(T)
    assert clock.due(WALL, ttl=T, hurry=False, jitter=0.5) == WALL + seconds(20)
    assert clock.due(WALL, ttl=T, hurry=True, jitter=0.5) == WALL + seconds(6)
    clock.sent(WALL + seconds(20), first=True, ttl=T)
    low, high = (clock.due(WALL + seconds(20), ttl=T, hurry=False, jitter=jitter) for jitter in (0.0, 1.0))
    assert (low, high) == (WALL + seconds(24.5), WALL + seconds(27.5))


def test_three_lost_renewals_are_tolerated() -> None:
    clock = LeaseClock()
    clock.observe(WALL)
    clock.sent(WALL, first=True, ttl=T)
    clock.extend(T)
    moment, tries = WALL, 0
    while True:
        moment = clock.due(moment, ttl=T, hurry=False, jitter=1.0)
        clock.observe(moment)
        if not clock.live:
            break
        clock.sent(moment, first=tries == 0, ttl=T)
        tries += 1
    assert tries > 3


def test_a_refusal_with_a_wait_is_waited_for() -> None:
    clock = LeaseClock()
    clock.wait(seconds(30))
    assert clock.due(WALL, ttl=T, hurry=True, jitter=0) == WALL
    clock.observe(WALL)
    clock.wait(seconds(30))
    assert clock.due(WALL, ttl=T, hurry=True, jitter=0) == WALL + seconds(30)


def test_the_end_is_two_t_after_the_last_renewed_request_was_sent() -> None:
    clock = LeaseClock()
    assert not clock.over(WALL + 100 * T)
    clock.observe(WALL)
    clock.sent(WALL, first=True, ttl=T)
    assert not clock.over(WALL + seconds(119.9))
    assert clock.over(WALL + seconds(120))
    clock.sent(WALL + seconds(50), first=False, ttl=T)
    clock.extend(T)
    assert clock.over(WALL + seconds(120))  # the answer was to the first sending
    clock.sent(WALL + seconds(60), first=True, ttl=T)
    clock.extend(T)
    assert not clock.over(WALL + seconds(179))


def test_time_that_runs_back_a_little_stands_still() -> None:
    clock = LeaseClock()
    clock.observe(WALL)
    clock.sent(WALL, first=True, ttl=T)
    clock.extend(T)
    assert clock.observe(WALL - seconds(0.9)) == WALL
    assert clock.live
    assert clock.observe(WALL - seconds(1.1)) == WALL - seconds(1.1)
    assert not clock.live
    assert clock.stepped
