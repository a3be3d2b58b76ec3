"""Style and script of the pages in a real browser, with and without scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from browser_kit import served, visitor
from gallery_kit import Gallery

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser


@pytest.fixture
def gallery() -> Iterator[tuple[Gallery, str]]:
    made = Gallery()
    with served(made.app) as url:
        yield made, f"{url}/ui"


def test_every_component_looks_right_and_is_accessible(browser: Browser, gallery: tuple[Gallery, str]) -> None:
    with visitor(browser) as person:
        weight = person.open(f"{gallery[1]}/gallery")
        print(f"gallery: {weight.size} bytes, first paint after {weight.paint_ms:.0f} ms")  # noqa: T201 - a figure
        person.look("gallery")
        person.page.get_by_role("button", name="Block…").click()
        person.look("gallery-dialog")


def test_a_form_is_sent_in_the_background_and_the_page_swapped(browser: Browser, gallery: tuple[Gallery, str]) -> None:
    made, url = gallery
    with visitor(browser) as person:
        person.open(f"{url}/gallery")
        mark = person.evaluate("window.mark = 1")
        person.page.get_by_label("Units", exact=True).fill("7")
        person.page.get_by_role("button", name="Send").click()
        person.page.get_by_role("status").get_by_text("Sent. 7").wait_for()
        assert made.sent == [{"form_token": "form-token", "once": "one", "units": "7", "meter": "loan"}]
        assert person.evaluate("window.mark") == mark  # the same document: nothing was loaded anew


def test_without_scripts_forms_post_and_dialogs_open(browser: Browser, gallery: tuple[Gallery, str]) -> None:
    made, url = gallery
    with visitor(browser, script=False) as person:
        person.page.goto(f"{url}/gallery")
        assert not person.page.get_by_label("Filter").is_visible()
        person.page.get_by_role("button", name="Block…").click()
        person.page.get_by_label("Reason").fill("a <b>reason</b>")
        person.page.get_by_role("button", name="Block", exact=True).click()
        person.page.wait_for_url(f"{url}/gallery")
        assert made.sent == [{"form_token": "form-token", "reason": "a <b>reason</b>"}]


def test_what_changed_is_swapped_in_live(browser: Browser, gallery: tuple[Gallery, str]) -> None:
    made, url = gallery
    with visitor(browser) as person:
        person.open(f"{url}/gallery")
        person.page.get_by_text("· live").wait_for()
        made.sent.append({"units": "42"})
        made.changed += 1
        person.page.locator("#told").get_by_text("42").wait_for()


def test_a_live_change_takes_nothing_from_under_a_readers_hands(browser: Browser, gallery: tuple[Gallery, str]) -> None:
    made, url = gallery
    with visitor(browser) as person:
        page = person.page
        person.open(f"{url}/gallery")
        page.get_by_text("· live").wait_for()
        page.get_by_label("Filter").fill("ward")
        page.get_by_role("button", name="Units", exact=True).click()
        page.get_by_role("button", name="Units", exact=True).click()
        page.get_by_text("How many").click()
        page.get_by_role("link", name="More →").focus()
        for more in (1, 2):  # the second swap is of a part that was swapped before
            made.changed += 1
            page.locator("#rows details").get_by_text(f"{1_234_567 + more:,}").wait_for()  # and so it is still open
            assert page.locator("#names th[aria-sort]").get_attribute("aria-sort") == "descending"
            assert "1,000" in page.locator("#names tbody tr").first.inner_text()
            assert page.locator("#names tbody tr:visible").count() == 2
            assert person.evaluate("document.activeElement.getAttribute('href')") == "?page=3"


@pytest.mark.parametrize("theme", ["", "dark"])
def test_a_page_is_printed_dark_on_light_whatever_colours_the_screen_has(
    browser: Browser, gallery: tuple[Gallery, str], theme: str
) -> None:
    with visitor(browser) as person:
        person.open(f"{gallery[1]}/gallery")
        person.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        person.page.emulate_media(media="print", color_scheme="dark")  # holds for one script: it ends with its session
        shown = "[...document.querySelectorAll('body, .badge.good')].map((item) => getComputedStyle(item).color)"
        assert person.evaluate(f"{shown}.slice(0, 2)") == ["rgb(0, 0, 0)", "rgb(23, 105, 47)"]


def test_keys_sort_filter_help_and_colours(browser: Browser, gallery: tuple[Gallery, str]) -> None:
    with visitor(browser) as person:
        page = person.page
        person.open(f"{gallery[1]}/gallery")
        page.get_by_role("button", name="Name").click()
        assert "ward a" in page.locator("#names tbody tr").nth(1).inner_text()
        page.get_by_role("button", name="Units", exact=True).click()
        page.get_by_role("button", name="Units", exact=True).click()
        assert "1,000" in page.locator("#names tbody tr").first.inner_text()
        page.keyboard.press("/")
        page.keyboard.type("ward b")
        assert page.locator("#names tbody tr:visible").count() == 1
        page.keyboard.press("Tab")
        page.keyboard.press("?")
        person.look("keys")
        page.get_by_label("Keys of one letter work").uncheck()
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        assert page.locator("dialog[open]").count() == 0
        page.get_by_role("button", name="Change between light and dark").click()
        page.reload()
        assert page.locator("html").get_attribute("data-theme") == "dark"


def test_the_first_key_leads_past_the_navigation(browser: Browser, gallery: tuple[Gallery, str]) -> None:
    with visitor(browser) as person:
        person.open(f"{gallery[1]}/gallery")
        person.page.keyboard.press("Tab")
        person.page.keyboard.press("Enter")
        person.page.locator("#content:focus").wait_for()
