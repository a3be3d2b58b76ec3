"""The machine's clocks: what is asked at every step is cheap, and never stands still for long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cloister.enclave.clock import SystemClock, reader_of
from cloister.lending.clock import Readings

if TYPE_CHECKING:
    import pytest


def test_the_account_of_the_processor_is_read_again_where_its_clock_stands_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T37: a host that stops our clocks must not stop the one thing that shows it."""
    clock = SystemClock()
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: 0)
    first = clock.cpu()
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    assert max(clock.cpu() for _ in range(20)) > first


def test_the_account_of_the_processor_is_read_again_after_a_while() -> None:
    clock = SystemClock()
    first = clock.cpu()
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    assert clock.cpu() > first


def test_all_clocks_are_read_at_once_as_they_are_read_one_by_one() -> None:
    clock = SystemClock()
    read = reader_of(clock)
    before = Readings(raw=clock.raw(), cpu=clock.cpu(), monotonic=clock.monotonic(), wall=clock.wall())
    now = read()
    after = Readings(raw=clock.raw(), cpu=clock.cpu(), monotonic=clock.monotonic(), wall=clock.wall())
    assert before.raw is not None
    assert now.raw is not None
    assert after.raw is not None
    assert before.raw <= now.raw <= after.raw
    assert before.monotonic <= now.monotonic <= after.monotonic
    assert before.wall <= now.wall <= after.wall
    assert now.cpu is not None
