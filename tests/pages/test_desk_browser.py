"""Every page and action of the custodian's dashboard in a real browser: how it looks, and who can use it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser_kit import Visitor, served, visitor
from custodian_kit import Bench
from desk_kit import Busy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def busy() -> Iterator[Busy]:
    with tempfile.TemporaryDirectory() as folder, Bench(Path(folder), settings={"two_person": ("unblock",)}) as bench:
        yield Busy(bench)


@pytest.fixture(scope="module")
def desk(busy: Busy) -> Iterator[str]:
    with served(busy.bench.client.app) as url:
        yield f"{url}/ui"


@pytest.fixture
def alice(browser: Browser, desk: str, busy: Busy) -> Iterator[Visitor]:
    with visitor(browser) as person:
        sign_in(person, desk, busy.alice)
        yield person


def sign_in(person: Visitor, desk: str, token: str) -> None:
    person.open(f"{desk}/sign-in")
    person.page.get_by_label("Token").fill(token)
    person.page.get_by_role("button", name="Sign in").click()
    person.page.get_by_role("button", name="Sign out").wait_for()


def test_signing_in_looks_right_and_sets_a_cookie_that_scripts_cannot_read(
    browser: Browser, desk: str, busy: Busy
) -> None:
    with visitor(browser) as person:
        person.open(f"{desk}/loans")
        person.look("desk-sign-in")
        sign_in(person, desk, busy.alice)
        (cookie,) = [item for item in person.context.cookies() if item["name"].startswith("__Host-")]
        assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Strict")
        assert "__Host-" not in person.evaluate("document.cookie")


def test_every_page_is_light_quick_and_accessible(alice: Visitor, desk: str, busy: Busy) -> None:
    pages = {
        "overview": "/",
        "loans": "/loans",
        "loan": f"/loans/{busy.lent.id}",
        "loan-blocked": f"/loans/{busy.stopped.id}",
        "models": "/models",
        "model": f"/models/{busy.bench.digest}",
        "approvals": "/proposals",
        "approval": f"/proposals/{busy.proposal}",
    }
    for name, path in pages.items():
        weight = alice.open(f"{desk}{path}")
        print(f"{name}: {weight.size} bytes, first paint after {weight.paint_ms:.0f} ms")  # noqa: T201 - a figure
        alice.look(f"desk-{name}")
