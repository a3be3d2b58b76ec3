"""The borrower's page in a real browser: each thing a borrower does there, with the script and without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from borrower_kit import borrower_page
from browser_kit import visitor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from borrower_kit import BorrowerPage
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BorrowerPage]:
    consumers = [{"allowance": 300, "id": "clinic"}, {"id": "ward-2"}]
    with borrower_page(tmp_path_factory.mktemp("house"), consumers=consumers) as found:
        for times in (6, 2, 5, 3, 8, 1, 4, 9):
            found.infer(times, then_s=50)
        yield found


def test_the_loan_is_seen_and_more_is_asked_for(page: BorrowerPage, browser: Browser) -> None:
    with visitor(browser) as person:
        person.open(page.link())
        assert "digits" in person.page.inner_text("h1")
        person.page.get_by_role("spinbutton", name="Units").fill("500")
        person.page.get_by_label("Reason").fill("a busy week in radiology")
        person.page.click("text=Ask the custodian")
        person.page.wait_for_selector("text=a busy week in radiology")
        page.run(_answered(page))
        page.later()
        person.page.wait_for_selector("#asks >> text=approved", timeout=15_000)
        person.look("borrower-loan")
        for name, title in (("use", "Who uses it"), ("terms", "What is agreed on"), ("enclave", "Enclave here")):
            person.page.get_by_role("link", name=title, exact=True).click()
            person.page.wait_for_selector(f"h1:has-text('{title}')")
            if name == "use":
                person.page.click("text=State who used what")
                person.page.wait_for_selector("text=signature holds")
            person.look(f"borrower-{name}")


async def _answered(page: BorrowerPage) -> None:
    shown = await page.house.get(f"/v1/loans/{page.house.loan}")
    first = next(item["id"] for item in shown["requests"] if item["state"] == "open")
    await page.house.post(f"/v1/loans/{page.house.loan}/requests/{first}/approve", {"units": 400})


def test_more_is_asked_for_without_a_script_too(page: BorrowerPage, browser: Browser) -> None:
    with visitor(browser, script=False) as person:
        person.page.goto(page.link())
        person.page.get_by_role("spinbutton", name="Units").fill("7")
        person.page.get_by_label("For", exact=True).select_option("consumer:clinic")
        person.page.click("text=Ask the custodian")
        assert "The custodian reads your reason" in person.page.inner_text("main")
        assert "none given" in person.page.inner_text("#asks")


def test_a_blocked_loan_is_seen_while_the_page_lies_open(tmp_path: Path, browser: Browser) -> None:
    with borrower_page(tmp_path) as page, visitor(browser) as person:
        person.open(page.link())
        body = {"kind": "loan", "subject": page.house.loan, "reason": "<b>trial</b> over"}
        page.run(page.house.post("/v1/blocks", body))
        page.later()
        person.page.wait_for_selector("text=The custodian has blocked this loan", timeout=15_000)
        assert "blocked" in person.page.inner_text("h1")
        person.look("borrower-blocked")
