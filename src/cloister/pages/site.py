"""The pages of one server: its templates over the shared ones, and a page as an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse

from cloister.pages.assets import Assets
from cloister.pages.environment import environment
from cloister.pages.headers import PAGE_HEADERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from starlette.requests import Request

__all__ = ["THEME_COOKIE", "NavEntry", "Site"]

THEME_COOKIE = "cloister-theme"
_THEMES = frozenset({"light", "dark"})


@dataclass(frozen=True, slots=True, kw_only=True)
class NavEntry:
    """One entry of the navigation. ``path`` is below the site's base; ``keys`` are what opens it, as ``g l``."""

    path: str
    title: str
    keys: str = ""


class Site:
    """Renders pages. Not changed once pages are made; may be used from several threads."""

    def __init__(
        self, *, product: str, templates: Path, nav: Sequence[NavEntry] = (), assets: Path | None = None
    ) -> None:
        """Take the pages' templates from ``templates``; ``product`` is what every page is headed by.

        ``nav`` stands on every page that is not given another ``nav``. ``assets`` holds what its own pages refer to,
        beside what is shared.
        """
        self.assets = Assets() if assets is None else Assets(assets)
        self._environment = environment(templates)
        self._product = product
        self._nav = tuple(nav)

    def teach(self, **words: object) -> None:
        """Let every template use these, before the first page is made."""
        self._environment.globals.update(words)

    def render(
        self,
        request: Request,
        template: str,
        /,
        *,
        now: datetime,
        status: int = 200,
        **values: object,
    ) -> HTMLResponse:
        """Return a page. ``now`` is what relative times are relative to; the other values are the template's.

        Addresses are below ``base``, or below the mount that ``request`` came through where that is not given.
        """
        base = str(values.pop("base", base_of(request)))
        return HTMLResponse(
            self.text(template, now=now, base=base, theme=_theme(request.cookies), **values),
            status_code=status,
            headers=PAGE_HEADERS,
        )

    def text(self, template: str, /, *, now: datetime, base: str = "", theme: str = "", **values: object) -> str:
        """Return a page's markup."""
        given = {
            "asset": lambda name: f"{base}/assets/{self.assets.address(name)}",
            "base": base,
            "here": "",
            "live": "",
            "nav": self._nav,
            "now": now,
            "product": self._product,
            "theme": theme,
            "token": "",
            "who": None,
        }
        return self._environment.get_template(template).render({**given, **values})


def base_of(request: Request) -> str:
    """Return the path that the application which answers is mounted at, without a slash behind it."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def _theme(cookies: Mapping[str, str]) -> str:
    """Return the look that a reader chose, empty where the system's is good."""
    chosen = cookies.get(THEME_COOKIE, "")
    return chosen if chosen in _THEMES else ""
