"""The page in a real browser: each thing a person does there, with the script and without."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from ask_kit import DIGITS_CARD, KIDNEY_CARD, ask_page, digits_model, kidney_model, raw_model, scan
from browser_kit import visitor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ask_kit import AskPage
    from playwright.sync_api import Browser

    from cloister.wire import Json


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AskPage]:
    with ask_page(tmp_path_factory.mktemp("house")) as found:
        yield found


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "seven.png"
    path.write_bytes(scan(7))
    return path


def test_a_picture_is_asked_about_and_the_answer_looks_like_one(page: AskPage, seven: Path, browser: Browser) -> None:
    with visitor(browser) as person:
        person.open(page.link())
        assert person.page.title() == "Ask digits"
        assert "whoever runs it can read everything" in person.page.inner_text(".loud")
        person.look("ask-picture")
        person.page.set_input_files("input[type=file]", seven)
        person.page.wait_for_selector("[data-previews]:not([hidden])")
        person.look("ask-preview")
        person.page.click("button.main")
        person.page.wait_for_selector(".headline")
        assert person.page.inner_text(".headline") == "7"
        person.look("ask-answer")
        person.page.click("text=All that was verified")
        person.look("ask-verified")


def test_values_are_asked_about_without_a_script_too(page: AskPage, browser: Browser) -> None:
    with visitor(browser, script=False) as person:
        person.page.goto(page.link())
        person.page.click("text=kidney")
        for label, value in (("age (years)", "60"), ("creatinine (mg/dL)", "1.1"), ("weight (kg)", "80")):
            person.page.get_by_label(label, exact=True).fill(value)
        person.page.click("button.main")
        assert person.page.inner_text(".headline") == "79"


def test_a_table_and_words_are_asked_about_with_the_keyboard_alone(page: AskPage, browser: Browser) -> None:
    with visitor(browser) as person:
        person.open(page.link())
        person.page.click("text=kidney")
        person.look("ask-fields")
        person.page.get_by_text("A table: paste it or choose a file").focus()
        person.page.keyboard.press("Enter")
        person.page.get_by_label("Rows").fill("age;creatinine;weight\n60;1.1;80\n40;1;70\n")
        person.page.locator("button.main").focus()
        person.page.keyboard.press("Enter")
        person.page.wait_for_selector("text=2 units")
        person.look("ask-rows")
        person.page.click("text=echo")
        person.page.get_by_label("words", exact=True).fill("Is anybody there?")
        person.page.click("button.main")
        assert "Is anybody there?" in person.page.inner_text(".said-text")
        person.look("ask-words")


@pytest.mark.parametrize("script", [True, False])
def test_any_tensors_are_asked_about_by_text_and_by_file(tmp_path: Path, browser: Browser, script: bool) -> None:  # noqa: FBT001 - a case
    card: Json = {"description": "Says again whatever it is told."}
    series = tmp_path / "series.npy"
    np.save(series, np.linspace(-1, 1, 80).reshape(40, 2))
    with (
        ask_page(tmp_path / "house", given={"raw": (raw_model(), card)}) as page,
        visitor(browser, script=script) as person,
    ):
        person.page.goto(page.link())
        if script:
            person.weigh()
            person.look("ask-tensors")
        person.page.get_by_label("Values of ids").fill("[[101, 2003], [102]]")
        person.page.get_by_label("Text of notes").fill("one line\nanother")
        person.page.get_by_label("Or a file (npy, csv, txt, json) for series").set_input_files(series)
        person.page.click("button.main")
        person.page.wait_for_selector(".notice.bad")
        assert "input ids, at [1]: 1 value, want 2, as in the first list" in person.page.inner_text(".notice.bad")
        if script:
            person.look("ask-tensors-refused")
        person.faults.clear()  # the browser notes the answer's status, 400
        assert person.page.get_by_label("Text of notes").input_value() == "one line\nanother"
        person.page.get_by_label("Values of ids").fill("[101, 2003, 102]")
        person.page.get_by_label("Or a file (npy, csv, txt, json) for series").set_input_files(series)
        person.page.click("button.main")
        person.page.wait_for_selector("text=Outputs as JSON")
        assert "1 x 40 x 2" in person.page.inner_text("main")
        if script:
            person.look("ask-tensors-answer")
        with person.page.expect_download() as found:
            person.page.get_by_role("link", name="Outputs as JSON").click()
        assert found.value.suggested_filename.endswith(".outputs.json")
        outputs = json.loads(Path(found.value.path()).read_bytes())["outputs"]
        assert [one["shape"] for one in outputs] == [[1, 3], [1, 2], [1, 40, 2]]


def test_a_value_out_of_its_range_is_told_before_anything_is_sent(page: AskPage, browser: Browser) -> None:
    with visitor(browser) as person:
        person.open(page.link())
        person.page.click("text=kidney")
        person.page.get_by_text("A table: paste it or choose a file").click()
        person.page.get_by_label("Rows").fill("600,1.1,80")
        person.page.click("button.main")
        person.page.wait_for_selector(".notice.bad")
        assert "age, row 1: 600, want 18 to 120" in person.page.inner_text(".notice.bad")
        person.look("ask-refused")
        person.faults.clear()  # the browser notes the answer's status, 400


def test_a_picture_is_dropped_on_the_form(page: AskPage, seven: Path, browser: Browser) -> None:
    with visitor(browser) as person:
        person.open(page.link())
        data = base64.b64encode(seven.read_bytes()).decode()
        person.evaluate(
            "const data = new DataTransfer();"
            f"data.items.add(new File([Uint8Array.from(atob('{data}'), (c) => c.charCodeAt(0))], 'seven.png'));"
            "document.querySelector('[data-drop]').dispatchEvent(new DragEvent('drop', { dataTransfer: data }))"
        )
        person.page.wait_for_selector("[data-previews]:not([hidden])")
        person.page.click("button.main")
        person.page.wait_for_selector(".headline")
        assert person.page.inner_text(".headline") == "7"


def test_the_receipt_is_a_file_and_a_second_look_costs_nothing(page: AskPage, seven: Path, browser: Browser) -> None:
    with visitor(browser) as person:
        person.open(page.link())
        person.page.set_input_files("input[type=file]", seven)
        person.page.click("button.main")
        person.page.wait_for_selector(".headline")
        left = person.page.inner_text(".left-over strong")
        with person.page.expect_download() as found:
            person.page.get_by_role("link", name="Receipt", exact=True).click()
        assert found.value.suggested_filename.endswith(".receipt")
        person.page.reload()
        assert person.page.inner_text(".left-over strong") == left
        person.page.click("text=Forget this answer")
        person.page.wait_for_selector("text=Your picture")


def test_without_units_the_question_waits_and_the_answer_comes_by_itself(tmp_path: Path, browser: Browser) -> None:
    with (
        ask_page(tmp_path, given={"kidney": (kidney_model(), KIDNEY_CARD)}, allowance=1) as page,
        visitor(browser) as person,
    ):
        person.open(page.link())
        for _ in range(2):
            person.page.click("text=kidney")
            for label, value in (("age (years)", "60"), ("creatinine (mg/dL)", "1.1"), ("weight (kg)", "80")):
                person.page.get_by_label(label, exact=True).fill(value)
            person.page.click("button.main")
            person.page.wait_for_load_state("load")
        assert "Nothing is left to ask with" in person.page.inner_text("main")
        person.look("ask-exhausted")
        person.faults.clear()  # the browser notes the answer's status, 402
        person.page.get_by_role("button", name="Wait for units").click()
        person.page.wait_for_selector("text=Your question waits here")
        person.look("ask-waiting")
        page.run(page.house.post(f"/v1/loans/{page.house.loan}/top-up", {"units": 5}))
        page.run(page.instance.renewal.once())
        person.page.wait_for_selector(".headline", timeout=20_000)
        assert person.page.inner_text(".headline") == "79"


def test_an_open_page_says_whose_server_it_is(tmp_path: Path, browser: Browser) -> None:
    with ask_page(tmp_path, given={"digits": (digits_model(), DIGITS_CARD)}, site="localhost") as page:
        address = page.address.replace("127.0.0.1", "localhost")
        with visitor(browser) as person:
            person.open(f"{address}/")
            assert "Whoever runs this site could read along" in person.page.inner_text(".readers")
            person.look("ask-site")
            person.page.set_input_files(
                "input[type=file]", {"name": "s.png", "mimeType": "image/png", "buffer": scan(7)}
            )
            person.page.click("button.main")
            person.page.wait_for_selector(".headline")


def test_who_was_not_let_in_is_told_what_to_do(page: AskPage, browser: Browser) -> None:
    with visitor(browser) as person:
        link = page.link()
        person.page.goto(link)
        with visitor(browser) as other:
            other.page.goto(link)
            assert "This link was used already" in other.page.inner_text("main")
            other.look("ask-link-used")
            other.faults.clear()  # the browser notes the answer's status, 403
