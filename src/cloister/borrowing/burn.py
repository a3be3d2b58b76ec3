"""What was left over time as a chart, with where it goes from here."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.lending.forecast import Outlook
from cloister.pages import charts

if TYPE_CHECKING:
    from datetime import datetime

    from markupsafe import Markup

    from cloister.borrowing.books import Read
    from cloister.lending.forecast import Forecast

__all__ = ["burn_chart"]

_FURTHEST_S = 10 * 365 * 86_400.0  # beyond which no time is drawn


def burn_chart(read: Read, outlook: Forecast) -> Markup:
    """Return the chart."""
    left, spending = read.loan.whole.left, read.spending
    points = [charts.Point(at=one.at, units=one.units) for one in spending.left(left)]
    return charts.burn_down(
        points,
        now=spending.end,
        name="burn",
        title="What was left over time",
        text=f"{spending.lately} units were spent, {left} are left; {outlook.words}",
        forecast=_ahead(outlook, left),
    )


def _ahead(outlook: Forecast, left: int) -> charts.Forecast | None:
    if outlook.outlook is not Outlook.ENDS or outlook.rate is None:
        return None
    return charts.Forecast(
        likely=_at(outlook.at, left, outlook.rate.middle), early=outlook.earliest, late=outlook.latest
    )


def _at(now: datetime, left: int, rate: float) -> datetime | None:
    seconds = left / rate if rate > 0 else _FURTHEST_S
    return None if seconds >= _FURTHEST_S else now + timedelta(seconds=seconds)
