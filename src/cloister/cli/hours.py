"""Hours as people write them, always UTC: ``mon-fri 08:00-18:00``, ``sat 10:00-12:30``, ``fri 22:00-06:00``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloister.errors import UsageError
from cloister.lending.clauses import MAX_WINDOWS, Window

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["dump_hours", "parse_hours"]

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SPELLED = re.compile(r"(?:(\w{3})(?:-(\w{3}))?|daily) (\d\d):(\d\d)-(\d\d):(\d\d)")
_DAY_MINUTES = 24 * 60


def parse_hours(texts: Iterable[str]) -> tuple[Window, ...]:
    """Return the windows, in order. What passes midnight becomes two. Raises ``UsageError``."""
    windows = tuple(sorted({window for text in texts for window in _parse_one(text.strip().lower())}))
    if len(windows) > MAX_WINDOWS:
        msg = f"hours: {len(windows)} windows, want at most {MAX_WINDOWS}"
        raise UsageError(msg)
    return windows


def _parse_one(text: str) -> list[Window]:
    found = _SPELLED.fullmatch(text)
    days = _days(found[1], found[2]) if found else []
    start, end = (_minutes(found[3], found[4]), _minutes(found[5], found[6])) if found else (-1, -1)
    if not days or start in (-1, _DAY_MINUTES) or end in (-1, start):
        msg = f"hours {text[:60]!r}: want DAYS HH:MM-HH:MM in UTC, such as 'mon-fri 08:00-18:00' or 'daily 06:00-24:00'"
        raise UsageError(msg)
    if start < end:
        return [Window(day=day, start=start, end=end) for day in days]
    evening = [Window(day=day, start=start, end=_DAY_MINUTES) for day in days]
    return evening + [Window(day=day % 7 + 1, start=0, end=end) for day in days if end]


def _days(first: str | None, last: str | None) -> list[int]:
    """Return the ISO days; a range may run over Sunday. Empty for names that are none."""
    if first is None:
        return list(range(1, 8))
    if first not in _DAYS or (last or first) not in _DAYS:
        return []
    start, end = _DAYS.index(first), _DAYS.index(last or first)
    return [day % 7 + 1 for day in range(start, end + (7 if end < start else 0) + 1)]


def _minutes(hours: str, minutes: str) -> int:
    """Return minutes after midnight, -1 for a time that is none. ``24:00`` is the end of a day."""
    at = int(hours) * 60 + int(minutes)
    return at if int(minutes) < 60 and at <= _DAY_MINUTES else -1  # noqa: PLR2004 - minutes of an hour


def dump_hours(windows: Iterable[Window]) -> list[str]:
    """Return windows as people write them: days of the same times together."""
    times: dict[tuple[int, int], list[int]] = {}
    for window in windows:
        times.setdefault((window.start, window.end), []).append(window.day)
    return [f"{name} {_clock(start)}-{_clock(end)}" for (start, end), days in times.items() for name in _runs(days)]


def _runs(days: list[int]) -> list[str]:
    """Return the days as ranges: ``mon-fri``, ``sat``."""
    if len(days) == len(_DAYS):
        return ["daily"]
    runs: list[list[int]] = []
    for day in days:
        if runs and runs[-1][-1] == day - 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return [_DAYS[run[0] - 1] + (f"-{_DAYS[run[-1] - 1]}" if len(run) > 1 else "") for run in runs]


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"
