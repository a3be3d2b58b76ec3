"""TPM devices: which are enrolled, awaited and retired; named, retired and let in again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.dashboard.desk import Page, Tab
from cloister.pages import NavEntry

if TYPE_CHECKING:
    from starlette.responses import Response

    from cloister.custodian.dashboard.visit import Visit
    from cloister.wire import Json

__all__ = ["PAGES", "TABS"]


def device_list(visit: Visit) -> Response:
    """Show every device."""
    return visit.page("devices.html", here="/devices", devices=visit.ask("GET /v1/devices")["devices"])


def device(visit: Visit) -> Response:
    """Show one device, and what runs on it."""
    found = visit.ask("GET /v1/devices/{device}", device=_named(visit))
    return visit.page("device.html", here="/devices", device=found)


def label(visit: Visit) -> Response:
    """Give a device a name for people."""
    return _act(visit, "label", "named", {"label": visit.text("label")})


def retire(visit: Visit) -> Response:
    """Retire a device: it gets no key any more."""
    return _act(visit, "retire", "retired", visit.optional("reason"))


def readmit(visit: Visit) -> Response:
    """Let a retired device enrol again."""
    return _act(visit, "readmit", "readmitted", {})


def _named(visit: Visit) -> str:
    return str(visit.request.path_params["device"])


def _act(visit: Visit, verb: str, done: str, body: dict[str, Json]) -> Response:
    name = _named(visit)
    return visit.act(f"POST /v1/devices/{{device}}/{verb}", f"/devices/{name}", done, body=body, device=name)


TABS = (Tab(entry=NavEntry(path="/devices", title="Devices", keys="g d"), route="GET /v1/devices"),)
PAGES = (
    Page(path="/devices", work=device_list),
    Page(path="/devices/{device}", work=device),
    Page(path="/devices/{device}/label", method="POST", work=label),
    Page(path="/devices/{device}/retire", method="POST", work=retire),
    Page(path="/devices/{device}/readmit", method="POST", work=readmit),
)
