"""Times and durations in few words, each with the exact time beside it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from jinja2 import pass_context
from markupsafe import Markup

from cloister.wire import dump_time, parse_time

if TYPE_CHECKING:
    from jinja2.runtime import Context

__all__ = ["clock_filter", "lasting", "life_filter", "relative", "when_filter"]

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_FAR_S = 60 * 86_400  # seconds from which on a date says more than a count of days
_NOW_S = 5


def lasting(seconds: int) -> str:
    """Return a duration in its two largest units: ``2 d 3 h``, ``45 s``."""
    parts: list[str] = []
    left = abs(seconds)
    for size, name in _UNITS:
        if left >= size and len(parts) < 2:  # noqa: PLR2004 - the two largest
            parts.append(f"{left // size} {name}")
            left %= size
        elif parts:
            break
    return " ".join(parts) or "0 s"


def relative(moment: datetime, now: datetime) -> str:
    """Return how far a moment is from now: ``3 min ago``, ``in 2 d 4 h``, or the day where it is far."""
    seconds = int((moment - now).total_seconds())
    if abs(seconds) < _NOW_S:
        return "now"
    if abs(seconds) >= _FAR_S:
        return moment.strftime("%Y-%m-%d")
    return f"in {lasting(seconds)}" if seconds > 0 else f"{lasting(seconds)} ago"


def _moment(value: datetime | str) -> datetime:
    return parse_time(value, what="time") if isinstance(value, str) else value


@pass_context
def when_filter(context: Context, value: datetime | str | None) -> Markup:
    """Return a moment relative to the page's ``now``, the exact one as its title."""
    if value is None:
        return Markup("\N{EM DASH}")
    moment = _moment(value)
    return Markup('<time datetime="{}" title="{}" data-relative>{}</time>').format(
        dump_time(moment), _exact(moment), relative(moment, context["now"])
    )


def clock_filter(value: datetime | str) -> Markup:
    """Return the exact time, in UTC."""
    moment = _moment(value)
    return Markup('<time datetime="{}">{}</time>').format(dump_time(moment), _exact(moment))


def life_filter(value: float | timedelta) -> str:
    """Return a duration in words."""
    return lasting(int(value.total_seconds() if isinstance(value, timedelta) else value))


def _exact(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
