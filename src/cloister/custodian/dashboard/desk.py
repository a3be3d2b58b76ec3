"""What all pages of one custodian share, and what a page is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from cloister.custodian.admitting import Limits
    from cloister.custodian.dashboard.visit import Visit
    from cloister.custodian.service import CustodianService
    from cloister.pages import NavEntry, Site

__all__ = ["BELOW", "UI", "Desk", "Page", "Tab"]

UI = "/ui"
"""Where the pages are, below the custodian's own address."""
BELOW = "cloister.below"
"""In a request's scope: what a host of tenants took from the front of its path, as it was sent."""
_COOKIE = "__Host-cloister"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page or action: its path below the base, what answers it. ``again``: it wants the token itself, once more."""

    path: str
    work: Callable[[Visit], Response]
    method: str = "GET"
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    """An entry of the navigation, shown to who may ask ``route``."""

    entry: NavEntry
    route: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """One custodian, its limits and its pages."""

    service: CustodianService
    limits: Limits
    site: Site
    tabs: tuple[Tab, ...]

    def base(self, request: Request) -> str:
        """Return the path in front of every page's, as browsers see it: below a tenant's name where there are tenants.

        It is what was asked for, so that a tenant that is not there looks no other than one that is.
        """
        return f"{self._below(request)}{UI}"

    def cookie(self, request: Request) -> str:
        """Return the cookie's name: another for each tenant, for they share a host and so a browser's cookies."""
        below = re.sub(r"[^a-z0-9-]+", "-", self._below(request)).strip("-")
        return f"{_COOKIE}-{below}" if below else _COOKIE

    def _below(self, request: Request) -> str:
        found = request.scope.get(BELOW)
        return urlsplit(self.service.url).path.rstrip("/") if found is None else str(found)
