"""Clocks that lie: two of them compared, and a custodian's own (T37, T52)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cloister.errors import Rejected, Unavailable
from cloister.lending.clock import ClockGuard, Readings, SignedTimes, custodian_time, lifetime
from cloister.lending.lease_clock import LeaseClock

WALL = datetime(2026, 1, 1, tzinfo=UTC)
T = timedelta(seconds=60)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def guard() -> ClockGuard:
    return ClockGuard(Readings(monotonic=seconds(1000), wall=WALL))


def test_now_follows_the_monotonic_clock() -> None:
    clock = guard()
    assert clock.now(Readings(monotonic=seconds(1000), wall=WALL)) == WALL
    assert clock.now(Readings(monotonic=seconds(1010), wall=WALL + seconds(10.5))) == WALL + seconds(10)
    assert clock.now(Readings(monotonic=seconds(9000), wall=WALL + seconds(8008))) == WALL + seconds(8000)  # drift


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
        clock.now(Readings(monotonic=seconds(monotonic), wall=WALL + seconds(wall)))
    assert caught.value.code == "clock_step"
    after = clock.now(Readings(monotonic=seconds(monotonic + 5), wall=WALL + seconds(wall + 5)))
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


HOUR, YEAR = 3600, 365 * 86_400


def at(
    count: float, *, wall: float | None = None, raw: float | None = None, cpu: float = 0, boot: float = 0
) -> Readings:
    """Return honest readings ``count`` seconds after the start, but for what is named."""
    return Readings(
        monotonic=seconds(1000 + count + boot),
        wall=WALL + seconds(count if wall is None else wall),
        raw=seconds(500 + (count if raw is None else raw)),
        cpu=seconds(cpu),
    )


def watched(cores: int = 1) -> ClockGuard:
    return ClockGuard(at(0), cores=cores)


def code_of(clock: ClockGuard, readings: Readings) -> str:
    with pytest.raises(Rejected) as caught:
        clock.now(readings)
    assert clock.fresh == readings.wall, "it starts anew from what it saw"
    return caught.value.code


@pytest.mark.parametrize("step", [-YEAR, -HOUR, -1.1, 1.2, HOUR, YEAR])
@pytest.mark.parametrize("later", [1, 30])
def test_t37_a_set_clock_is_a_step_whichever_clock_it_was(step: float, later: int) -> None:
    assert code_of(watched(), at(later, wall=later + step)) == "clock_step"
    assert code_of(watched(), at(later, boot=step)) in {"clock_step", "clock_rate", "clock_gap"}
    assert code_of(watched(), at(later, raw=later + step)) in {"clock_step", "clock_rate", "clock_gap"}


def test_t37_a_lease_clock_slower_than_the_raw_one_is_found_by_its_rate() -> None:
    clock = watched()
    assert code_of(clock, at(2, boot=-1.98, wall=0.02)) == "clock_rate"  # 100 times slower


def test_t37_a_sleeping_laptop_is_a_gap() -> None:
    assert code_of(watched(), at(600, raw=3)) == "clock_gap"


@pytest.mark.parametrize("factor", [0, 0.01, 0.1])
def test_t37_work_without_time_is_a_frozen_clock(factor: float) -> None:
    """All clocks slowed alike, the processor busy: found after about one second too many of its time."""
    clock, worked = watched(), 0.0
    for _ in range(1000):
        worked += 0.01
        now = worked * factor
        if worked > now + 1.001:
            assert code_of(clock, at(now, cpu=worked)) == "clock_frozen"
            break
        clock.now(at(now, cpu=worked))
    assert worked < 1.2


def test_t37_after_an_idle_hour_a_frozen_clock_is_found_as_fast() -> None:
    clock = watched(cores=2)
    for second in range(0, HOUR, 1):
        clock.now(at(second, cpu=second / 1000))
    spent = HOUR / 1000
    clock.now(at(HOUR, cpu=spent + 2))
    assert code_of(clock, at(HOUR, cpu=spent + 3.5)) == "clock_frozen"


def test_busy_cores_are_no_anomaly() -> None:
    clock = watched(cores=4)
    for second in range(100):
        clock.now(at(second, cpu=4 * second))


@pytest.mark.parametrize(
    "wall",
    [
        datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC),
        datetime(2106, 2, 7, 6, 28, 15, tzinfo=UTC),
        datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC),  # summer time begins
        datetime(2026, 10, 25, 0, 59, 59, tzinfo=UTC),  # and ends
        datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC),
        datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC),  # a leap second
    ],
)
def test_no_date_is_special(wall: datetime) -> None:
    clock = ClockGuard(Readings(monotonic=seconds(0), wall=wall))
    for second in range(1, 4):
        leap = 0.9 if second > 1 else 0  # the kernel repeats a second at most
        readings = Readings(monotonic=seconds(second), wall=wall + seconds(second - leap))
        assert clock.now(readings) == wall + seconds(second)


def test_t37_heartbeats_that_stop_are_a_gap_and_none_is_expected_before_the_first() -> None:
    clock = watched()
    clock.now(at(100))
    clock.beat()
    for second in range(101, 120, 4):
        clock.now(at(second))
        clock.beat()
    clock.now(at(122))
    assert code_of(clock, at(122.1)) == "clock_gap"
    clock.now(at(123))


def test_a_clock_that_is_steered_within_drift_is_no_anomaly() -> None:
    clock = watched()
    for second in range(0, 86_400, 60):
        clock.now(at(second, wall=second * 1.0005, raw=second * 0.9995))


def leases(pace: float, *, count: int = 10, delay: float = 0.05, jump: float = 0) -> str:
    """Renew every 20 s of our own time while the custodian's passes ``pace`` times as fast; return what was found."""
    signed = SignedTimes()
    for index in range(count):
        sent = WALL + seconds(20 * index)
        issued = WALL + seconds(20 * index * pace + delay / 2 + (jump if index > count // 2 else 0))
        try:
            signed.take(sent=sent, received=sent + seconds(delay), issued_at=issued)
        except Rejected as exc:
            return exc.code
    return ""


@pytest.mark.parametrize(
    ("pace", "want"),
    [
        (1, ""),
        (1.0009, ""),
        (0.9991, ""),
        (100, "clock_slow"),
        (1.1, "clock_slow"),
        (0.9, "clock_fast"),
        (0.01, "clock_fast"),
    ],
)
def test_t37_the_custodians_signed_times_find_every_clock_slowed_alike(pace: float, want: str) -> None:
    assert leases(pace) == want


def test_a_custodian_that_corrects_its_clock_or_answers_late_is_no_anomaly() -> None:
    assert leases(1, jump=4.9) == ""
    assert leases(1, jump=-4.9) == ""
    assert leases(1, delay=19) == ""
    assert leases(1, jump=HOUR) == "clock_slow"


def test_t37_a_host_that_holds_answers_back_cannot_hide_a_slow_clock() -> None:
    """Ours passes 1 s while the custodian's passes 100 s; the answer is held back as long as anybody likes."""
    signed = SignedTimes()
    signed.take(sent=WALL, received=WALL + seconds(0.1), issued_at=WALL)
    with pytest.raises(Rejected) as caught:
        signed.take(sent=WALL + seconds(1), received=WALL + seconds(1.5), issued_at=WALL + seconds(100))
    assert caught.value.code == "clock_slow"
