"""Loans: the list, and one loan with its allowance, burn-down, enclaves, requests, terms and what can be done to it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cloister.custodian.dashboard.desk import Page, Tab
from cloister.custodian.service import lists
from cloister.custodian.service.standing import parse_loan_id
from cloister.lending.forecast import Spent, forecast
from cloister.lending.terms import LOAN_METER, Meter
from cloister.pages import NavEntry
from cloister.pages.charts import Forecast, Point
from cloister.wire import parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from starlette.responses import Response

    from cloister.custodian.dashboard.visit import Visit
    from cloister.wire import Json

__all__ = ["PAGES", "TABS"]

_ROWS = 50
_MAX_LIKE = 100
_STEPS = 60
_SHOWN = 20  # enclaves and answered requests of one loan on its page
SPANS: Mapping[str, timedelta] = {
    "1h": timedelta(hours=1),
    "1d": timedelta(days=1),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
"""How far back a burn-down may look, by what the address says."""


def loan_list(visit: Visit) -> Response:
    """Show some loans, newest first."""
    visit.demand("GET /v1/loans")
    like, skip = visit.request.query_params.get("q", "")[:_MAX_LIKE].strip(), visit.rows_before()
    found: Any = lists.loan_page(visit.desk.service.context, like=like, skip=skip, limit=_ROWS)
    return visit.page(
        "loans.html", here="/loans", loans=found["loans"], like=like, skip=skip, rows=_ROWS, total=found["total"]
    )


def loan(visit: Visit) -> Response:
    """Show one loan."""
    name = str(visit.request.path_params["loan"])
    found = visit.ask("GET /v1/loans/{loan}", loan=name)
    span = visit.request.query_params.get("span", "")
    if span not in SPANS:
        span = _fitting(visit.now - parse_time(found["created_at"], what="loan"))
    open_asks = [ask for ask in found["requests"] if ask["state"] == "open"]
    return visit.page(
        "loan.html",
        here="/loans",
        **_burn_down(visit, found, SPANS[span]),
        answered=[ask for ask in found["requests"] if ask["state"] != "open"][:_SHOWN],
        asks=open_asks,
        blocks=_blocks(visit, found),
        instances=found["instances"][:_SHOWN],
        more_instances=max(0, len(found["instances"]) - _SHOWN),
        loan=found,
        meters=sorted(found["meters"].items(), key=lambda item: (item[0] != LOAN_METER, item[0])),
        span=span,
        spans=tuple(SPANS),
        terms=found["terms"],
    )


def _fitting(age: timedelta) -> str:
    """Return the shortest time that shows most of a loan's life."""
    return next((name for name, span in SPANS.items() if age <= span * 2), "30d")


def _blocks(visit: Visit, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the blocks in force on this loan, its models and its consumers."""
    models = {model["digest"] for model in found["models"]}
    return [
        block
        for block in visit.ask("GET /v1/blocks")["blocks"]
        if block["subject"] in {found["loan"], *models} or block["loan"] == found["loan"]
    ]


def _burn_down(visit: Visit, found: dict[str, Any], span: timedelta) -> dict[str, Any]:
    """Return what the burn-down shows: points, forecast and both in words."""
    name, now = parse_loan_id(found["loan"]), visit.now
    step = span / _STEPS
    burned: Any = lists.burn_down(visit.desk.service.context, name, step=step, steps=_STEPS)
    created = parse_time(found["created_at"], what="loan")
    begin = now - span
    points = [Point(at=begin + step * index, units=units) for index, units in enumerate(burned["left"])]
    points = [point for point in points if point.at >= created - step]
    said = forecast(_sums(burned["spent"], begin, step), left=burned["left"][-1], now=now, window=span)
    chart = None
    if said.earliest is not None:
        middle = None if said.rate is None or said.rate.middle <= 0 else burned["left"][-1] / said.rate.middle
        likely = (
            None if middle is None or middle > timedelta(days=365).total_seconds() else now + timedelta(seconds=middle)
        )
        chart = Forecast(likely=likely, early=said.earliest, late=said.latest)
    return {
        "ahead": chart,
        "forecast": said,
        "left": burned["left"][-1],
        "points": points,
        "spent": list(zip((begin + step * index for index in range(_STEPS)), burned["spent"], strict=True)),
    }


def _sums(spent: list[int], begin: datetime, step: timedelta) -> list[Spent]:
    """Return what was spent in each step as sums since the first."""
    sums, whole = [Spent(at=begin, units=0)], 0
    for index, units in enumerate(spent):
        whole += units
        sums.append(Spent(at=begin + step * (index + 1), units=whole))
    return sums


def top_up(visit: Visit) -> Response:
    """Add units to an allowance."""
    return _allowance(visit, "top-up", "topped-up")


def set_units(visit: Visit) -> Response:
    """Set what an allowance still holds."""
    return _allowance(visit, "set", "set")


def _allowance(visit: Visit, verb: str, done: str) -> Response:
    name = str(visit.request.path_params["loan"])
    body: Json = {"meter": str(Meter(visit.text("meter") or LOAN_METER)), "units": visit.units()}
    return visit.act(f"POST /v1/loans/{{loan}}/{verb}", f"/loans/{name}", done, body=body, loan=name)


def approve(visit: Visit) -> Response:
    """Approve a borrower's request, with its units or others."""
    name, ask = (str(visit.request.path_params[part]) for part in ("loan", "ask"))
    route = "POST /v1/loans/{loan}/requests/{request}/approve"
    return visit.act(route, f"/loans/{name}", "asked-units", body={"units": visit.units()}, loan=name, request=ask)


def deny(visit: Visit) -> Response:
    """Deny a borrower's request."""
    name, ask = (str(visit.request.path_params[part]) for part in ("loan", "ask"))
    route = "POST /v1/loans/{loan}/requests/{request}/deny"
    return visit.act(route, f"/loans/{name}", "answered", body=visit.optional("reason"), loan=name, request=ask)


TABS = (Tab(entry=NavEntry(path="/loans", title="Loans", keys="g l"), route="GET /v1/loans"),)
PAGES = (
    Page(path="/loans", work=loan_list),
    Page(path="/loans/{loan}", work=loan),
    Page(path="/loans/{loan}/top-up", method="POST", work=top_up),
    Page(path="/loans/{loan}/set", method="POST", work=set_units),
    Page(path="/loans/{loan}/requests/{ask}/approve", method="POST", work=approve),
    Page(path="/loans/{loan}/requests/{ask}/deny", method="POST", work=deny),
)
