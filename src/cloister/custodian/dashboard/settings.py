"""How the custodian is set up and stands: health part by part, keys and their rotation, retention, every setting."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from cloister.custodian.dashboard.desk import Page, Tab
from cloister.custodian.service import pruning
from cloister.errors import Malformed
from cloister.pages import NavEntry

if TYPE_CHECKING:
    from starlette.responses import Response

    from cloister.custodian.config import Config
    from cloister.custodian.dashboard.visit import Visit

__all__ = ["PAGES", "TABS"]

_DAY_S = 86_400
_MAX_DAYS = 36_500
_LOOKED_AT = 1000  # entries whose period may be over that are counted, the oldest
_PASSWORD = re.compile(r"(?<=://)([^/@:]*):[^/@]*@")


def settings(visit: Visit) -> Response:
    """Show how the custodian stands; its settings to admins alone."""
    overseer = visit.may("GET /v1/audit/retention")
    return visit.page(
        "settings.html",
        here="/settings",
        authorities=visit.ask("GET /v1/certificates/authorities"),
        custodian=visit.ask("GET /v1/custodian"),
        health=visit.ask("GET /readyz"),
        holds=visit.ask("GET /v1/audit/holds")["holds"] if overseer else None,
        keys=visit.ask("GET /v1/keys"),
        looked_at=_LOOKED_AT,
        retention=_retention(visit) if overseer else None,
        values=_values(visit.desk.service.config) if visit.may("GET /v1/tokens") else None,
    )


def _retention(visit: Visit) -> Any:
    """Return what the API's route does, of the oldest entries alone: a page that is live does not read a whole log."""
    visit.demand("GET /v1/audit/retention")
    found: Any = pruning.due_list(visit.desk.service.context, most=_LOOKED_AT)
    return found["classes"]


def _values(config: Config) -> list[tuple[str, str, str, bool]]:
    """Return every setting: its name, its value, what it is, whether it is the default. No setting is a secret."""
    return [
        (
            item.name,
            _shown(getattr(config, item.name)),
            item.metadata["doc"],
            getattr(config, item.name) == item.default,
        )
        for item in fields(config)
    ]


def _shown(value: object) -> str:
    """Return a setting for people; a password that somebody wrote into a URL is left out."""
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return _PASSWORD.sub(r"\1:…@", text)


def rotate(visit: Visit) -> Response:
    """Make a new key-encryption key; where two persons decide, ask for it."""
    incident = {"incident": True} if visit.text("incident") == "yes" else {}
    body = {**visit.optional("reason"), **incident}
    return visit.act("POST /v1/keys/rotate", "/settings", "rotated", body=body)


def schedule(visit: Visit) -> Response:
    """Let the keys rotate by themselves every so many days, or never."""
    text = visit.text("days")
    if not text.isascii() or not text.isdigit() or len(text) > len(str(_MAX_DAYS)):
        msg = "days: want a whole number, 0 for never"
        raise Malformed(msg)
    return visit.act("POST /v1/keys/schedule", "/settings", "scheduled", body={"every_s": int(text) * _DAY_S})


TABS = (Tab(entry=NavEntry(path="/settings", title="Settings", keys="g s"), route="GET /v1/keys"),)
PAGES = (
    Page(path="/settings", work=settings),
    Page(path="/settings/rotate", method="POST", work=rotate),
    Page(path="/settings/schedule", method="POST", work=schedule),
)
