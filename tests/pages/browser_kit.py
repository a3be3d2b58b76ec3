"""A real browser over our pages: Debian's Chromium without a screen, axe-core, screenshots, weights.

Nothing of a page is loosened for the tests: scripts that look at it come through the debugger, so its content policy
stays on. A message on the console, a refused resource or an exception in a page fails the test that met it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import axe_playwright_python
import pytest
import uvicorn
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page
    from starlette.types import ASGIApp

ARTEFACTS = Path(__file__).parent / "artefacts"
CHROMIUM = shutil.which("chromium")
WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
MAX_PAGE_BYTES = 150_000
_ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
_AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
_WORST = frozenset({"serious", "critical"})
_WEIGHT = """(async () => {
  const name = "first-contentful-paint";
  while (!performance.getEntriesByName(name).length) await new Promise((again) => setTimeout(again, 10));
  const all = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
  const bytes = all.reduce((sum, one) => sum + one.encodedBodySize, 0);
  return { bytes, paint: performance.getEntriesByName(name)[0].startTime };
})()"""


def start_chromium() -> Iterator[Browser]:
    """Yield the one browser of a test module, or skip where there is none."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: pages are not looked at by a browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=_ARGS)
        yield browser
        browser.close()


@dataclass(frozen=True)
class Weight:
    """What a page cost: bytes of its bodies with all that it refers to, milliseconds until something was seen."""

    size: int
    paint_ms: float


@dataclass
class Visitor:
    """One person at one browser: cookies of their own, and every complaint of a page collected."""

    context: BrowserContext
    page: Page = field(init=False)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page = self.context.new_page()
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.faults.append(message.text)

    def open(self, url: str) -> Weight:
        """Go somewhere, and weigh what came."""
        self.page.goto(url)
        self.page.wait_for_load_state("load")
        return self.weigh()

    def weigh(self) -> Weight:
        """Return the weight of the page that is open, which has to be a light one."""
        found = self.evaluate(_WEIGHT)
        weight = Weight(size=int(found["bytes"]), paint_ms=float(found["paint"]))
        assert 0 < weight.size < MAX_PAGE_BYTES, weight
        return weight

    def evaluate(self, script: str) -> Any:
        """Return what a script says of the page, brought in by the debugger and so past its content policy."""
        session = self.context.new_cdp_session(self.page)
        try:
            answer = session.send(
                "Runtime.evaluate", {"expression": script, "awaitPromise": True, "returnByValue": True}
            )
        finally:
            session.detach()
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def demand_accessible(self) -> None:
        """Prove that axe-core finds nothing serious in the page that is open."""
        self.evaluate(_AXE + "; null")
        found = json.loads(self.evaluate("axe.run().then((result) => JSON.stringify(result.violations))"))
        worst = [
            f"{item['id']}: {item['help']}: {[node['html'] for node in item['nodes']][:3]}"
            for item in found
            if item["impact"] in _WORST
        ]
        assert worst == []

    def look(self, name: str) -> None:
        """Prove that the page can be used in light and dark, wide and narrow.

        Nothing may be wider than the screen; axe-core looks at both colours. How it looks is kept where
        ``CLOISTER_SCREENSHOTS`` is set.
        """
        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            for kind, size in (("wide", WIDE), ("narrow", NARROW)):
                self.page.set_viewport_size(size)
                if "CLOISTER_SCREENSHOTS" in os.environ:
                    self.page.screenshot(path=ARTEFACTS / f"{name}-{scheme}-{kind}.png", full_page=True)
                over = self.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                assert over <= 0, f"{name}: {over} pixels wider than {size['width']}"
            self.demand_accessible()
        self.page.emulate_media(color_scheme="light")
        self.page.set_viewport_size(WIDE)

    def demand_quiet(self) -> None:
        """Prove that no page complained, about its content policy or anything else."""
        assert self.faults == []


@contextlib.contextmanager
def visitor(browser: Browser, *, script: bool = True, **options: Any) -> Iterator[Visitor]:
    """Yield somebody who has never been here; fail if a page complained to them."""
    context = browser.new_context(viewport=WIDE, ignore_https_errors=True, java_script_enabled=script, **options)
    context.set_default_timeout(10_000)
    try:
        person = Visitor(context)
        yield person
        person.demand_quiet()
    finally:
        context.close()


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


@contextlib.contextmanager
def served(app: ASGIApp, *, lifespan: str = "off") -> Iterator[str]:
    """Yield the address of an application that is served on loopback, from a thread of its own."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, lifespan=lifespan, log_config=None, ws="none", timeout_graceful_shutdown=2
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert server.up.wait(10)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
