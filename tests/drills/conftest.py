"""What a drill measured is printed at the end, also where workers ran it: ``measured("kills a minute", 104)``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

_KEY = "drill: "


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Callable[[str, object], None]:
    """Return how to say a number that goes to the end of the run."""
    return lambda name, value: record_property(_KEY + name, value)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print every number, test by test."""
    rows = [
        (report.nodeid.rpartition("::")[2], name.removeprefix(_KEY), value)
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name.startswith(_KEY)
    ]
    if rows:
        terminalreporter.section("drills: measured")
    for test, name, value in rows:
        terminalreporter.line(f"{test}: {name}: {value}")
