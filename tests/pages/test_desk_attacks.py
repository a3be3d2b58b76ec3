"""What somebody at another site, at another desk, or with a pen in a free text would try at the dashboard (T106)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from custodian_kit import Bench
from desk_kit import SAME, Person, bare

from cloister.custodian.dashboard.app import PAGES
from cloister.wire import STEERING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(1)>' {{ 7*7 }} ${7*7}"


@pytest.fixture
def bench(place: Path) -> Iterator[Bench]:
    with Bench(place) as opened:
        yield opened


@pytest.fixture
def person(bench: Bench) -> Person:
    return Person(bench, bench.init.admin_token)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "https://testserver", "sec-fetch-site": "cross-site"},
        {"origin": "https://testserver", "sec-fetch-site": "same-site"},
        {"origin": "https://testserver", "sec-fetch-site": "none"},
        {"origin": "https://testserver.evil.example", "sec-fetch-site": "same-origin"},
        {"origin": "https://testserver:444", "sec-fetch-site": "same-origin"},
        {"origin": "https://[", "sec-fetch-site": "same-origin"},
        {"origin": "https://]testserver"},
    ],
)
def test_a_form_of_another_site_presses_no_button_even_with_a_right_token(
    bench: Bench, person: Person, headers: dict[str, str]
) -> None:
    lent = bench.lend(allowance=10)
    fields = {"form_token": person.form_token(), "units": "5"}
    answer = person.client.post(f"/ui/loans/{lent.id}/top-up", data=fields, headers=headers)
    assert answer.status_code == 403
    assert lent.balance() == 10
    stranger = Person(bench)
    signed = stranger.client.post("/ui/sign-in", data={"token": bench.init.admin_token}, headers=headers)
    assert (signed.status_code, "set-cookie" in signed.headers) == (403, False)


def test_a_form_without_this_sessions_token_presses_no_button(bench: Bench, person: Person) -> None:
    lent = bench.lend(allowance=10)
    other = Person(bench, bare(bench.token("admin"))).form_token()
    for token in ("", "x", other, person.form_token() + "x"):
        data = {"form_token": token, "units": "5"}
        assert person.client.post(f"/ui/loans/{lent.id}/top-up", data=data, headers=SAME).status_code == 403
    assert person.client.post(f"/ui/loans/{lent.id}/top-up", data={"units": "5"}, headers=SAME).status_code == 403
    assert lent.balance() == 10


@pytest.mark.parametrize("page", [page for page in PAGES if page.method == "POST"], ids=lambda page: page.path)
def test_every_action_wants_a_form_of_ours_and_none_is_a_link(person: Person, page: object) -> None:
    path = re.sub(r"\{\w+\}", "x", page.path)  # type: ignore[attr-defined]
    assert person.client.post(f"/ui{path}", data={"units": "1"}, headers=SAME).status_code == 403
    assert person.client.get(f"/ui{path}").status_code in {404, 405}


def test_a_cookie_opens_nothing_of_the_api(person: Person) -> None:
    assert person.client.get("/v1/loans").status_code == 401
    assert person.client.post("/v1/blocks", json={}, headers=SAME).status_code == 401
    assert person.client.get("/v1/events").status_code == 401


def test_a_token_in_a_header_opens_no_page(bench: Bench) -> None:
    assert Person(bench).get("/", **bench.admin).status_code == 303


def test_a_planted_session_is_not_kept(bench: Bench) -> None:
    """Fixation: whatever cookie was there before, signing in makes another one."""
    planted = bench.post("/v1/sessions").json()["token"]
    victim = Person(bench)
    victim.client.cookies.set("__Host-cloister", planted)
    answer = victim.sign_in(bench.init.admin_token)
    assert planted not in answer.headers["set-cookie"]
    by_link = bench.post("/v1/sessions").json()["token"]
    answer = Person(bench).sign_in(by_link)
    assert by_link not in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    "after",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "/..//evil",
        "javascript:alert(1)",
        "/a?b",
        "/%0d%0aX",
    ],
)
def test_signing_in_leads_to_no_other_server(bench: Bench, after: str) -> None:
    data = {"token": bench.init.admin_token, "next": after}
    answer = Person(bench).client.post("/ui/sign-in", data=data, headers=SAME)
    assert answer.headers["location"] == "/ui/"
    page = Person(bench).client.get("/ui/sign-in", params={"next": after})
    assert 'name="next" value=""' in page.text


def test_no_free_text_becomes_markup_on_any_page(bench: Bench, person: Person) -> None:
    lent = bench.lend(borrower=HOSTILE[:80], allowance=10)
    bench.post(f"/v1/loans/{lent.id}/requests", {"units": 1, "reason": HOSTILE}, token=lent.token)
    bench.post("/v1/blocks", {"kind": "loan", "subject": lent.id, "reason": HOSTILE})
    bench.post("/v1/blocks", {"kind": "model", "subject": bench.digest, "reason": HOSTILE})
    shouting = Person(bench, bare(bench.token("viewer", name=HOSTILE)))
    for who in (person, shouting):
        for path in ("/", "/loans", f"/loans/{lent.id}", "/models", f"/models/{bench.digest}", "/proposals"):
            page = who.page(path)
            assert page.count("<script") == 1, path
            assert "<img" not in page
            assert "onerror=alert(1)>" not in page
            assert not re.search(r"\s(style|on\w+)=\"", page), path
            assert " 49 " not in page
        assert who.get(f"/loans?q={HOSTILE}").text.count("<script") == 1
    answer = person.post(f"/loans/{lent.id}/top-up", {"units": HOSTILE})
    assert answer.status_code == 400
    assert answer.text.count("<script") == 1


def test_no_free_text_becomes_markup_or_steers_the_eye_on_pages_that_watch(bench: Bench, person: Person) -> None:
    lent = bench.lend(borrower=HOSTILE[:80], consumers=[{"id": "ward-a", "allowance": 50}])
    toy = lent.boot()
    toy.renew()
    toy.serve(5, token=str(lent.made["consumer_tokens"]["ward-a"]).encode())
    toy.renew()
    name = bench.get("/v1/instances").json()["instances"][0]["id"]
    bench.post("/v1/blocks", {"kind": "instance", "subject": name, "reason": HOSTILE})
    bench.post("/v1/audit/holds", {"scope": "all", "reason": HOSTILE})
    bench.token("viewer", name=HOSTILE)
    entries = [f"/audit/{item['index']}" for item in bench.audit()]
    paths = ("/audit", "/enclaves", f"/enclaves/{name}", f"/loans/{lent.id}/policy", "/consumers", "/access",
             "/devices", "/settings", *entries)  # fmt: skip
    for path in paths:
        page = person.page(path)
        assert page.count("<script") == 1, path
        assert "<img" not in page, path
        assert not re.search(r"\s(style|on\w+)=\"", page), path
        assert not STEERING.search(page.replace("\n", "").replace("\t", "")), path
    written = HOSTILE + "\u202e</textarea><script>"
    look = person.post(f"/loans/{lent.id}/policy/look", {"policy": written}).text
    assert (look.count("<script"), look.count("</textarea>"), "\u202e" in look) == (1, 1, False)


def test_every_answer_is_unframed_uncached_and_unsniffed(bench: Bench, person: Person) -> None:
    answers = [person.get("/"), person.get("/nothing"), person.post("/sign-out"), Person(bench).get("/"),
               Person(bench).get("/sign-in"), Person(bench).sign_in("x")]  # fmt: skip
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "strict-transport-security" in answer.headers


def test_nothing_secret_is_in_a_page_or_an_address(bench: Bench, person: Person) -> None:
    session = person.client.cookies["__Host-cloister"]
    for path in ("/", "/loans", "/models", "/proposals"):
        page = person.page(path)
        assert session not in page
        assert bench.init.admin_token not in page
    assert "token" not in person.get("/nowhere").headers.get("location", "")


def test_a_form_that_is_none_is_refused_before_anything_is_done(person: Person) -> None:
    token = person.form_token()
    for content, media in (
        (b"form_token=a&form_token=b", "application/x-www-form-urlencoded"),
        (b"\xff\xfe=1", "application/x-www-form-urlencoded"),
        (b"%ff=1", "application/x-www-form-urlencoded"),
        (b"&".join(b"a%d=1" % number for number in range(70)), "application/x-www-form-urlencoded"),
        (b"{}", "application/json"),
        (f"form_token={token}".encode(), "text/plain"),
    ):
        answer = person.client.post("/ui/block", content=content, headers={**SAME, "content-type": media})
        assert answer.status_code in {400, 415}, content
    answer = person.client.post(
        "/ui/block",
        content=b"a=" + b"x" * (1 << 20),
        headers={**SAME, "content-type": "application/x-www-form-urlencoded"},
    )
    assert answer.status_code == 413


def test_a_block_leads_back_to_a_page_of_ours_only(bench: Bench, person: Person) -> None:
    lent = bench.lend()
    fields = {"kind": "loan", "subject": lent.id, "reason": "", "back": "//evil.example"}
    answer = person.post("/block", fields)
    assert answer.status_code == 400
    assert lent.show()["state"] != "blocked"  # nothing is done for a form that is not ours


def test_what_changed_is_told_to_who_is_signed_in_and_to_nobody_else(bench: Bench, person: Person) -> None:
    assert Person(bench).client.get("/ui/live").status_code == 204
    bench.client.app.state.streams.stopping = True  # type: ignore[attr-defined]  # a stream ends when it has begun
    answer = person.client.get("/ui/live")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.content == b"retry: 2000\n\n"
