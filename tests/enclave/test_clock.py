"""The machine's clocks: what is asked at every step is cheap, and never stands still for long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cloister.enclave.clock import SystemClock

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
