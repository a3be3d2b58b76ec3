"""What loans spent lately is what the ledger says, step by step, to who may see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from custodian_kit import Bench, Lent, Toy


def told(bench: Bench, path: str = "/v1/spending", token: dict[str, str] | None = None) -> dict[str, Any]:
    answer = bench.get(path, token)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def spend(toy: Toy, units: int) -> None:
    toy.serve(units)
    toy.renew()


def running(lent: Lent) -> Toy:
    toy = lent.boot()
    toy.renew()
    return toy


def test_each_unit_is_in_the_step_in_which_it_was_reported(bench: Bench) -> None:
    lent = bench.lend(allowance=100)
    toy = running(lent)
    spend(toy, 3)
    bench.clock.advance(20)
    spend(toy, 4)
    bench.clock.advance(45)
    spend(toy, 5)
    shown = told(bench, "/v1/spending?step_s=60&steps=3")
    assert (shown["from"], shown["to"], shown["step_s"]) == ("2026-11-21T11:59:00Z", "2026-11-21T12:01:05Z", 60)
    assert shown["loans"] == [
        {
            "added_steps": [0, 100, 0], "granted": 100, "loan": lent.id, "spent": 12, "spent_steps": [0, 7, 5],
            "written_off": 0,
        },
    ]  # fmt: skip


def test_what_an_instance_took_down_with_it_is_spent(bench: Bench) -> None:
    lent = bench.lend(allowance=100, max_ceiling=10)
    spend(running(lent), 3)
    bench.clock.advance(600)
    bench.get("/v1/instances")
    bench.service.sweep()
    (loan,) = told(bench, f"/v1/loans/{lent.id}/spending?step_s=3600&steps=2")["loans"]
    assert (loan["spent"], loan["written_off"]) == (3, 10)
    assert sum(loan["spent_steps"]) == 13


def test_a_step_of_the_past_stays_the_same_and_what_is_older_falls_out(bench: Bench) -> None:
    toy = running(bench.lend(allowance=100))
    spend(toy, 7)
    path = "/v1/spending?step_s=10&steps=5"
    bench.clock.advance(13)
    spend(toy, 1)
    assert told(bench, path)["loans"][0]["spent_steps"] == [0, 0, 0, 7, 1]
    bench.clock.advance(20)
    assert told(bench, path)["loans"][0]["spent_steps"] == [0, 7, 1, 0, 0]
    bench.clock.advance(20)
    assert told(bench, path)["loans"][0]["spent_steps"] == [1, 0, 0, 0, 0]


def test_granted_is_less_what_was_taken_back_and_a_new_loan_has_spent_nothing(bench: Bench) -> None:
    lent = bench.lend(allowance=100)
    bench.post(f"/v1/loans/{lent.id}/set", {"units": 40})
    bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 5})
    (loan,) = told(bench, f"/v1/loans/{lent.id}/spending?steps=2")["loans"]
    assert (loan["granted"], loan["spent"], loan["spent_steps"], loan["added_steps"]) == (45, 0, [0, 0], [0, 45])
    assert [one["loan"] for one in told(bench)["loans"]] == [lent.id]


def test_meters_of_models_and_consumers_count_no_unit_twice(bench: Bench) -> None:
    models = [{"allowance": 50, "digest": bench.digest, "name": "digits"}]
    lent = bench.lend(allowance=100, models=models)
    spend(running(lent), 6)
    (loan,) = told(bench)["loans"]
    assert (loan["granted"], loan["spent"], sum(loan["spent_steps"])) == (100, 6, 6)


def test_a_borrower_is_told_of_its_own_loan_alone(bench: Bench) -> None:
    mine, other = bench.lend(allowance=100), bench.lend(allowance=100)
    for lent in (mine, other):
        spend(running(lent), 2)
    assert [one["loan"] for one in told(bench, f"/v1/loans/{mine.id}/spending", mine.token)["loans"]] == [mine.id]
    assert bench.get(f"/v1/loans/{other.id}/spending", mine.token).status_code == 404
    assert bench.get("/v1/spending", mine.token).status_code == 403
    assert bench.get("/v1/loans/none/spending").status_code == 404


@pytest.mark.parametrize("query", ["step_s=0", "step_s=86401", "steps=0", "steps=501", "steps=x", "step_s=-1"])
def test_steps_beyond_their_bounds_are_refused(bench: Bench, query: str) -> None:
    lent = bench.lend()
    for path in ("/v1/spending", f"/v1/loans/{lent.id}/spending"):
        assert bench.get(f"{path}?{query}").status_code == 400


def test_an_empty_custodian_has_spent_nothing(bench: Bench) -> None:
    assert told(bench)["loans"] == []


def test_an_instance_shows_when_it_was_last_answered(bench: Bench) -> None:
    toy = running(bench.lend())
    bench.clock.advance(20)
    toy.renew()
    (instance,) = bench.get("/v1/instances").json()["instances"]
    assert instance["committed_at"] == "2026-11-21T12:00:20Z"
