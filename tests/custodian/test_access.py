"""Tokens, borrowers and strangers (T51, T78-T80); every role on every route is in test_roles."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import bearer

from cloister.custodian.presented import Presented
from cloister.custodian.tokens import hash_token
from cloister.errors import Rejected
from cloister.serving.rates import RateLimit

if TYPE_CHECKING:
    from custodian_kit import Bench


def test_a_borrower_sees_its_own_loan_and_no_trace_of_another(bench: Bench) -> None:
    """T79: other people's objects are 404, not 403."""
    mine, theirs = bench.lend(), bench.lend()
    absent = "loan-aaaaaaaaaaaaaaaa"
    for loan in (theirs.id, absent):
        answers = [
            bench.get(f"/v1/loans/{loan}/summary", token=mine.token),
            bench.client.post(f"/v1/loans/{loan}/challenge", headers=mine.token),
            bench.post(f"/v1/loans/{loan}/requests", {"units": 1}, token=mine.token),
            bench.get(f"/v1/events?loan={loan}", token=mine.token),
        ]
        assert {answer.status_code for answer in answers} == {404}
        assert len({answer.content for answer in answers}) == 1
    assert bench.get(f"/v1/loans/{mine.id}/summary", token=mine.token).status_code == 200


def test_a_borrowers_summary_shows_no_hash_of_a_consumers_token(bench: Bench) -> None:
    lent = bench.lend(consumers=[{"id": "ward-a"}])
    shown = bench.get(f"/v1/loans/{lent.id}/summary", token=lent.token).text
    assert "token" not in shown
    assert hash_token(lent.made["consumer_tokens"]["ward-a"]).hex() not in shown


def test_a_revoked_and_an_expired_token_open_nothing(bench: Bench) -> None:
    short = bench.token("auditor", life_s=60)
    assert bench.get("/v1/loans", token=short).status_code == 200
    bench.clock.advance(60)
    assert bench.get("/v1/loans", token=short).status_code == 401
    lender = bench.token("lender")
    identity = next(item["id"] for item in bench.get("/v1/tokens").json()["tokens"] if item["role"] == "lender")
    assert bench.client.delete(f"/v1/tokens/{identity}", headers=bench.admin).json()["revoked"] is True
    assert bench.get("/v1/loans", token=lender).status_code == 401
    assert bench.client.delete(f"/v1/tokens/{identity}", headers=bench.admin).status_code == 404


def test_the_last_admin_cannot_lock_everybody_out(bench: Bench) -> None:
    def admins() -> list[str]:
        return [item["id"] for item in bench.get("/v1/tokens").json()["tokens"] if item["role"] == "admin"]

    [first] = admins()
    refused = bench.client.delete(f"/v1/tokens/{first}", headers=bench.admin)
    assert (refused.status_code, refused.json()["code"]) == (409, "last_admin")
    bench.token("admin", life_s=60)
    assert bench.client.delete(f"/v1/tokens/{first}", headers=bench.admin).status_code == 409
    bench.token("admin")
    assert bench.client.delete(f"/v1/tokens/{first}", headers=bench.admin).status_code == 200


def test_tokens_are_listed_without_what_they_are(bench: Bench) -> None:
    token = bench.token("lender")["Authorization"].removeprefix("Bearer ")
    shown = bench.get("/v1/tokens").text
    assert token not in shown
    assert hash_token(token).hex() not in shown


@pytest.mark.parametrize(
    "body",
    [
        {"role": "root", "name": "x"},
        {"role": "borrower", "name": "x"},
        {"role": "admin", "name": "x", "loan": "loan-aaaaaaaaaaaaaaaa"},
        {"role": "admin", "name": ""},
        {"role": "admin", "name": "x", "life_s": 1},
        {"role": "admin"},
    ],
    ids=repr,
)
def test_a_token_that_makes_no_sense_is_not_made(bench: Bench, body: dict[str, Any]) -> None:
    before = len(bench.get("/v1/tokens").json()["tokens"])
    assert bench.post("/v1/tokens", body).status_code == 400
    assert len(bench.get("/v1/tokens").json()["tokens"]) == before


@pytest.mark.parametrize(
    "header",
    [
        None, "", "Bearer", "Bearer ", "Bearer x", "Basic YTpi", "Bearer a b", "Bearer " + "A" * 200,
        "Bearer eyJhbGciOiJub25lIn0.e30.", "Bearer ../../x-and-more", "Bearer ' OR 1=1 -- and more",
    ],
)  # fmt: skip
def test_a_strange_authorization_header_is_just_unauthenticated(bench: Bench, header: str | None) -> None:
    """List 53 and 54, where no issuer is registered."""
    with pytest.raises(Rejected) as refused:
        bench.service.authenticate(Presented(authorization=header))
    assert refused.value.code == "unauthenticated"


def test_a_hundred_thousand_strangers_take_bounded_memory(bench: Bench) -> None:
    """T51: nothing is stored for who did not prove anything, and what is counted is bounded."""
    limit = RateLimit(per_minute=60, subject="failed logins")
    for number in range(100_000):
        limit.spend(f"10.{number >> 16}.{(number >> 8) & 255}.{number & 255}", bench.clock())
    assert len(limit) <= 4096


def test_unauthenticated_challenges_allocate_nothing_and_end_in_429(bench: Bench) -> None:
    """T51, list 73."""
    lent = bench.lend()
    size = len(bench.audit())
    codes = [lent.challenge(token=bearer("clst_" + "A" * 43)).status_code for _ in range(200)]
    assert codes[:60] == [401] * 60
    assert set(codes[60:]) == {429}
    with bench.service.context.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM nonce").scalar_one() == 0
    bench.clock.advance(60)
    denied = [entry for entry in bench.audit()[size:] if entry["kind"] == "access_denied"]
    assert len(denied) == 1


def test_a_limit_refills_with_time(bench: Bench) -> None:
    limit = RateLimit(per_minute=2, subject="tries")
    now = bench.clock()
    limit.take("a", now)
    limit.take("a", now)
    with pytest.raises(Rejected):
        limit.take("a", now)
    limit.take("b", now)
    limit.take("a", now + timedelta(seconds=31))
    with pytest.raises(Rejected):
        limit.take("a", now - timedelta(hours=1))


def test_a_refused_role_is_in_the_log(bench: Bench) -> None:
    auditor = bench.token("auditor")
    bench.post("/v1/loans", {}, token=auditor)
    last = bench.audit()[-1]
    assert (last["kind"], last["details"]["codes"]) == ("access_denied", "forbidden")
    assert last["actor"].startswith("auditor:tok-")
