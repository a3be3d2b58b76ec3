"""What a person does in the page, without a browser: ask, wait, keep the receipt; before a real enclave."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from ask_kit import DIGITS_CARD, ask_page, digits_model, kidney_model, raw_model, scan
from click.testing import CliRunner

from cloister.asking.limits import Limits
from cloister.cli import app
from cloister.client.receipts import VerifiedReceipt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ask_kit import AskPage, Visit

    from cloister.wire import Json


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AskPage]:
    with ask_page(tmp_path_factory.mktemp("house"), allowance=200) as found:
        yield found


def seven() -> dict[str, tuple[str, bytes, str]]:
    return {"picture-image": ("seven.png", scan(7), "image/png")}


def left(person: Visit, model: str) -> int:
    """Return how many units the page says are left."""
    found = re.search(r'<p class="left-over"><strong>([0-9,]+)</strong>', person.get(f"/models/{model}").text)
    assert found
    return int(found[1].replace(",", ""))


def test_a_picture_is_answered_with_classes_a_count_and_a_receipt(page: AskPage, tmp_path: Path) -> None:
    person = page.visitor()
    answer = person.ask("digits", files=seven())
    assert answer.status_code == 200
    assert '<p class="headline">7</p>' in answer.text
    assert "units</span></p>" in answer.text or "units left</span>" in answer.text
    path = answer.url.path.removeprefix(page.door.prefix)
    stem = ""
    for name in ("receipt", "request", "response"):
        file = person.get(f"{path}/{name}")
        assert file.headers["content-disposition"].startswith("attachment; ")
        assert file.headers["cache-control"] == "no-store"
        stem = file.headers["content-disposition"].split('"')[1]
        (tmp_path / stem).write_bytes(file.content)
    receipt = next(tmp_path.glob("*.receipt"))
    assert VerifiedReceipt.parse(receipt.read_bytes().strip()).receipt.units == 1
    shown = CliRunner().invoke(app, ["receipt", "verify", "--json", str(receipt)])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["receipts"][0]["content"] == "proven", shown.stdout


def test_fields_by_name_unit_and_range(page: AskPage) -> None:
    person = page.visitor()
    form = person.get("/models/kidney").text
    for part in ("creatinine", "(mg/dL)", 'min="18', 'max="120', "at the time of the sample", "0.1 to 20"):
        assert part in form
    answer = person.ask("kidney", fields={"c0": "60", "c1": "1.1", "c2": "80"})
    assert '<p class="headline">79</p>' in answer.text


TABLES = {
    "in order": "60,1.1,80\n40,1,70\n",
    "by name": "weight;age;creatinine;left over\n80;60;1.1;x\n70;40;1;y\n",
    "tabs and a mark of order": "\ufeff60\t1.1\t80\r\n\r\n40\t1\t70",
}


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES.keys())
def test_a_table_is_pasted_or_uploaded(page: AskPage, text: str) -> None:
    for given in ({"fields": {"table": text}}, {"files": {"table-file": ("rows.csv", text.encode(), "text/csv")}}):
        answer = page.visitor().ask("kidney", **given)
        assert '<th scope="row">1</th><td>79</td>' in answer.text, answer.text
        assert '<th scope="row">2</th><td>75</td>' in answer.text
        assert "2 units" in answer.text


BAD_ROWS = {
    "60,1.1": "row 1 has 2 columns, want 3",
    "60,1.1,heavy": "weight, row 1: &#39;heavy&#39;, want a number",
    "60,1.1,80\n17,1,70": "age, row 2: 17, want 18 to 120",
    "60,nan,80": "creatinine, row 1: nan, want 0.1 to 20",
    "60,,80": "creatinine, row 1: empty, want a number",
    "age,creatinine,weight": "names, but no rows",
    '60,"1.1,80': "no separated values",
    "age,creatinine,weight\n1,2": "line 2 has 2 columns",
    "1,1,1\n" * 1001: "over 1000 rows",
}


@pytest.mark.parametrize(("text", "told"), BAD_ROWS.items(), ids=range(len(BAD_ROWS)))
def test_rows_that_cannot_be_asked_come_back_with_what_is_wrong(page: AskPage, text: str, told: str) -> None:
    answer = page.visitor().ask("kidney", fields={"table": text})
    assert answer.status_code == 400
    assert told in answer.text
    assert text[:40].split("\n", maxsplit=1)[0].replace('"', "&#34;") in answer.text  # what was typed stays


def test_words_are_asked_and_answered(page: AskPage) -> None:
    answer = page.visitor().ask("echo", fields={"c0": "Is anybody there?\nYes."})
    assert "Is anybody there?" in answer.text
    many = page.visitor().ask("echo", fields={"table": 'one\n"two, three"\n'})
    assert "<td>two, three</td>" in many.text


def test_a_picture_that_is_missing_is_asked_for(page: AskPage) -> None:
    answer = page.visitor().ask("digits")
    assert answer.status_code == 400
    assert "picture image: none was chosen" in answer.text


def test_the_page_shows_everything_that_was_verified(page: AskPage) -> None:
    shown = page.visitor().get("/verified").text
    for part in (
        "simulated",
        "General Hospital",
        "as it has to be",
        "not checked",
        "Who vouches for it",
        "purpose",
        page.house.loan,
    ):
        assert part in shown


def test_an_answer_can_be_forgotten(page: AskPage) -> None:
    person = page.visitor()
    path = person.ask("digits", files=seven()).url.path.removeprefix(page.door.prefix)
    token = person.hidden(path)["form_token"]
    assert person.post(f"{path}/forget", form_token=token).url.path.endswith("/models/digits")
    assert person.get(path).status_code == 404


def test_only_so_many_answers_of_a_visitor_are_kept_and_none_for_long(page: AskPage) -> None:
    person = page.visitor()
    paths = [person.ask("echo", fields={"c0": str(n)}).url.path.removeprefix(page.door.prefix) for n in range(6)]
    assert [person.get(path).status_code for path in paths] == [404, 404, 200, 200, 200, 200]


def test_without_units_a_question_may_wait_and_goes_on_by_itself(tmp_path: Path) -> None:
    with ask_page(tmp_path, given={"kidney": (kidney_model(), {})}, allowance=1) as page:
        person = page.visitor()
        fields = {"c0": "1", "c1": "2", "c2": "3"}
        assert person.ask("kidney", fields=fields).status_code == 200
        refused = person.ask("kidney", fields=fields)
        assert refused.status_code == 402
        assert "Nothing is left to ask with" in refused.text
        path = refused.url.path.removeprefix(page.door.prefix)
        waiting = person.post(f"{path}/wait", form_token=person.hidden(path)["form_token"])
        assert waiting.status_code == 200
        assert "Your question waits here" in waiting.text
        assert '<meta http-equiv="refresh" content="3">' in waiting.text
        page.run(page.house.post(f"/v1/loans/{page.house.loan}/top-up", {"units": 5}))
        page.run(_renewed(page))
        for _ in range(50):
            answer = person.get(path)
            if "headline" in answer.text:
                break
            page.run(_moment())
        assert "headline" in answer.text, answer.text
        assert "refresh" not in answer.text


async def _moment() -> None:
    import asyncio  # noqa: PLC0415 - of this test alone

    await asyncio.sleep(0.2)


async def _renewed(page: AskPage) -> None:
    await page.instance.renewal.once()
    page.house.clock.advance(3)


def test_a_question_that_waits_can_be_let_go(tmp_path: Path) -> None:
    with ask_page(tmp_path, given={"kidney": (kidney_model(), {})}, allowance=1) as page:
        person = page.visitor()
        fields = {"c0": "1", "c1": "2", "c2": "3"}
        refused = [person.ask("kidney", fields=fields) for _ in range(2)][1]
        path = refused.url.path.removeprefix(page.door.prefix)
        token = person.hidden(path)["form_token"]
        person.post(f"{path}/wait", form_token=token)
        again = person.post(f"{path}/wait", form_token=token)
        assert again.status_code == 404
        assert person.post(f"{path}/forget", form_token=token).status_code == 200
        assert person.get(path).status_code == 404


def test_a_blocked_loan_is_told_in_words(tmp_path: Path) -> None:
    with ask_page(tmp_path, given={"kidney": (kidney_model(), {})}) as page:
        person = page.visitor()
        page.run(page.house.post("/v1/blocks", {"kind": "loan", "subject": page.house.loan, "reason": "trial over"}))
        page.run(_renewed(page))
        refused = person.ask("kidney", fields={"c0": "1", "c1": "2", "c2": "3"})
        assert refused.status_code == 403
        assert "This model is blocked" in refused.text


def test_who_can_read_changed_and_nothing_was_sent(page: AskPage) -> None:
    person = page.visitor()
    before = left(person, "echo")
    refused = person.ask("echo", fields={"c0": "secret"}, readers="0" * 32)
    assert refused.status_code == 409
    assert "Nothing was sent" in refused.text
    assert "secret" in refused.text  # still in the form
    assert left(person, "echo") == before
    person.ask("echo", fields={"c0": "secret"})
    assert left(person, "echo") == before - 1


def test_an_enclave_that_restarts_is_verified_anew_and_the_page_says_so(tmp_path: Path) -> None:
    with ask_page(tmp_path, given={"digits": (digits_model(), DIGITS_CARD)}, allowance=5000) as page:
        person = page.visitor()
        assert "Verified anew" not in person.get("/verified").text
        page.run(page.restart())
        answer = person.ask("digits", files=seven())
        assert '<p class="headline">7</p>' in answer.text
        shown = person.get("/verified").text
        assert "Verified anew" in shown
        assert "another instance" in shown


def test_while_it_is_not_verified_nothing_is_asked(tmp_path: Path) -> None:
    with ask_page(tmp_path, given={"digits": (digits_model(), DIGITS_CARD)}) as page:
        person = page.visitor()
        page.house.wires.cut.add(8440)
        page.house.clock.advance(7200)
        refused = person.get("/models/digits")
        assert refused.status_code == 503
        assert "No answer" in refused.text
        assert "Who can read this" not in refused.text
        page.house.wires.cut.clear()


def test_an_answer_stays_while_the_enclave_cannot_be_verified_any_more(tmp_path: Path) -> None:
    given = {"digits": (digits_model(), DIGITS_CARD)}
    with ask_page(tmp_path, given=given, limits=Limits(kept_s=86_400)) as page:
        person = page.visitor()
        path = person.ask("digits", files=seven()).url.path.removeprefix(page.door.prefix)
        page.house.wires.cut.add(8440)
        page.house.clock.advance(7200)
        shown = person.get(path)
        assert shown.status_code == 200
        assert '<p class="headline">7</p>' in shown.text
        assert "General Hospital, who runs the machine" in shown.text
        page.house.wires.cut.clear()


def test_a_model_that_has_no_form_says_so(tmp_path: Path) -> None:
    card: Json = {"preprocess": {"series": {"kind": "sound"}}}
    with ask_page(tmp_path, given={"raw": (raw_model(), card)}, limits=Limits(max_tensors=0)) as page:
        person = page.visitor()
        shown = person.get("/models/raw").text
        assert "has no form for this model" in shown
        assert "ids, notes, series are of a type or in a number" in shown
        assert person.hidden("/models/raw") == {}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AskPage]:
    with ask_page(tmp_path_factory.mktemp("house"), given={"raw": (raw_model(), {})}, allowance=500) as found:
        yield found


RAW = {"t0": "[[5, 7, 9]]", "t1": "one\ntwo & three", "t2": "time;value\n0;0.5\n1;-0.25\n"}


def test_any_tensors_are_asked_about_and_answered(raw: AskPage) -> None:
    person = raw.visitor()
    form = person.get("/models/raw").text
    for part in (
        "INT64, any x any",
        "BYTES, any x any",
        "FP32, any x any x 2",
        "Costs a unit for each item of the first dimension.",
    ):
        assert part in form
    answer = person.ask("raw", fields=RAW)
    assert answer.status_code == 200, answer.text
    for part in (
        "<td>9</td>",
        "<td>two &amp; three</td>",
        '<th scope="row">1, 2</th><td>1</td><td>-0.25</td>',
        "1 x 2 x 2",
    ):
        assert part in answer.text
    file = person.get(answer.url.path.removeprefix(raw.door.prefix) + "/outputs")
    assert file.headers["content-disposition"].endswith('.outputs.json"')
    assert file.headers["cache-control"] == "no-store"
    assert file.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert [(one["datatype"], one["shape"], one["data"]) for one in file.json()["outputs"]] == [
        ("INT64", [1, 3], [5, 7, 9]),
        ("BYTES", [1, 2], ["one", "two & three"]),
        ("FP32", [1, 2, 2], [0.0, 0.5, 1.0, -0.25]),
    ]


def test_files_are_asked_about_and_several_items_cost_several_units(raw: AskPage) -> None:
    series = io.BytesIO()
    np.save(series, np.arange(12, dtype=">f8").reshape(3, 2, 2))
    files = {
        "t0-file": ("ids.csv", b"1,2\n3,4\n5,6\n", "text/csv"),
        "t1-file": ("notes.txt", b'[["a"],["b"],["c"]]', "text/plain"),
        "t2-file": ("series.npy", series.getvalue(), "application/octet-stream"),
    }
    answer = raw.visitor().ask("raw", fields={"t1-as": "json"}, files=files)
    assert "3 units" in answer.text, answer.text
    assert '<th scope="row">3, 2</th><td>10</td><td>11</td>' in answer.text


def test_items_that_do_not_go_together_are_refused_by_the_enclave_and_cost_nothing(raw: AskPage) -> None:
    person = raw.visitor()
    before = left(person, "raw")
    answer = person.ask("raw", fields={**RAW, "t0": "[[1],[2]]"})
    assert answer.status_code == 403
    assert "What you gave does not fit the model" in answer.text
    assert left(person, "raw") == before


def test_a_gap_is_sent_where_it_is_meant(raw: AskPage) -> None:
    person = raw.visitor()
    refused = person.ask("raw", fields={**RAW, "t2": "[[[1, NaN]]]"})
    assert "input series, at [0][0][1]: &#39;NaN&#39;, want a number" in refused.text
    assert "[[[1, NaN]]]" in refused.text  # what was written stays
    answer = person.ask("raw", fields={**RAW, "t2": "[[[1, NaN]]]", "t2-nan": "yes"})
    assert "<td>1</td><td>nan</td>" in answer.text


def test_a_picture_is_kept_on_no_disk(page: AskPage) -> None:
    data = scan(3)
    page.visitor().ask("digits", files={"picture-image": ("three.png", data, "image/png")})
    mark = io.BytesIO(data).read(200)
    assert not [path for path in page.house.folder.rglob("*") if path.is_file() and mark in path.read_bytes()]
