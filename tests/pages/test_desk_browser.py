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


def test_units_are_added_in_a_dialog_without_leaving_the_page(alice: Visitor, desk: str, busy: Busy) -> None:
    page, before = alice.page, busy.lent.balance()
    alice.open(f"{desk}/loans/{busy.lent.id}")
    mark = alice.evaluate("window.mark = 1")
    page.get_by_role("button", name="Add units…").click()
    alice.look("desk-top-up")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Add units…").press("Enter")
    page.locator("#top-up-units").fill("1,000")
    page.keyboard.press("Enter")
    page.locator(".notice.good").get_by_text("The units were added.").wait_for()
    assert busy.lent.balance() == before + 1000
    assert alice.evaluate("window.mark") == mark
    assert alice.evaluate("document.activeElement.id") == "content"


def test_a_page_changes_by_itself_when_somebody_else_does_something(alice: Visitor, desk: str, busy: Busy) -> None:
    alice.open(f"{desk}/loans/{busy.small.id}")
    alice.page.get_by_text("· live").wait_for()
    busy.bench.post(f"/v1/loans/{busy.small.id}/requests", {"units": 31, "reason": "more"}, token=busy.small.token)
    alice.page.get_by_text("The borrower asks for 31 units").wait_for()
    alice.page.get_by_label("Why not").fill("not this month")
    alice.look("desk-asked")
    alice.page.get_by_role("button", name="Deny").click()
    alice.page.locator("#answered").get_by_text("not this month").wait_for()


LISTEN = """
    window.heard = [];
    const texts = (one) => [...one.addedNodes].map((node) => node.textContent);
    const heard = (found) => window.heard.push(...found.flatMap(texts));
    const places = [...document.querySelectorAll("[aria-live]")];
    places.forEach((place) => new MutationObserver(heard).observe(place, { childList: true, subtree: true }));
    places.map((place) => place.id)
"""


def test_a_screen_reader_hears_what_came_and_what_went_and_nothing_again(alice: Visitor, desk: str, busy: Busy) -> None:
    came, asks = "Clinic by the Lake asks for more.", f"/v1/loans/{busy.small.id}/requests"
    alice.open(f"{desk}/")
    alice.page.get_by_text("· live").wait_for()
    assert alice.evaluate(LISTEN) == ["said"], "a part that is swapped would be read whole"

    def heard(most: int) -> list[str]:
        for _ in range(600):  # a minute: then it is not coming
            found: list[str] = alice.evaluate("window.heard")
            if len(found) >= most:
                break
            alice.page.wait_for_timeout(100)
        return found

    asked = busy.bench.post(asks, {"units": 3, "reason": "some"}, token=busy.small.token).json()["id"]
    assert heard(1) == [came]
    busy.bench.post(f"{asks}/{asked}/deny", {"reason": "no"})
    assert heard(2) == [came, f"Over: {came}"]


def test_a_loan_is_blocked_by_two_presses_with_the_bound_between_them(alice: Visitor, desk: str, busy: Busy) -> None:
    page = alice.page
    alice.open(f"{desk}/loans/{busy.small.id}")
    bound = busy.small.show()["bound"]
    page.get_by_role("button", name="Block…").click()
    words = f"within {bound['seconds']:,} s or {bound['units']:,} units, whichever comes first"
    assert words in page.locator("dialog[open]").inner_text()
    alice.look("desk-block")
    page.locator("dialog[open]").get_by_label("Reason").fill("drill")
    page.get_by_role("button", name="Block the loan").click()
    page.get_by_text("This loan is blocked.").wait_for()
    assert busy.small.show()["state"] == "blocked"
    alice.look("desk-blocked")


def test_what_is_refused_is_said_on_a_page_with_a_way_back(alice: Visitor, desk: str, busy: Busy) -> None:
    page = alice.page
    alice.open(f"{desk}/proposals/{busy.proposal}")
    assert page.get_by_role("button", name="Approve and carry out").count() == 0
    with_bob = f"{desk}/loans/{busy.lent.id}"
    alice.open(with_bob)
    page.get_by_role("button", name="Set…").click()
    page.locator("#set-units").fill("99999999999999999")
    page.get_by_role("button", name="Set", exact=True).click()
    page.get_by_role("alert").wait_for()
    alice.look("desk-refusal")
    page.get_by_role("link", name="Back").click()
    page.get_by_role("button", name="Set…").wait_for()
    assert alice.faults.pop().startswith("Failed to load resource")  # the refusal's status: what browsers say of it


def test_a_second_person_approves_with_the_token_once_more(browser: Browser, desk: str, busy: Busy) -> None:
    with visitor(browser) as bob:
        sign_in(bob, desk, busy.bob)
        bob.page.get_by_role("link", name="To approve").click()
        bob.page.get_by_role("link", name="Lift a block").first.click()
        bob.page.get_by_label("Your token").fill(busy.bob)
        bob.look("desk-approve")
        bob.page.get_by_role("button", name="Approve and carry out").click()
        bob.page.locator(".notice.good").get_by_text("Approved, and carried out.").wait_for()
        bob.look("desk-approved")
    assert busy.stopped.show()["state"] == "active"


def test_a_link_signs_in_when_its_reader_presses_the_button(browser: Browser, desk: str, busy: Busy) -> None:
    link = busy.bench.post("/v1/sessions", {"life_s": 60}).json()["token"]
    with visitor(browser) as person:
        person.open(f"{desk}/sign-in#{link}")
        person.page.get_by_text("The link brought a token that is good once.").wait_for()
        assert link not in person.page.url
        person.look("desk-link")
        person.page.get_by_role("button", name="Sign in").click()
        person.page.get_by_role("button", name="Sign out").wait_for()
        person.page.get_by_role("button", name="Sign out").click()
        person.page.get_by_label("Token").wait_for()


def test_everything_can_be_done_with_scripts_turned_off(browser: Browser, desk: str, busy: Busy) -> None:
    before = busy.lent.balance()
    with visitor(browser, script=False) as person:
        page = person.page
        page.goto(f"{desk}/loans")
        page.get_by_label("Token").fill(busy.alice)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("link", name="Hospital of the Holy Ghost").click()
        page.get_by_role("button", name="Add units…").click()
        page.locator("#top-up-units").fill("5")
        page.get_by_role("button", name="Add", exact=True).click()
        page.get_by_text("The units were added.").wait_for()
    assert busy.lent.balance() == before + 5


def test_the_keyboard_alone_leads_everywhere(alice: Visitor, desk: str) -> None:
    page = alice.page
    alice.open(f"{desk}/")
    for keys, title in (("gl", "Loans"), ("gm", "Models"), ("gp", "Approvals"), ("go", "custodian")):
        for key in keys:
            page.keyboard.press(key)
        page.get_by_role("heading", level=1, name=title).wait_for()
    page.keyboard.press("g")
    page.keyboard.press("l")
    page.get_by_role("heading", level=1, name="Loans").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("utrecht")
    page.keyboard.press("Enter")
    page.get_by_text("1 loan with").wait_for()


def test_the_end_of_a_session_is_said_before_it_comes_and_can_be_put_off(alice: Visitor, desk: str, busy: Busy) -> None:
    alice.open(f"{desk}/loans")
    alice.page.clock.install()
    alice.page.reload()
    alice.page.clock.fast_forward("13:00")
    alice.page.get_by_role("button", name="Stay signed in").wait_for()
    alice.look("desk-session-ends")
    alice.page.get_by_role("button", name="Stay signed in").click()
    alice.page.get_by_role("button", name="Stay signed in").wait_for(state="hidden")
    assert busy.bench.kinds().count("session_renewed") >= 1
