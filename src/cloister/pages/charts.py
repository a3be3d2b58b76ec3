"""Charts drawn by the server: SVG with a title and a description, coloured by the style sheet alone.

No chart is the only place where its numbers stand: a page has a table beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Forecast", "Point", "burn_down", "columns", "meter", "sparkline"]

_WIDE, _HIGH = 720.0, 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 12.0, 12.0, 26.0
_AHEAD = 0.35  # of the time that is shown, for a forecast without an end
_LINES = 4
_TICKS = 5
_DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What was left at one moment."""

    at: datetime
    units: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """When nothing will be left: at this pace, at the soonest, at the latest; None where that is never."""

    likely: datetime | None
    early: datetime | None
    late: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plane:
    begin: datetime
    end: datetime
    top: float

    def x(self, moment: datetime) -> float:
        whole = max((self.end - self.begin).total_seconds(), 1.0)
        part = (moment - self.begin).total_seconds() / whole
        return round(_LEFT + min(max(part, 0.0), 1.0) * (_WIDE - _LEFT - _RIGHT), 1)

    def y(self, units: float) -> float:
        part = min(max(units / self.top, 0.0), 1.0)
        return round(_HIGH - _BOTTOM - part * (_HIGH - _TOP - _BOTTOM), 1)


def burn_down(
    points: Sequence[Point], *, now: datetime, name: str, title: str, text: str, forecast: Forecast | None = None
) -> Markup:
    """Return what was left over time, and where it goes from now on.

    ``name`` is an id that no other chart of the page has; ``text`` says in words what the chart shows.
    """
    if not points:
        return Markup("")
    plane = _plane(points, now, forecast)
    last = points[-1]
    parts = [*_grid(plane)]
    if forecast is not None:
        parts += _outlook(plane, now, last.units, forecast)
    line = " ".join(_steps(plane, points, now))
    floor = plane.y(0)
    parts.append(_path(f"M{plane.x(points[0].at)},{floor} L{line[1:]} L{plane.x(now)},{floor} Z", "area"))
    parts.append(_path(line, "line"))
    parts.append(Markup('<circle class="dot" cx="{}" cy="{}" r="3.5"/>').format(plane.x(now), plane.y(last.units)))
    return _svg("chart", _WIDE, _HIGH, parts, text=text, name=name, title=title)


def _plane(points: Sequence[Point], now: datetime, forecast: Forecast | None) -> _Plane:
    begin = min(points[0].at, now - timedelta(minutes=1))
    shown = now - begin
    end = now + shown * _AHEAD
    ends = [] if forecast is None else [item for item in (forecast.likely, forecast.late) if item is not None]
    if ends:
        end = min(max(*ends, end), now + shown * 3)  # what is far away does not flatten what was
    return _Plane(begin=begin, end=end, top=_nice(max(1.0, *(item.units for item in points))))


def _nice(value: float) -> float:
    """Return the next larger number that divides well."""
    size = 10.0 ** math.floor(math.log10(value))
    return next(size * step for step in (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10) if size * step >= value)


def _steps(plane: _Plane, points: Sequence[Point], now: datetime) -> Iterator[str]:
    """Yield the path of what was left: level until it changes."""
    yield f"M{plane.x(points[0].at)},{plane.y(points[0].units)}"
    for before, item in pairwise(points):
        yield f"L{plane.x(item.at)},{plane.y(before.units)} L{plane.x(item.at)},{plane.y(item.units)}"
    yield f"L{plane.x(now)},{plane.y(points[-1].units)}"


def _outlook(plane: _Plane, now: datetime, units: float, forecast: Forecast) -> Iterator[Markup]:
    begin = f"{plane.x(now)},{plane.y(units)}"
    early = forecast.early or forecast.likely
    if early is not None:
        soon = f"{plane.x(early)},{plane.y(_left_at(plane.end, now, units, early))}"
        late = f"{plane.x(forecast.late or plane.end)},{plane.y(_left_at(plane.end, now, units, forecast.late))}"
        yield _path(f"M{begin} L{soon} L{late} Z", "band")
    if forecast.likely is not None:
        yield _path(f"M{begin} L{_line_end(plane, now, units, forecast.likely)}", "ahead")


def _line_end(plane: _Plane, now: datetime, units: float, empty: datetime) -> str:
    return f"{plane.x(min(empty, plane.end))},{plane.y(_left_at(plane.end, now, units, empty))}"


def _left_at(end: datetime, now: datetime, units: float, empty: datetime | None) -> float:
    """Return what is left where the picture ends, if all is gone at ``empty``."""
    if empty is None:
        return units
    if empty <= end:
        return 0.0
    return units * (1 - (end - now) / (empty - now))


def _grid(plane: _Plane) -> Iterator[Markup]:
    for index in range(_LINES + 1):
        units = plane.top * index / _LINES
        y = plane.y(units)
        yield Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(_LEFT, _WIDE - _RIGHT, y, y)
        yield Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>').format(
            _LEFT - 8, y + 4, compact(units)
        )
    form = "%d %b" if (plane.end - plane.begin).total_seconds() > 2 * _DAY_S else "%H:%M"
    for index in range(_TICKS):
        moment = plane.begin + (plane.end - plane.begin) * index / (_TICKS - 1)
        anchor = "start" if index == 0 else "end" if index == _TICKS - 1 else "middle"
        yield Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>').format(
            plane.x(moment), _HIGH - 8, anchor, moment.strftime(form).lstrip("0")
        )


def compact(units: float) -> str:
    """Return a number in at most four or five characters: ``950``, ``1.2k``, ``30M``."""
    for size, suffix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if units >= size:
            return f"{units / size:.3g}{suffix}"
    return f"{units:.3g}"


def sparkline(values: Sequence[float], *, text: str) -> Markup:
    """Return a small line of values from old to new, described by ``text``."""
    if not values:
        return Markup("")
    wide, high = 120.0, 28.0
    top = max(*values, 1.0) if len(values) > 1 else max(values[0], 1.0)
    step = wide / max(len(values) - 1, 1)
    dots = [f"{round(index * step, 1)},{round(high - 2 - value / top * (high - 4), 1)}" for index, value in
            enumerate(values)]  # fmt: skip
    line = f"M{' L'.join(dots)}"
    parts = [_path(f"{line} L{wide},{high} L0,{high} Z", "area"), _path(line, "line")]
    return _svg("spark", wide, high, parts, text=text)


def columns(values: Sequence[float], *, name: str, title: str, text: str) -> Markup:
    """Return one column for each value, from old to new."""
    if not values:
        return Markup("")
    wide, high = _WIDE, 96.0
    top = _nice(max(1.0, *values, 1.0))
    step = wide / len(values)
    parts = []
    for index, value in enumerate(values):
        tall = round(value / top * (high - 2), 1)
        parts.append(
            Markup('<rect class="column" x="{}" y="{}" width="{}" height="{}"/>').format(
                round(index * step + step * 0.1, 1), round(high - tall, 1), round(step * 0.8, 1), tall
            )
        )
    parts.append(Markup('<line class="grid" x1="0" x2="{}" y1="{}" y2="{}"/>').format(wide, high - 0.5, high - 0.5))
    return _svg("chart low", wide, high, parts, text=text, name=name, title=title)


def meter(parts: Sequence[tuple[str, float]], *, whole: float, text: str) -> Markup:
    """Return a bar of parts of a whole, each ``(class, amount)``; ``text`` says the same in words."""
    drawn, left = [], 0.0
    for kind, amount in parts:
        share = 0.0 if whole <= 0 else max(0.0, min(amount / whole, 1.0 - left))
        if share > 0:
            drawn.append(
                Markup('<rect class="{}" x="{}%" width="{}%" height="100%"/>').format(
                    kind, round(left * 100, 2), round(share * 100, 2)
                )
            )
        left += share
    return Markup(
        '<svg class="meter" role="img" aria-label="{}"><rect class="track" width="100%" height="100%"/>{}</svg>'
    ).format(text, Markup("").join(drawn))


def _path(steps: str, kind: str) -> Markup:
    return Markup('<path class="{}" d="{}"/>').format(kind, steps)


def _svg(
    kind: str, wide: float, high: float, parts: Sequence[Markup], *, text: str, name: str = "", title: str = ""
) -> Markup:
    """Return the picture; without a name it has a label alone."""
    inside = Markup("").join(parts)
    box = f"0 0 {wide:g} {high:g}"
    if not name:
        return Markup(
            '<svg class="{}" viewBox="{}" role="img" aria-label="{}" preserveAspectRatio="none">{}</svg>'
        ).format(kind, box, text, inside)
    return Markup(
        '<svg class="{}" viewBox="{}" role="img" aria-labelledby="{}-title {}-text">'
        '<title id="{}-title">{}</title><desc id="{}-text">{}</desc>{}</svg>'
    ).format(kind, box, name, name, name, title, name, text, inside)
