"""What a drill measured is written down beside what was promised, and by whom (I3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from custodian_kit import Bench


def result(instance: str, **changes: Any) -> dict[str, Any]:
    good = {"instance": instance, "measured_ms": 1200, "promised_ms": 6000, "units": 3, "promised_units": 4}
    return good | changes


def body(loan: str, *results: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "loan", "results": list(results), "subject": loan}


@pytest.mark.parametrize(
    ("changes", "exceeded"),
    [({}, 0), ({"measured_ms": 6000, "units": 4}, 0), ({"measured_ms": 6001}, 1), ({"units": 5}, 1)],
)
def test_each_instance_is_logged_and_what_exceeds_its_promise_says_so(
    bench: Bench, changes: dict[str, int], exceeded: int
) -> None:
    lent = bench.lend(allowance=10, max_ceiling=4)
    toy = lent.boot()
    answer = bench.post("/v1/drills", body(lent.id, result(toy.id, **changes)))
    assert (answer.status_code, answer.json()) == (201, {"exceeded": exceeded, "recorded": 1})
    entry = bench.audit()[-1]
    assert (entry["kind"], entry["subject"]) == ("drill_recorded", toy.id)
    assert entry["details"]["exceeded"] == bool(exceeded)
    assert entry["details"]["loan"] == lent.id


def test_nothing_is_logged_of_an_instance_that_is_none_of_ours(bench: Bench) -> None:
    lent = bench.lend(allowance=10)
    toy = lent.boot()
    size = len(bench.audit())
    answer = bench.post("/v1/drills", body(lent.id, result(toy.id), result("ab" * 32)))
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert len(bench.audit()) == size


@pytest.mark.parametrize(
    "wrong",
    [{"results": []}, {"kind": "weather"}, {"results": [{}]}, {"subject": ""}, {"more": 1}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_drill_of_another_form_is_refused(bench: Bench, wrong: dict[str, Any]) -> None:
    lent = bench.lend(allowance=10)
    answer = bench.post("/v1/drills", body(lent.id, result(lent.boot().id)) | wrong)
    assert answer.status_code == 400


@pytest.mark.parametrize("changes", [{"measured_ms": -1}, {"units": 1.5}, {"promised_ms": "6"}, {"extra": 1}])
def test_a_result_of_another_form_is_refused(bench: Bench, changes: dict[str, Any]) -> None:
    lent = bench.lend(allowance=10)
    answer = bench.post("/v1/drills", body(lent.id, result(lent.boot().id, **changes)))
    assert answer.status_code == 400


def test_a_block_says_what_each_instance_may_still_serve(bench: Bench) -> None:
    lent = bench.lend(allowance=100, max_ceiling=4)
    first, second = lent.boot(), lent.boot()
    first.renew()
    first.serve(3)
    bench.clock.advance(20)
    first.renew()
    second.renew()
    answer = bench.post("/v1/blocks", {"kind": "loan", "reason": "", "subject": lent.id}).json()
    units = {item["instance"]: item["units"] for item in answer["instances"]}
    assert units == {first.id: 4, second.id: 4}
    assert answer["bound"]["units"] == sum(units.values())
