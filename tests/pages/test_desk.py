"""The dashboard over HTTP: who gets in, what each role sees and may do, and that a page does what the API does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import Bench, bearer
from desk_kit import Busy, Person, bare
from sqlalchemy import Engine, event

from cloister.custodian.dashboard.app import PAGES, TABS
from cloister.custodian.dashboard.visit import _TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def bench(place: Path) -> Iterator[Bench]:
    with Bench(place, settings={"failures_per_minute": 5}) as opened:
        yield opened


@pytest.fixture
def busy(place: Path) -> Iterator[Busy]:
    with Bench(place, settings={"two_person": ("unblock",)}) as opened:
        yield Busy(opened)


def admin(bench: Bench) -> Person:
    return Person(bench, bench.init.admin_token)


# coming in


def test_who_is_not_signed_in_sees_no_page_and_is_led_back_after_it(bench: Bench) -> None:
    person = Person(bench)
    for page in PAGES:
        path = page.path.replace("{loan}", "loan-x").replace("{digest}", "ab" * 32)
        answer = person.client.request(page.method, f"/ui{path}")
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/ui/sign-in")
    assert person.get("/loans").headers["location"] == "/ui/sign-in?next=/loans"
    assert 'name="next" value="/loans"' in person.get("/sign-in?next=/loans").text
    answer = person.client.post(
        "/ui/sign-in",
        data={"token": bench.init.admin_token, "next": "/loans"},
        headers={"origin": "https://testserver"},
    )
    assert answer.headers["location"] == "/ui/loans"


def test_a_session_is_what_comes_in_a_cookie_of_its_own_and_never_the_token(bench: Bench) -> None:
    answer = Person(bench).sign_in(bench.init.admin_token)
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-cloister=clss_")
    assert bench.init.admin_token not in cookie
    for word in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
        assert word in cookie
    assert "Domain" not in cookie
    assert "Max-Age" not in cookie
    assert bench.kinds()[-1] == "session_opened"


def test_signing_out_ends_the_session_itself(bench: Bench) -> None:
    person = admin(bench)
    kept = person.client.cookies["__Host-cloister"]
    answer = person.post("/sign-out")
    assert answer.headers["location"] == "/ui/sign-in"
    assert '__Host-cloister=""' in answer.headers["set-cookie"]
    person.client.cookies.set("__Host-cloister", kept)
    assert person.get("/").status_code == 303
    assert bench.get("/v1/loans", bearer(kept)).status_code == 401


def test_a_session_goes_on_while_somebody_is_there_and_not_for_what_a_page_fetches_itself(bench: Bench) -> None:
    person = admin(bench)
    bench.clock.advance(500)
    assert "data-until=" in person.page("/")  # less than half is left: it goes on
    bench.clock.advance(500)
    assert person.get("/", **{"x-live": "1"}).status_code == 200
    bench.clock.advance(401)
    assert person.get("/", **{"x-live": "1"}).status_code == 401
    assert person.get("/").status_code == 303
    assert bench.kinds().count("session_renewed") == 1


def test_who_says_that_they_are_there_stays_signed_in(bench: Bench) -> None:
    person = admin(bench)
    assert person.post("/stay", {"back": "/loans"}).headers["location"] == "/ui/loans"
    assert person.post("/stay", {"back": "//evil.example"}).headers["location"] == "/ui/"


def test_a_link_is_good_once_and_becomes_a_session_that_nobody_saw(bench: Bench) -> None:
    link = bench.post("/v1/sessions", {"life_s": 60}).json()["token"]
    person = Person(bench)
    answer = person.sign_in(link)
    assert answer.status_code == 303
    assert link not in answer.headers["set-cookie"]
    again = Person(bench).sign_in(link)
    assert again.status_code == 403
    assert "good for nothing here" in again.text
    assert bench.get("/v1/loans", bearer(link)).status_code == 401
    assert person.get("/").status_code == 200


def test_a_link_that_waited_too_long_opens_nothing(bench: Bench) -> None:
    link = bench.post("/v1/sessions", {"life_s": 60}).json()["token"]
    bench.clock.advance(61)
    assert Person(bench).sign_in(link).status_code == 403


def test_a_borrower_has_no_pages_here(bench: Bench) -> None:
    lent = bench.lend()
    answer = Person(bench).sign_in(bare(lent.token))
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    session = bench.post("/v1/sessions", token=lent.token).json()["token"]
    person = Person(bench)
    person.client.cookies.set("__Host-cloister", session)
    assert person.get(f"/loans/{lent.id}").status_code == 303


def test_failed_sign_ins_are_counted_with_those_of_the_api(bench: Bench) -> None:
    person = Person(bench)
    for _ in range(5):
        assert person.sign_in("clst_" + "x" * 43).status_code == 403
    assert "too_many_requests" in person.sign_in(bench.init.admin_token).text
    assert bench.get("/v1/loans").status_code == 429
    assert person.sign_in("not a token").status_code == 403


def test_who_failed_too_often_is_told_so_by_a_page_too(bench: Bench) -> None:
    person = Person(bench)
    for number in range(6):
        person.client.cookies.set("__Host-cloister", f"clss_{number:043}")
        answers = [person.get(path).status_code for path in ("/", "/nothing")]
    assert answers == [429, 429]


def test_a_revoked_token_takes_its_pages_along(bench: Bench) -> None:
    lender = bench.token("lender")
    person = Person(bench, bare(lender))
    token = next(row["id"] for row in bench.get("/v1/tokens").json()["tokens"] if row["role"] == "lender")
    bench.client.delete(f"/v1/tokens/{token}", headers=bench.admin)
    assert person.get("/").status_code == 303


# what roles see and do


def test_the_dashboard_can_be_turned_off(place: Path) -> None:
    with Bench(place, settings={"dashboard": False}) as bench:
        assert bench.client.get("/ui/sign-in").status_code == 404


@pytest.mark.parametrize("role", ["admin", "lender", "auditor", "viewer"])
def test_every_tab_that_a_role_is_shown_opens(bench: Bench, role: str) -> None:
    person = Person(bench, bare(bench.token(role)))
    start = person.page("/")
    for tab in TABS:
        shown = f'href="/ui{tab.entry.path}"' in start
        assert person.get(tab.entry.path).status_code == (200 if shown else 403)


@pytest.mark.parametrize("role", ["auditor", "viewer"])
def test_who_may_only_look_is_shown_no_button_and_refused_every_action(busy: Busy, role: str) -> None:
    bench = busy.bench
    person = Person(bench, bare(bench.token(role)))
    loan, digest = f"/loans/{busy.lent.id}", bench.digest
    for path in (loan, f"/models/{digest}", f"/proposals/{busy.proposal}"):
        page = person.page(path)
        assert page.count("<form") == 2  # signing out, and staying
    ask = bench.get(f"/v1/loans/{busy.lent.id}").json()["requests"][0]["id"]
    size = len(bench.audit())
    actions: list[tuple[str, dict[str, Any]]] = [
        ("/block", {"kind": "loan", "subject": busy.lent.id, "reason": "", "back": "/"}),
        ("/unblock", {"kind": "loan", "subject": busy.stopped.id, "back": "/"}),
        (f"{loan}/top-up", {"units": 1}),
        (f"{loan}/set", {"units": 1}),
        (f"{loan}/requests/{ask}/approve", {"units": 1}),
        (f"{loan}/requests/{ask}/deny", {}),
        (f"/models/{digest}/withdraw", {}),
        (f"/proposals/{busy.proposal}/deny", {}),
    ]
    for path, fields in actions:
        assert person.post(path, fields).status_code == 403, path
    denied = bench.audit()[size:]
    assert [entry["kind"] for entry in denied] == ["access_denied"] * len(actions)


def test_pages_ask_only_routes_that_are_in_the_table_of_the_api() -> None:
    assert {tab.route for tab in TABS} <= _TABLE.keys()
    assert len({(page.method, page.path) for page in PAGES}) == len(PAGES)


# doing things


def test_units_are_added_once_however_often_the_form_is_sent(bench: Bench) -> None:
    lent, person = bench.lend(allowance=10), admin(bench)
    fields = {"units": "1,000", "once": "a-form"}
    for _ in range(2):
        answer = person.post(f"/loans/{lent.id}/top-up", fields)
        assert answer.headers["location"] == f"/ui/loans/{lent.id}?done=topped-up"
    assert lent.balance() == 1010
    person.post(f"/loans/{lent.id}/top-up", {"units": "5", "once": "a-form"})  # the same page, other units
    assert lent.balance() == 1015
    assert person.post(f"/loans/{lent.id}/set", {"units": "7"}).status_code == 303
    assert lent.balance() == 7
    assert "The units were added." in person.page(f"/loans/{lent.id}?done=topped-up")
    assert "<b>hi" not in person.page(f"/loans/{lent.id}?done=<b>hi")


@pytest.mark.parametrize("units", ["", "-1", "1e3", "0x10", "9" * 30, "١٢", "1.5", "nan"])
def test_what_is_no_number_of_units_changes_nothing(bench: Bench, units: str) -> None:
    lent, person = bench.lend(allowance=10), admin(bench)
    assert person.post(f"/loans/{lent.id}/top-up", {"units": units}).status_code == 400
    assert lent.balance() == 10


def test_a_block_says_its_bound_before_and_after_and_is_the_one_of_the_api(busy: Busy) -> None:
    bench, person = busy.bench, Person(busy.bench, busy.alice)
    page, loan = person.page(f"/loans/{busy.lent.id}"), f"/loans/{busy.lent.id}"
    bound = bench.get(f"/v1{loan}").json()["bound"]
    words = f"within {bound['seconds']:,} s or {bound['units']:,} units, whichever comes first"
    assert page.count(words) >= 2
    fields = {"kind": "loan", "subject": busy.lent.id, "reason": "theft", "back": loan}
    assert person.post("/block", fields).headers["location"] == f"/ui{loan}?done=blocked"
    assert bench.get(f"/v1{loan}").json()["state"] == "blocked"
    assert words in person.page(loan)
    assert "theft" in person.page(loan)


def test_a_request_for_more_is_answered_from_the_page_of_its_loan(busy: Busy) -> None:
    bench, person = busy.bench, Person(busy.bench, busy.alice)
    asked = bench.post(f"/v1/loans/{busy.lent.id}/requests", {"units": 7}, token=busy.lent.token).json()["id"]
    first = next(ask for ask in busy.lent.show()["requests"] if ask["id"] != asked)["id"]
    assert "a second scanner" in person.page(f"/loans/{busy.lent.id}")
    person.post(f"/loans/{busy.lent.id}/requests/{first}/approve", {"units": "100"})
    person.post(f"/loans/{busy.lent.id}/requests/{asked}/deny", {"reason": "not now"})
    states = {ask["id"]: (ask["state"], ask["granted"], ask["answer"]) for ask in busy.lent.show()["requests"]}
    assert states == {first: ("approved", 100, None), asked: ("denied", 0, "not now")}
    again = person.post(f"/loans/{busy.lent.id}/requests/{asked}/deny", {})
    assert again.status_code == 409
    assert "answered before" in again.text


def test_what_two_persons_decide_waits_and_is_approved_with_the_token_alone(busy: Busy) -> None:
    bench, alice, bob = busy.bench, Person(busy.bench, busy.alice), Person(busy.bench, busy.bob)
    back = f"/loans/{busy.stopped.id}"
    answer = alice.post("/unblock", {"kind": "loan", "subject": busy.stopped.id, "back": back})
    assert answer.headers["location"] == f"/ui/proposals/{busy.proposal}?done=proposed"
    path, digest = f"/proposals/{busy.proposal}", bench.get(f"/v1/proposals/{busy.proposal}").json()["digest"]
    assert "This is yours" in alice.page(path)
    assert alice.post(f"{path}/approve", {"digest": digest, "token": busy.alice}).status_code == 403
    for wrong in ("", busy.alice, bench.init.admin_token, bob.client.cookies["__Host-cloister"]):
        assert bob.post(f"{path}/approve", {"digest": digest, "token": wrong}).status_code in {401, 403, 422}
    assert busy.stopped.show()["state"] == "blocked"
    assert bob.post(f"{path}/approve", {"digest": "ab" * 32, "token": busy.bob}).status_code == 409
    answer = bob.post(f"{path}/approve", {"digest": digest, "token": busy.bob})
    assert answer.headers["location"] == f"/ui{path}?done=approved"
    assert busy.stopped.show()["state"] == "active"
    assert "executed" in bob.page(path)


def test_a_proposal_is_denied_by_another_and_withdrawn_by_its_author(busy: Busy) -> None:
    alice, bob = Person(busy.bench, busy.alice), Person(busy.bench, busy.bob)
    path = f"/proposals/{busy.proposal}"
    assert bob.post(f"{path}/withdraw").status_code == 403
    assert alice.post(f"{path}/withdraw").headers["location"] == f"/ui{path}?done=withdrawn"
    assert bob.post(f"{path}/deny", {"reason": "no"}).status_code == 409
    assert "withdrawn" in bob.page("/proposals")


def test_a_model_is_blocked_and_withdrawn_from_its_page(busy: Busy) -> None:
    bench, person = busy.bench, Person(busy.bench, busy.alice)
    path = f"/models/{bench.digest}"
    assert "Hospital of the Holy Ghost" in person.page(path)
    person.post("/block", {"kind": "model", "subject": bench.digest, "reason": "x", "back": path})
    assert "blocked in every loan" in person.page(path)
    assert person.post(f"{path}/withdraw").headers["location"] == f"/ui{path}?done=withdrawn-model"
    assert "withdrawn" in person.page(path)


def test_what_is_not_there_is_a_page_that_says_so(bench: Bench) -> None:
    person = admin(bench)
    for path in ("/nothing", "/loans/loan-aaaaaaaaaaaaaaaa", "/loans/%3Cb%3E", f"/models/{'0' * 64}", "/proposals/x"):
        answer = person.get(path)
        assert answer.status_code == 404, path
        assert "Nothing is here" in answer.text
        assert "<b>" not in answer.text
    assert person.client.put("/ui/loans").status_code == 405
    assert person.get("/loans?skip=-1").status_code == 400
    assert person.get("/loans?skip=99999999999999").status_code == 400


def test_loans_are_found_by_a_part_of_the_name_taken_literally(bench: Bench) -> None:
    for name in ("Hundred % Clinic", "A_B", "Ab"):
        bench.lend(borrower=name)
    person = admin(bench)
    assert "1 loan with" in person.page("/loans?q=%25")
    assert "1 loan with" in person.page("/loans?q=_")
    assert "1 loan with" in person.page("/loans?q=hUNDRED")
    assert "No such loan." in person.page("/loans?q=%5C")


def test_a_long_list_is_shown_a_page_at_a_time(bench: Bench) -> None:
    for number in range(55):
        bench.lend(borrower=f"Clinic {number}")
    person = admin(bench)
    page = person.page("/loans")
    assert "1 to 50 of 55" in page
    assert 'href="/ui/loans?skip=50"' in page
    page = person.page("/loans?skip=50")
    assert "51 to 55 of 55" in page
    assert 'rel="next"' not in page


def _asked_of_the_database(bench: Bench, person: Person, path: str) -> int:
    """Return how many statements a page takes."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        person.page(path)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert bench.service.context.size
    return len(seen)


def test_no_page_asks_the_database_more_often_where_there_are_more_loans(bench: Bench) -> None:
    """A page of fifty loans is one of fifty of a thousand too."""
    person = admin(bench)
    for _ in range(51):
        loan = bench.lend().id
    paths = ("/", "/loans", f"/loans/{loan}", "/models", f"/models/{bench.digest}")
    few = [_asked_of_the_database(bench, person, path) for path in paths]
    for _ in range(40):
        bench.lend()
    many = [_asked_of_the_database(bench, person, path) for path in paths]
    assert all(after <= before + 12 for before, after in zip(few, many, strict=True))  # a search by halves takes more
