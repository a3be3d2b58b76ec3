"""Models: the list, and one model with its versions, its keys and their age, and where it is lent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloister.custodian.dashboard.desk import Page, Tab
from cloister.custodian.service import lists
from cloister.custodian.service.blocks import bound_of
from cloister.custodian.service.models import parse_digest
from cloister.custodian.store.blocks import BlockKind
from cloister.lending.terms import LoanId
from cloister.pages import NavEntry

if TYPE_CHECKING:
    from starlette.responses import Response

    from cloister.custodian.dashboard.visit import Visit

__all__ = ["PAGES", "TABS"]

_MOST = 200  # loans of one model that its page names


def model_list(visit: Visit) -> Response:
    """Show every model, newest first."""
    return visit.page("models.html", here="/models", models=visit.ask("GET /v1/models")["models"])


def model(visit: Visit) -> Response:
    """Show one model."""
    digest = str(visit.request.path_params["digest"])
    found = visit.ask("GET /v1/models/{digest}", digest=digest)
    context = visit.desk.service.context
    standing = visit.ask("GET /v1/keys")
    keys: Any = lists.model_keys(context, parse_digest(digest))
    lent = found["loans"][:_MOST]
    blocks = [item for item in visit.ask("GET /v1/blocks")["blocks"] if item["subject"] == digest]
    return visit.page(
        "model.html",
        here="/models",
        block=blocks[0] if blocks else None,
        bound=bound_of(context, BlockKind.MODEL, digest),
        keys=keys["keys"],
        loans=lent,
        borrowers=lists.borrowers(context, [LoanId(name) for name in lent]),
        model=found,
        more=len(found["loans"]) - len(lent),
        size=sum(item["size"] for item in found["files"]),
        standing=standing,
        versions=keys["versions"],
    )


def withdraw(visit: Visit) -> Response:
    """Take a model out of every loan, for good."""
    digest = str(visit.request.path_params["digest"])
    return visit.act(
        "POST /v1/models/{digest}/withdraw", f"/models/{digest}", "withdrawn-model", body={}, digest=digest
    )


TABS = (Tab(entry=NavEntry(path="/models", title="Models", keys="g m"), route="GET /v1/models"),)
PAGES = (
    Page(path="/models", work=model_list),
    Page(path="/models/{digest}", work=model),
    Page(path="/models/{digest}/withdraw", method="POST", work=withdraw),
)
