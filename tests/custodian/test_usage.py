"""Usage at the custodian: reports over HTTP, statements out of the database, forks proven by strangers."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import bearer

from cloister.crypto.sign import Label, SigningKey, Statement
from cloister.lending.dispute import Claim, settle, verify_statement
from cloister.lending.messages import Lease, Refusal, UsageAck
from cloister.lending.receipt import verify_receipt
from cloister.lending.terms import LOAN_METER
from cloister.lending.usage_report import verify_report
from cloister.wire import dump_b64u, dump_time, parse_b64u

if TYPE_CHECKING:
    from custodian_kit import Bench, Lent, Toy

    from cloister.lending.messages import Receipt, UsageReport, UsageStatement


def served(toy: Toy, units: int = 1) -> bytes:
    """Serve one inference; return the signed receipt."""
    assert toy.holder is not None
    now = toy.bench.clock()
    reservation = toy.holder.reserve("digits", None, units, now)
    return toy.holder.settle(reservation, units, toy.bench.rng(32), toy.bench.rng(32), now)


def receipt(toy: Toy, statement: bytes) -> Receipt:
    return verify_receipt(statement, toy.key.verify_key)


def other_voice(toy: Toy, statement: bytes, **changes: Any) -> bytes:
    """Return a second receipt of the same index, as a copy of the memory would sign it."""
    message = replace(receipt(toy, statement), **({"response": bytes(32)} | changes))
    return Statement.sign(toy.key, Label.RECEIPT, message.dump()).dump()


def statement_of(lent: Lent, headers: dict[str, str] | None = None, **period: str) -> UsageStatement:
    query = {name.rstrip("_"): text for name, text in period.items()}
    answer = lent.bench.client.get(f"/v1/loans/{lent.id}/usage", params=query, headers=headers or lent.token)
    assert answer.status_code == 200, answer.text
    return verify_statement(answer.content, lent.bench.init.key)


def exported(toy: Toy) -> list[UsageReport]:
    """Return all signed reports of an instance, page by page."""
    found: list[UsageReport] = []
    while True:
        after = found[-1].first if found else 0
        path = f"/v1/instances/{toy.id}/usage"
        answer = toy.bench.client.get(path, params={"after": after}, headers=toy.lent.token)
        assert answer.status_code == 200, answer.text
        page = answer.json()["reports"]
        if not page:
            return found
        found += [verify_report(parse_b64u(text, what="report"), toy.key.verify_key) for text in page]


def fork(bench: Bench, toy: Toy, *statements: bytes) -> Any:
    body = {"instance": toy.id, "receipts": [dump_b64u(item) for item in statements]}
    return bench.client.post("/v1/forks", json=body)


def state(bench: Bench, toy: Toy) -> str:
    shown = bench.get("/v1/instances").json()["instances"]
    return next(str(item["state"]) for item in shown if item["id"] == toy.id)


@pytest.fixture
def toy(bench: Bench) -> Toy:
    """Return an enclave with a lease."""
    found = bench.lend(allowance=1000, max_ceiling=100).boot()
    found.renew()
    return found


def test_a_statement_sums_what_the_enclaves_reported_and_the_receipts_agree(bench: Bench, toy: Toy) -> None:
    kept = [served(toy, units) for units in (1, 2, 3)]
    toy.renew()
    second = toy.lent.boot()
    second.renew()
    kept.append(served(second, 4))
    second.close()
    stated = statement_of(toy.lent)
    assert (stated.units, len(stated.spans), stated.not_itemised) == (10, 2, 100 - 4)
    claims = [
        Claim(name=str(at), receipt=receipt(owner, item))
        for at, (owner, item) in enumerate(zip((toy, toy, toy, second), kept, strict=True))
    ]
    outcome = settle(stated, [*exported(toy), *exported(second)], claims)
    assert (outcome.settled, outcome.matched) == (True, 4)
    assert bench.kinds().count("usage_stated") == 1


def test_a_statement_of_a_period_has_that_period_s_records_and_no_others(bench: Bench, toy: Toy) -> None:
    start = bench.clock().replace(second=0, microsecond=0) + timedelta(minutes=2)
    for _ in range(6):
        served(toy)
        bench.clock.advance(30)
        toy.renew()
    first, rest = statement_of(toy.lent, to=dump_time(start)), statement_of(toy.lent, from_=dump_time(start))
    assert first.units + rest.units == 6
    assert 0 < first.units < 6
    assert first.spans[0].upto == rest.spans[0].after
    assert first.spans[0].head == rest.spans[0].previous
    for stated in (first, rest):
        assert settle(stated, exported(toy), []).settled


def test_records_in_the_middle_of_a_report_are_cut_at_the_minute(bench: Bench, toy: Toy) -> None:
    for _ in range(4):
        served(toy)
        bench.clock.advance(14)
    served(toy)
    toy.renew()
    assert len(exported(toy)) == 1
    cut = bench.clock().replace(second=0, microsecond=0)
    first, rest = statement_of(toy.lent, to=dump_time(cut)), statement_of(toy.lent, from_=dump_time(cut))
    assert first.units + rest.units == 5
    assert settle(first, exported(toy), []).settled
    assert settle(rest, exported(toy), []).settled


def test_the_unreported_of_a_killed_enclave_are_stated_as_not_itemised(bench: Bench, toy: Toy) -> None:
    served(toy, 2)
    toy.renew()
    kept = served(toy, 5)
    bench.clock.advance(3600)
    stated = statement_of(toy.lent)
    assert (stated.units, stated.not_itemised) == (2, 100)
    outcome = settle(stated, exported(toy), [Claim(name="kept", receipt=receipt(toy, kept))])
    assert [finding.code for finding in outcome.findings] == ["not_itemised"]
    shown = toy.lent.show()["meters"]["loan"]
    assert shown["spent"] + shown["written_off"] == stated.units + stated.not_itemised


def test_the_same_report_again_is_acknowledged_with_the_same_bytes_and_stored_once(bench: Bench, toy: Toy) -> None:
    served(toy)
    toy.request()
    assert toy.holder is not None
    statement = toy.holder.report()
    assert statement is not None
    answers = {toy.send_report(statement).content for _ in range(3)}
    assert len(answers) == 1
    ack = UsageAck.parse(Statement.parse(answers.pop(), label=Label.USAGE_ACK).verify([bench.init.key]))
    assert ack.last == 1
    assert bench.kinds().count("usage_reported") == 1
    assert len(exported(toy)) == 1


def test_without_the_report_there_is_no_lease_and_no_stop(bench: Bench, toy: Toy) -> None:
    served(toy)
    answer = toy.send(toy.request())
    assert toy.holder is not None
    refusal = toy.holder.receive(answer.content, bench.clock())
    assert isinstance(refusal, Refusal)
    assert ([reason.code for reason in refusal.reasons], refusal.stop) == (["usage_missing"], False)
    bench.clock.advance(2)
    assert isinstance(toy.renew(), Lease)


def test_a_report_by_another_key_or_of_another_instance_writes_nothing(bench: Bench, toy: Toy) -> None:
    served(toy)
    toy.request()
    assert toy.holder is not None
    statement = toy.holder.report()
    assert statement is not None
    message = verify_report(statement, toy.key.verify_key)
    before = bench.kinds()
    stranger = SigningKey(bytes(range(32)))
    forged = Statement.sign(stranger, Label.USAGE_REPORT, message.dump()).dump()
    assert toy.send_report(forged).json()["code"] == "unknown_key"
    assert toy.send_report(b"{}").status_code == 400
    assert bench.kinds() == before
    foreign = Statement.sign(toy.key, Label.USAGE_REPORT, replace(message, loan="loan-" + "z" * 16).dump()).dump()  # type: ignore[arg-type]  # a loan that is none of ours
    assert toy.send_report(foreign).json()["code"] == "wrong_instance"
    assert exported(toy) == []


def test_a_gap_is_a_conflict_and_a_second_voice_stops_the_instance(bench: Bench, toy: Toy) -> None:
    served(toy)
    toy.renew()
    (first,) = exported(toy)
    record = first.records[0]
    gap = replace(first, records=(replace(record, index=5),))
    answer = toy.send_report(Statement.sign(toy.key, Label.USAGE_REPORT, gap.dump()).dump())
    assert (answer.status_code, answer.json()["code"]) == (409, "usage_gap")
    other = replace(first, records=(replace(record, content=bytes(32)),))
    statement = Statement.sign(toy.key, Label.USAGE_REPORT, other.dump()).dump()
    for _ in range(3):
        assert toy.send_report(statement).json()["code"] == "fork_detected"
    assert state(bench, toy) == "forked"
    assert bench.kinds().count("fork_detected") == 1
    refusal = toy.renew()
    assert isinstance(refusal, Refusal)
    assert refusal.stop


def test_two_receipts_of_one_index_stop_the_instance_whoever_brings_them(bench: Bench, toy: Toy) -> None:
    statement = served(toy)
    other = other_voice(toy, statement)
    for _ in range(3):
        answer = fork(bench, toy, statement, other)
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"fork": True, "index": 1, "instance": toy.id, "state": "forked"}
    assert bench.kinds().count("fork_detected") == 1
    refusal = toy.renew()
    assert isinstance(refusal, Refusal)
    assert (refusal.stop, refusal.reasons[0].code) == (True, "fork_detected")


def test_a_receipt_that_the_reported_record_contradicts_stops_the_instance(bench: Bench, toy: Toy) -> None:
    statement = served(toy)
    assert fork(bench, toy, statement).json()["code"] == "no_fork"  # nothing of this index is reported yet
    toy.renew()
    assert fork(bench, toy, statement).json()["code"] == "no_fork"
    assert state(bench, toy) == "active"
    assert fork(bench, toy, other_voice(toy, statement)).status_code == 200
    assert state(bench, toy) == "forked"


def test_what_proves_no_fork_changes_nothing(bench: Bench, toy: Toy) -> None:
    first, second = served(toy), served(toy)
    stranger = SigningKey(bytes(range(32)))
    message = replace(receipt(toy, first), response=bytes(32))
    forged = Statement.sign(stranger, Label.RECEIPT, message.dump()).dump()
    before = bench.kinds()
    for statements, status, code in (
        ((first, first), 422, "no_fork"),
        ((first, second), 422, "no_fork"),
        ((first, forged), 403, "unknown_key"),
        ((first, b"{}"), 400, "malformed"),
        ((), 400, "malformed"),
        ((first, first, first), 400, "malformed"),
    ):
        answer = fork(bench, toy, *statements)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        bench.clock.advance(60)
    assert bench.kinds() == before
    assert state(bench, toy) == "active"


def test_strangers_may_bring_forks_only_so_often(bench: Bench, toy: Toy) -> None:
    statement = served(toy)
    answers = [fork(bench, toy, statement).status_code for _ in range(bench.service.config.forks_per_minute + 1)]
    assert answers[-1] == 429
    assert set(answers[:-1]) == {422}


def test_a_forked_instance_that_ended_stays_as_it_ended_and_the_proof_is_kept(bench: Bench, toy: Toy) -> None:
    statement = served(toy)
    toy.close()
    assert fork(bench, toy, statement, other_voice(toy, statement)).json()["state"] == "closed"
    assert "fork_detected" in bench.kinds()


def test_usage_is_for_staff_and_for_the_borrower_of_that_loan_alone(bench: Bench, toy: Toy) -> None:
    served(toy)
    toy.renew()
    other = bench.lend()
    for path in (f"/v1/loans/{toy.lent.id}/usage", f"/v1/instances/{toy.id}/usage"):
        assert bench.client.get(path, headers=other.token).status_code == 404
        assert bench.client.get(path, headers=bearer("nobody")).status_code == 401
        assert bench.get(path).status_code == 200


@pytest.mark.parametrize(
    "query", [{"from": "2026-07-01T12:00:01Z"}, {"from": "yesterday"}, {"to": "1970-01-01T00:00:00Z"}]
)
def test_a_period_is_of_whole_minutes_and_goes_forward(bench: Bench, toy: Toy, query: dict[str, str]) -> None:
    answer = bench.client.get(f"/v1/loans/{toy.lent.id}/usage", params=query, headers=toy.lent.token)
    assert answer.status_code == 400


def test_a_close_whose_history_is_not_the_reported_one_is_a_fork(bench: Bench, toy: Toy) -> None:
    served(toy)
    toy.renew()
    assert toy.holder is not None
    assert toy.holder.snapshot().used == {LOAN_METER: 1}
    toy.holder._usage.head = bytes(32)
    toy.close()
    assert state(bench, toy) == "forked"
