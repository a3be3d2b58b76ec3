"""A site with every component once, to try style and script on."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.responses import RedirectResponse, StreamingResponse
from starlette.routing import Mount, Route

from cloister.attest.rats import Check, TeeKind, Verdict
from cloister.pages import NavEntry, Site
from cloister.pages.charts import Forecast, Point
from cloister.pages.checks import check_groups

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
NASTY = "<script>alert(1)</script> \u202egnp.exe"
_NAV = (NavEntry(path="/", title="Overview", keys="g o"), NavEntry(path="/gallery", title="Gallery", keys="g l"))
_CHECKS = (
    Check(subject="chain", code="chain_invalid", verdict=Verdict.PASSED, got="3 certificates", want="a chain"),
    Check(subject="tcb", code="tcb_out_of_date", verdict=Verdict.FAILED, got="7", want="at least 9"),
    Check(subject="debug", code="debug_enabled", verdict=Verdict.NOT_CHECKED, note="nobody looked"),
)


class Gallery:
    """The application, and what was sent to it."""

    def __init__(self) -> None:
        self.site = Site(product="Cloister", templates=Path(__file__).parent / "gallery", nav=_NAV)
        self.sent: list[dict[str, str]] = []
        self.changed = 0
        self.app = Starlette(
            routes=[
                Mount(
                    "/ui",
                    routes=[
                        Route("/", self.page),
                        Route("/gallery", self.page),
                        Route("/send", self.send, methods=["POST"]),
                        Route("/live", self.live),
                        Mount("/assets", self.site.assets),
                    ],
                )
            ]
        )

    async def page(self, request: Request) -> Response:
        return self.site.render(
            request,
            "gallery.html",
            now=NOW,
            here="/gallery",
            live="/ui/live",
            token="form-token",  # noqa: S106 - of no use
            text=NASTY,
            said=" and ".join(item.get("units", "nothing") for item in self.sent),
            count=1_234_567 + self.changed,
            begun=NOW - timedelta(hours=6),
            points=[Point(at=NOW - timedelta(hours=6 - hour), units=1000 - 113 * hour) for hour in range(7)],
            forecast=Forecast(
                likely=NOW + timedelta(hours=3), early=NOW + timedelta(hours=2), late=NOW + timedelta(hours=5)
            ),
            values=[4, 5, 7, 2, 12, 9, 9, 3],
            rows=[("ward b", 20), ("ward a", 1000), (NASTY, 3)],
            digest="ab" * 32,
            checks=[row for group in check_groups(TeeKind("snp"), _CHECKS) for row in group.rows],
        )

    async def send(self, request: Request) -> Response:
        self.sent.append(dict(parse_qsl((await request.body()).decode())))
        return RedirectResponse("/ui/gallery", status_code=303)

    async def live(self, _request: Request) -> Response:
        async def events() -> AsyncIterator[bytes]:
            seen = self.changed
            yield b": hello\n\n"
            for _ in range(100):
                if self.changed != seen:
                    seen = self.changed
                    yield b"event: change\ndata: 1\n\n"
                await asyncio.sleep(0.05)

        return StreamingResponse(events(), media_type="text/event-stream")
