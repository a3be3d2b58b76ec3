"""What the custodian and the enclave here say, read strictly."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta

import pytest

from cloister.borrowing.host import parse_metrics, parse_ready
from cloister.borrowing.loan import Loan, Spending
from cloister.errors import Malformed
from cloister.lending.forecast import Outlook
from cloister.wire import parse_json
from mutations import mutated

METER = {"balance": 80, "granted": 100, "held": 5, "owed": 0, "spent": 10, "written_off": 5}
INSTANCE = {
    "attested_at": "2026-11-30T00:00:00Z", "dead_at": "2026-11-30T00:01:00Z", "id": "i", "limits": {"loan": 9},
    "live": True, "state": "active", "tee": "snp", "used": {"loan": 4},
}  # fmt: skip
ASK = {
    "answer": None, "created_at": "2026-11-30T00:00:00Z", "decided_at": None, "granted": None, "id": "r",
    "meter": "loan", "reason": "", "state": "open", "units": 5,
}  # fmt: skip
LOAN = {
    "blocked_consumers": [], "blocked_models": [], "borrower": "b", "bound": {"seconds": 61.5, "units": 5},
    "instances": [INSTANCE], "loan": "loan-x", "meters": {"consumer:a": METER, "loan": METER, "model:m": METER},
    "models": [{"digest": "d", "name": "m"}], "new": [1], "requests": [ASK], "state": "active",
}  # fmt: skip
SPENT = {
    "added_steps": [0, 20, 0, -5], "granted": 100, "loan": "loan-x", "spent": 10, "spent_steps": [0, 4, 2, 1],
    "written_off": 5,
}  # fmt: skip
SPENDING = {"from": "2026-11-30T00:00:00Z", "loans": [SPENT], "step_s": 60, "to": "2026-11-30T00:03:30Z"}
READY = {"checks": [{"code": "ok", "name": "lease", "state": "ok"}], "reasons": [], "state": "active", "status": "ok"}
METRICS = (
    b'# HELP x y\ncloister_units_total{model="a"} 3\ncloister_queue_length 0\nother 1\ncloister_x{a="b",c="d"} 1\n'
)


def test_a_loan_is_read_with_its_meters_and_requests() -> None:
    found = Loan.from_json(LOAN)  # type: ignore[arg-type]  # as it comes off the wire
    assert (found.whole.left, found.whole.subject) == (85, "the whole loan")
    assert [meter.subject for meter in (*found.of_consumers, *found.of_models)] == ["a", "m"]
    assert [ask.id for ask in found.open_asks] == ["r"]
    assert (found.instances[0].limit, found.instances[0].used) == (9, 4)


def test_what_was_left_is_counted_back_with_what_was_added() -> None:
    found = Spending.from_json(SPENDING)  # type: ignore[arg-type]  # the same
    assert [one.units for one in found.sums()] == [8, 8, 12, 14, 15]
    assert [one.units for one in found.left(85)] == [77, 77, 93, 91, 85]
    start = datetime(2026, 11, 30, tzinfo=UTC)
    assert [one.at - start for one in found.sums()][-2:] == [timedelta(minutes=3), timedelta(seconds=210)]
    assert found.outlook(85).outlook is Outlook.ENDS
    assert found.outlook(0).outlook is Outlook.EMPTY


@pytest.mark.parametrize("document", [LOAN, SPENDING], ids=["loan", "spending"])
def test_damaged_answers_raise_one_error(document: dict[str, object]) -> None:
    for damaged in mutated(json.dumps(document).encode(), count=3000):
        try:
            value = parse_json(damaged, what="answer")
            (Loan if document is LOAN else Spending).from_json(value)
        except Malformed:
            continue


def test_readiness_and_metrics_of_the_enclave_are_read_and_what_is_not_known_is_left() -> None:
    found = parse_ready(json.dumps(READY).encode())
    assert (found.status, found.state, found.parts[0].name) == ("ok", "active", "lease")
    assert parse_metrics(METRICS) == {"cloister_units_total": {"a": 3.0}, "cloister_queue_length": {"": 0.0}}
    with pytest.raises(Malformed):
        parse_metrics(b"x" * (5 << 20))


def test_a_metric_beyond_all_numbers_is_none() -> None:
    assert parse_metrics(b"cloister_queue_length 1e999\ncloister_exchanges_running -1e999\n") == {}
    assert parse_metrics(b"cloister_queue_length 1e9\n") == {"cloister_queue_length": {"": 1e9}}


@pytest.mark.parametrize("data", [json.dumps(READY).encode(), METRICS], ids=["ready", "metrics"])
def test_damaged_words_of_the_enclave_raise_one_error(data: bytes) -> None:
    for damaged in mutated(data, count=3000):
        with contextlib.suppress(Malformed):
            parse_ready(damaged)
        parse_metrics(damaged)
