"""The first page: how much there is, what is wrong, who waits, and where units go."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cloister.custodian.dashboard.desk import Page, Tab
from cloister.custodian.service import lists
from cloister.lending.terms import LoanId
from cloister.pages import NavEntry

if TYPE_CHECKING:
    from starlette.responses import Response

    from cloister.custodian.dashboard.visit import Visit

__all__ = ["PAGES", "TABS"]

_BUSIEST = 8
_MINUTES = 60


def overview(visit: Visit) -> Response:
    """Show how the custodian stands."""
    visit.demand("GET /v1/loans")
    context = visit.desk.service.context
    visit.demand("GET /v1/spending")
    spending: Any = visit.desk.service.spending.of_all(step=timedelta(minutes=1), steps=_MINUTES)
    minutes = [sum(loan["spent_steps"][index] for loan in spending["loans"]) for index in range(_MINUTES)]
    return visit.page(
        "overview.html",
        here="/",
        alarms=visit.ask("GET /v1/alarms")["alarms"],
        busiest=_busiest(visit, spending["loans"]),
        counts=lists.counts(context),
        minutes=minutes,
        name=visit.desk.service.config.name,
        profile=visit.desk.service.config.profile,
        waiting=lists.waiting(context),
    )


def _busiest(visit: Visit, loans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the loans that spent most in the last hour, with what they have left."""
    spent = [loan for loan in loans if any(loan["spent_steps"])]
    found = sorted(spent, key=lambda loan: sum(loan["spent_steps"]), reverse=True)[:_BUSIEST]
    names = lists.borrowers(visit.desk.service.context, [LoanId(loan["loan"]) for loan in found])
    return [
        {
            **loan,
            "borrower": names[loan["loan"]],
            "hour": sum(loan["spent_steps"]),
            "left": loan["granted"] - loan["spent"] - loan["written_off"],
        }
        for loan in found
    ]


TABS = (Tab(entry=NavEntry(path="/", title="Overview", keys="g o"), route="GET /v1/loans"),)
PAGES = (Page(path="/", work=overview),)
