"""The borrower's page without a browser: what it shows, what it does, and what others cannot make it do."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import httpx2
import pytest
from borrower_kit import borrower_page
from click.testing import CliRunner

from cloister.cli import app
from cloister.pages import CONTENT_SECURITY_POLICY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from borrower_kit import BorrowerPage

HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"
PAGES = ("/", "/?window=day", "/?window=week", "/use", "/terms", "/enclave")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BorrowerPage]:
    consumers = [{"allowance": 300, "id": "clinic"}, {"id": "ward-2"}]
    clauses = {"purpose": "a trial"}
    with borrower_page(tmp_path_factory.mktemp("house"), consumers=consumers, clauses=clauses) as found:
        found.infer(3)
        yield found


async def open_asks(page: BorrowerPage) -> list[dict[str, str]]:
    shown = await page.house.get(f"/v1/loans/{page.house.loan}")
    return [item for item in shown["requests"] if item["state"] == "open"]


def test_the_loan_its_allowance_and_its_outlook_are_shown(page: BorrowerPage) -> None:
    shown = page.visitor().get("/").text
    for part in (page.house.loan, "General Hospital", "of 1,000 units lent", "3 in the last hour", 'class="chart"'):
        assert part in shown, part


def test_more_is_asked_for_with_a_reason_and_the_answer_is_shown(page: BorrowerPage) -> None:
    person = page.visitor()
    shown = person.ask("500", "a busy week in radiology")
    assert shown.status_code == 200
    assert "a busy week in radiology" in shown.text
    asked = page.run(open_asks(page))[-1]
    assert (asked["units"], asked["meter"], asked["reason"]) == (500, "loan", "a busy week in radiology")
    page.run(
        page.house.post(f"/v1/loans/{page.house.loan}/requests/{asked['id']}/deny", {"reason": "next <b>month</b>"})
    )
    page.later()
    answered = person.get("/").text
    assert "denied" in answered
    assert "next &lt;b&gt;month&lt;/b&gt;" in answered


def test_a_form_that_is_sent_twice_asks_once(page: BorrowerPage) -> None:
    person = page.visitor()
    before = len(page.run(open_asks(page)))
    fields = {**person.hidden("/"), "units": "5", "reason": "twice"}
    for _ in range(2):
        assert person.post("/ask", fields).status_code == 200
    assert len(page.run(open_asks(page))) == before + 1


BAD_ASKS = [
    {"units": ""}, {"units": "0"}, {"units": "-5"}, {"units": "1.5"}, {"units": "9" * 17}, {"units": "\u0661"},
    {"reason": "x" * 201}, {"once": ""}, {"once": "x"}, {"meter": "consumer:nobody"}, {"meter": "../../models"},
]  # fmt: skip


@pytest.mark.parametrize("changed", BAD_ASKS, ids=range(len(BAD_ASKS)))
def test_what_cannot_be_asked_comes_back_with_what_was_filled_in(page: BorrowerPage, changed: dict[str, str]) -> None:
    before = page.run(open_asks(page))
    fields = {"units": "77", "reason": "kept", **changed}
    shown = page.visitor().ask(**fields)
    assert shown.status_code >= 400
    assert "That was not asked" in shown.text
    assert fields["reason"] in shown.text
    assert page.run(open_asks(page)) == before


def test_who_uses_it_by_the_contract_s_names_and_counts_alone(page: BorrowerPage) -> None:
    person = page.visitor()
    shown = person.get("/use").text
    assert "clinic" in shown
    stated = person.post("/use", {"form_token": person.hidden("/use")["form_token"]})
    assert "signature holds" in stated.text
    assert re.search(r"<td>clinic</td><td class=\"num\">3</td><td class=\"num\">3</td>", stated.text), stated.text


def test_a_statement_is_a_file_that_verifies_offline(page: BorrowerPage, tmp_path: Path) -> None:
    person = page.visitor()
    answer = person.post("/use/statement", {"form_token": person.hidden("/use")["form_token"]})
    assert answer.headers["content-disposition"] == 'attachment; filename="usage.statement"'
    path = tmp_path / "usage.statement"
    path.write_bytes(answer.content)
    key = str(page.house.loan_file["custodian_key"])
    done = CliRunner().invoke(app, ["usage", "verify", "--json", str(path), "--key", key])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["lines"]


def test_what_is_agreed_on_is_proven_and_in_words(page: BorrowerPage) -> None:
    shown = page.visitor().get("/terms").text
    assert "a trial" in shown
    assert "In force" in shown


def test_the_enclave_here_shows_parts_load_and_models(page: BorrowerPage) -> None:
    shown = page.visitor().get("/enclave").text
    known = page.run(page.house.get(f"/v1/loans/{page.house.loan}"))["instances"][0]["id"]
    for part in ("Parts", "renewed ", "Models in memory", "digits", known[:12]):
        assert part in shown, part


def test_the_token_and_what_is_not_the_borrower_s_are_on_no_page(page: BorrowerPage) -> None:
    person = page.visitor()
    shown = "".join(person.get(path).text + repr(person.get(path).headers.multi_items()) for path in PAGES)
    for secret in (page.token, *page.house.tokens.values()):
        assert secret not in shown
    policy = page.run(page.house.get(f"/v1/loans/{page.house.loan}"))["policy"]
    assert json.dumps(policy)[:60] not in shown
    assert "keys_released" not in shown


def test_while_somebody_is_away_the_page_says_so_and_goes_on(page: BorrowerPage) -> None:
    person = page.visitor()
    person.get("/")
    try:
        page.away |= {"custodian", "enclave"}
        page.later()
        shown = person.get("/")
        assert shown.status_code == 200
        assert "The custodian does not answer" in shown.text
        assert "The enclave here does not answer" in shown.text
        assert person.ask().status_code == 503
        assert person.get("/terms").status_code == 503
    finally:
        page.away.clear()
        page.later()
    assert "does not answer" not in person.get("/").text


def test_a_block_is_shown_with_its_bound(tmp_path: Path) -> None:
    with borrower_page(tmp_path) as page:
        person = page.visitor()
        page.run(page.house.post("/v1/blocks", {"kind": "loan", "subject": page.house.loan, "reason": HOSTILE}))
        page.later()
        shown = person.get("/").text
        assert "The custodian has blocked this loan" in shown
        assert "whichever comes first" in shown


def test_pages_run_and_load_only_what_is_ours(page: BorrowerPage) -> None:
    person = page.visitor()
    for path in (*PAGES, "/nothing"):
        answer = person.get(path)
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert not re.search(r'(?:src|href|action)="(?:[a-z]+:)?//', answer.text)


def test_reasons_and_windows_of_others_are_text(page: BorrowerPage) -> None:
    person = page.visitor()
    shown = person.ask("5", HOSTILE)
    assert shown.status_code == 200
    for answer in (
        shown,
        person.get(f"/?window={HOSTILE}"),
        person.ask(HOSTILE, HOSTILE),
        person.ask("5", "x", meter=HOSTILE),
    ):
        assert "<script>alert" not in answer.text
        assert "<img" not in answer.text


def test_without_the_link_there_is_nothing_and_a_used_one_is_worth_nothing(page: BorrowerPage) -> None:
    stranger = page.client()
    for path in PAGES:
        assert stranger.get(path).status_code == 404
        assert stranger.get(page.door.prefix + path).status_code == 401
    link = page.link()
    assert page.client().get(link).status_code == 303
    assert stranger.get(link).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}, {"host": "evil.example"}],
)
def test_another_page_cannot_ask_for_units(page: BorrowerPage, headers: dict[str, str]) -> None:
    person = page.visitor()
    before = page.run(open_asks(page))
    fields = {**person.hidden("/"), "units": "999", "reason": "forged"}
    assert person.post("/ask", fields, headers).status_code == 403
    assert person.post("/ask", {**fields, "form_token": "x"}).status_code == 403
    assert page.run(open_asks(page)) == before


def test_forms_are_small_and_of_their_type(page: BorrowerPage) -> None:
    person = page.visitor()
    assert person.ask("5", "x" * 50_000).status_code == 413
    url = f"{page.door.prefix}/ask"
    assert person.client.post(url, content=b"{}", headers={"content-type": "application/json"}).status_code == 400
    assert person.client.put(url).status_code == 405


def test_a_page_that_lies_open_is_told_that_something_changed_and_never_what(page: BorrowerPage) -> None:
    person = page.visitor()
    with person.client.stream("GET", f"{page.door.prefix}/live") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        assert next(lines) == "retry: 5000"
        page.run(page.house.post(f"/v1/loans/{page.house.loan}/top-up", {"units": 5}))
        page.later()
        told = next(line for line in lines if line.startswith(("event", "data")))
        assert told == "event: change"
        assert next(lines) == "data: 1"
    with httpx2.Client(base_url=page.address) as stranger:
        assert stranger.get(f"{page.door.prefix}/live").status_code == 401
