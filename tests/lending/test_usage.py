"""Usage: every charged inference is numbered, chained, reported once, and held against the lease requests."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from custodian_fake import EPOCH_START
from world import TOKENS, Enclave, World, terms

from cloister.crypto.sign import Label, Statement
from cloister.errors import Malformed, Rejected
from cloister.lending import usage_chain
from cloister.lending.answers import parse_answer
from cloister.lending.lease_grant import verify_request
from cloister.lending.messages import Refusal, UsageAck, UsageRecord, UsageReport
from cloister.lending.messages.usage import MAX_RECORDS, MAX_REPORT_BYTES, minute_of
from cloister.lending.receipt import content_of, record_of
from cloister.lending.state import InstanceStatus
from cloister.lending.terms import LOAN_METER, ConsumerId, ModelDigest
from cloister.lending.usage_report import head_of, units_by_meter, units_of, verify_report
from cloister.wire import dump_b64u, dump_json, dump_time


def started(units: int = 9, cap: int = 2) -> tuple[World, Enclave]:
    world = World((terms(cap=cap), units))
    enclave = world.launch()
    assert enclave is not None
    assert world.renew(enclave)
    return world, enclave


def reports(world: World, enclave: Enclave) -> list[UsageReport]:
    """Return what the custodian has of an instance."""
    stored = world.custodian.db.reports.get(enclave.id, ())
    return [verify_report(item.statement, enclave.key.verify_key) for item in stored]


def refused(world: World, sent: int | None) -> list[str]:
    """Carry a request that must be refused; return why."""
    assert sent is not None
    answer = world.carry(sent)
    assert answer is not None
    refusal = parse_answer(world.answers[answer], world.custodian.key.verify_key)
    assert isinstance(refusal, Refusal)
    return [reason.code for reason in refusal.reasons] + (["stop"] if refusal.stop else [])


def test_every_receipt_has_its_record_with_the_custodian_and_nothing_else_in_it() -> None:
    world, enclave = started(cap=6)
    world.serve(enclave, 2)
    world.serve(enclave, 1, "metered", "bob")
    world.advance(20)
    assert world.renew(enclave)
    (report,) = reports(world, enclave)
    assert [record_of(receipt) for receipt in world.receipts] == list(report.records)
    assert [(record.units, record.consumer) for record in report.records] == [(2, None), (1, "bob")]
    wire = json.dumps(json.loads(report.dump()))
    for receipt in world.receipts:
        for secret in (receipt.request, receipt.response):
            assert secret.hex() not in wire
        assert receipt.consumer is not None
    assert '"ann"' not in wire  # nobody meters ann, so nobody is told that she asked


def test_the_custodian_follows_the_chain_from_the_records_and_the_consumer_from_its_receipts() -> None:
    world, enclave = started(cap=6)
    for _ in range(3):
        world.serve(enclave)
    world.renew(enclave)
    (report,) = reports(world, enclave)
    assert head_of(report) == enclave.holder.snapshot().chain_head
    assert report.records[0].content == content_of(world.receipts[0].request, world.receipts[0].response)


def test_a_record_is_canonical_json_though_it_is_written_by_hand() -> None:
    for consumer, content in ((None, None), (ConsumerId("a.b-c_9"), bytes(range(32)))):
        record = UsageRecord(
            index=2**53 - 1, model=ModelDigest("ab" * 32), consumer=consumer, units=0, at=EPOCH_START, content=content
        )
        members = {
            "at": dump_time(record.at),
            "consumer": record.consumer,
            "content": None if content is None else dump_b64u(content),
            "index": record.index,
            "model": record.model,
            "units": record.units,
        }
        assert record.dump() == dump_json(members)


def test_a_record_says_no_more_of_time_than_the_minute_and_never_runs_back() -> None:
    world, enclave = started(cap=6)
    world.advance(50)
    world.renew(enclave)
    world.serve(enclave)
    world.step_clock(enclave, -30)
    world.renew(enclave)
    world.serve(enclave)
    world.renew(enclave)
    records = [record for report in reports(world, enclave) for record in report.records]
    assert [record.at for record in records] == [minute_of(record.at) for record in records]
    assert records[0].at <= records[1].at
    assert world.receipts[0].issued_at <= world.receipts[1].issued_at


def test_units_charged_without_a_receipt_are_in_the_chain_and_say_so() -> None:
    world, enclave = started(cap=6)
    cut = world.begin(enclave, 2)
    assert cut is not None
    world.chunk(enclave, cut)
    world.advance(61)
    assert world.finish(enclave, cut) is None
    world.renew(enclave)
    running = world.begin(enclave, 3)
    assert running is not None
    world.close(enclave)
    records = [record for report in reports(world, enclave) for record in report.records]
    assert [(record.units, record.content) for record in records] == [(1, None), (3, None)]
    instance = world.custodian.db.instances[enclave.id]
    assert instance.used[LOAN_METER] == units_of(records) == 4
    assert instance.status is InstanceStatus.CLOSED


def test_no_report_no_lease_and_the_next_turn_puts_it_right() -> None:
    world, enclave = started()
    world.serve(enclave)
    world.advance(20)
    sent = world.send(enclave, reports=False)
    assert refused(world, sent) == ["usage_missing"]
    before = world.custodian.db.instances[enclave.id].limits
    world.deliver(len(world.answers) - 1, enclave)
    assert enclave.holder.snapshot().limits == before
    world.advance(2)
    assert world.renew(enclave)
    assert world.custodian.db.instances[enclave.id].limits[LOAN_METER] == before[LOAN_METER] + 1


def test_the_same_report_again_gets_the_same_bytes_and_is_stored_once() -> None:
    world, enclave = started()
    world.serve(enclave)
    world.send(enclave, reports=False)
    statement = enclave.holder.report()
    assert statement is not None
    acks = {world.custodian.report(enclave.id, statement, world.now) for _ in range(3)}
    assert len(acks) == 1
    assert enclave.holder.report() == statement
    assert len(reports(world, enclave)) == 1
    log = b"\n".join(world.custodian.db.lines)
    assert log.count(b'"usage_reported"') == 1


def test_an_acknowledgement_of_another_or_by_another_lets_nothing_go() -> None:
    world, enclave = started()
    world.serve(enclave)
    world.send(enclave, reports=False)
    statement = enclave.holder.report()
    assert statement is not None
    ack = UsageAck.parse(
        Statement.parse(world.custodian.report(enclave.id, statement, world.now), label=Label.USAGE_ACK).payload
    )
    key = world.custodian.key
    for bad in (replace(ack, last=2), replace(ack, head=bytes(32)), replace(ack, instance="a" * 64)):
        with pytest.raises(Rejected, match="not_pending"):
            enclave.holder.acknowledge(Statement.sign(key, Label.USAGE_ACK, bad.dump()).dump())
    with pytest.raises(Rejected, match="unknown_key"):
        enclave.holder.acknowledge(Statement.sign(enclave.key, Label.USAGE_ACK, ack.dump()).dump())
    assert enclave.holder.report() == statement
    assert enclave.holder.snapshot().unreported == 1


def test_reports_end_where_a_request_was_made_so_a_late_request_is_no_fork() -> None:
    """A host that holds a request back until after the last reports has proven nothing."""
    world, enclave = started(cap=6)
    world.serve(enclave)
    sent = world.send(enclave, reports=False)
    world.serve(enclave)
    statement = enclave.holder.close(enclave.time(world.now))
    world.report(enclave)
    assert [(report.first, report.last) for report in reports(world, enclave)] == [(1, 1), (2, 2)]
    assert sent is not None
    world.carry(sent)
    assert world.custodian.db.instances[enclave.id].status is InstanceStatus.ACTIVE
    world.custodian.close(enclave.id, statement, world.now)
    assert world.custodian.db.instances[enclave.id].status is InstanceStatus.CLOSED


def test_a_report_with_a_gap_is_refused_and_writes_nothing() -> None:
    world, enclave = started(cap=6)
    for _ in range(2):
        world.serve(enclave)
        world.renew(enclave)
    _, second = reports(world, enclave)
    statement = Statement.sign(enclave.key, Label.USAGE_REPORT, second.dump()).dump()
    db = world.custodian.db.copy()
    db.reports = {}
    world.custodian.db = db
    with pytest.raises(Rejected, match="usage_gap"):
        world.custodian.report(enclave.id, statement, world.now)
    assert world.custodian.db.instances[enclave.id].status is InstanceStatus.ACTIVE


@pytest.mark.parametrize("change", ["content", "units", "index", "previous"])
def test_two_reports_of_one_index_that_differ_stop_the_instance(change: str) -> None:
    world, enclave = started(cap=6)
    world.serve(enclave)
    world.renew(enclave)
    world.forked.add(enclave.id)  # what follows is a second voice of the same key
    (first,) = reports(world, enclave)
    record = first.records[0]
    other = {
        "content": replace(first, records=(replace(record, content=bytes(32)),)),
        "units": replace(first, records=(replace(record, units=2),)),
        "index": replace(first, records=(record, replace(record, index=2))),
        "previous": replace(first, previous=bytes(32), records=(replace(record, index=2),)),
    }[change]
    statement = Statement.sign(enclave.key, Label.USAGE_REPORT, other.dump()).dump()
    for _ in range(2):
        with pytest.raises(Rejected, match="fork_detected"):
            world.custodian.report(enclave.id, statement, world.now)
    assert world.custodian.db.instances[enclave.id].status is InstanceStatus.FORKED
    assert b"\n".join(world.custodian.db.lines).count(b'"fork_detected"') == 1
    assert reports(world, enclave) == [first]


def test_a_copy_whose_history_differs_is_found_at_its_first_request() -> None:
    """The count alone fits: what the copy served is no more than what the custodian knows."""
    world, enclave = started(cap=6)
    twin = world.fork(enclave)
    world.serve(enclave)
    world.serve(twin)
    world.advance(20)
    assert world.renew(enclave)
    assert world.custodian.db.instances[enclave.id].status is InstanceStatus.ACTIVE
    world.renew(twin)
    assert world.custodian.db.instances[enclave.id].status is InstanceStatus.FORKED


@pytest.mark.parametrize("change", [{"chain_head": bytes(32)}, {"used": {LOAN_METER: 2}}])
def test_a_request_whose_head_or_counts_are_not_those_of_its_reports_is_a_fork(change: dict[str, Any]) -> None:
    world, enclave = started(cap=6)
    world.serve(enclave)
    world.renew(enclave)
    world.forked.add(enclave.id)
    sent = world.send(enclave)
    assert sent is not None
    _, statement = world.requests[sent]
    request, _ = verify_request(statement, enclave.key.verify_key)
    lie = Statement.sign(enclave.key, Label.LEASE_REQUEST, replace(request, **change).dump()).dump()
    world.requests.append((enclave.id, lie))
    assert refused(world, len(world.requests) - 1) == ["fork_detected", "stop"]
    assert world.custodian.db.instances[enclave.id].status is InstanceStatus.FORKED


def test_more_units_than_were_granted_are_an_alarm() -> None:
    world, enclave = started(cap=2)
    world.serve(enclave)
    world.renew(enclave)
    (first,) = reports(world, enclave)
    world.forked.add(enclave.id)
    more = replace(first, previous=head_of(first), records=(replace(first.records[0], index=2, units=50),))
    statement = Statement.sign(enclave.key, Label.USAGE_REPORT, more.dump()).dump()
    with pytest.raises(Rejected, match="overdrawn"):
        world.custodian.report(enclave.id, statement, world.now)
    assert world.custodian.db.instances[enclave.id].status is InstanceStatus.OVERDRAWN


def test_a_report_by_another_key_touches_nothing() -> None:
    world, enclave = started()
    world.serve(enclave)
    other = world.launch()
    assert other is not None
    world.send(enclave, reports=False)
    statement = enclave.holder.report()
    assert statement is not None
    before = world.custodian.db
    with pytest.raises(Rejected, match="unknown_key"):
        world.custodian.report(other.id, statement, world.now)
    assert world.custodian.db is before


def test_an_enclave_that_cannot_report_stops_serving_with_a_code_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_chain, "MAX_UNREPORTED", 3)
    world, enclave = started(units=20, cap=10)
    for _ in range(3):
        assert world.serve(enclave) == 1
    with pytest.raises(Rejected, match="usage_unreported"):
        enclave.holder.reserve("plain", TOKENS["ann"], 1, enclave.time(world.now))
    world.renew(enclave)
    assert enclave.holder.snapshot().unreported == 0
    assert world.serve(enclave) == 1


def test_running_inferences_count_towards_what_can_be_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_chain, "MAX_UNREPORTED", 2)
    world, enclave = started(units=20, cap=10)
    assert world.begin(enclave) is not None
    assert world.begin(enclave) is not None
    assert world.begin(enclave) is None


def test_many_records_go_in_bounded_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_chain, "MAX_RECORDS", 4)
    world, enclave = started(units=20, cap=10)
    for _ in range(10):
        world.serve(enclave)
    world.renew(enclave)
    assert [(report.first, report.last) for report in reports(world, enclave)] == [(1, 4), (5, 8), (9, 10)]
    totals = world.custodian.db.reported(enclave.id).totals
    assert units_by_meter(totals, terms())[LOAN_METER] == 10


def test_whole_reports_go_between_two_renewals_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_chain, "MAX_RECORDS", 4)
    world, enclave = started(units=30, cap=20)
    for _ in range(10):
        world.serve(enclave)
    sent = 0
    while (statement := enclave.holder.report()) is not None:
        enclave.holder.acknowledge(world.custodian.report(enclave.id, statement, world.now))
        sent += 1
    assert (sent, enclave.holder.reports_due(), enclave.holder.snapshot().unreported) == (2, 0, 2)
    world.renew(enclave)
    assert [(report.first, report.last) for report in reports(world, enclave)] == [(1, 4), (5, 8), (9, 10)]
    assert world.serve(enclave) == 1


def test_a_whole_report_that_is_on_its_way_goes_before_the_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made before the request, it ends before it: the custodian knows the head of the request all the same (U2)."""
    monkeypatch.setattr(usage_chain, "MAX_RECORDS", 4)
    world, enclave = started(units=30, cap=20)
    for _ in range(5):
        world.serve(enclave)
    lost = enclave.holder.report()
    assert lost is not None
    world.renew(enclave)
    assert [(report.first, report.last) for report in reports(world, enclave)] == [(1, 4), (5, 5)]
    assert world.custodian.db.instances[enclave.id].status is InstanceStatus.ACTIVE
    with pytest.raises(Rejected, match="not_pending"):
        enclave.holder.acknowledge(world.custodian.report(enclave.id, lost, world.now))


def test_no_whole_report_reaches_over_a_request_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_chain, "MAX_RECORDS", 4)
    world, enclave = started(units=30, cap=20)
    for _ in range(3):
        world.serve(enclave)
    world.send(enclave, reports=False)
    for _ in range(9):
        world.serve(enclave)
    statement = enclave.holder.report()
    assert statement is not None
    assert verify_report(statement, world.custodian.db.instances[enclave.id].key).last == 3


def test_the_largest_report_keeps_within_its_bound() -> None:
    world, enclave = started()
    world.serve(enclave, 1, "metered", "bob")
    world.renew(enclave)
    (report,) = reports(world, enclave)
    long = replace(report.records[0], units=2**53 - 1, consumer="c" * 64)
    first = 2**53 - 1 - MAX_RECORDS
    records = tuple(replace(long, index=first + number) for number in range(MAX_RECORDS))
    data = replace(report, records=records).dump()
    assert len(data) <= MAX_REPORT_BYTES
    assert UsageReport.parse(data).records == records
    with pytest.raises(Malformed):
        UsageReport.parse(replace(report, records=(*records, replace(long, index=first + MAX_RECORDS))).dump())


def test_times_that_run_back_are_refused_within_a_report_and_between_two() -> None:
    world, enclave = started(cap=6)
    world.serve(enclave)
    world.renew(enclave)
    (first,) = reports(world, enclave)
    record = first.records[0]
    earlier = replace(record, index=2, at=record.at - timedelta(minutes=1))
    with pytest.raises(Malformed):
        UsageReport.parse(replace(first, records=(record, earlier)).dump())


def test_what_a_killed_enclave_did_not_report_is_written_off_and_never_itemised() -> None:
    world, enclave = started(cap=6)
    world.serve(enclave, 2)
    world.renew(enclave)
    world.serve(enclave, 1)
    world.kill(enclave)
    world.advance(200)
    world.sweep()
    instance = world.custodian.db.instances[enclave.id]
    assert instance.written_off
    itemised = units_by_meter(world.custodian.db.reported(enclave.id).totals, terms())[LOAN_METER]
    assert (itemised, instance.limits[LOAN_METER] - itemised) == (2, 6)


def test_reports_may_follow_a_close_and_a_write_off() -> None:
    world, enclave = started(cap=6)
    world.serve(enclave)
    world.close(enclave, reports=False)
    assert world.custodian.db.instances[enclave.id].status is InstanceStatus.CLOSED
    world.report(enclave)
    assert [report.last for report in reports(world, enclave)] == [1]


def test_a_sealed_model_lent_under_two_names_is_no_false_alarm() -> None:
    """A record names the sealed model, a meter its name: where two names share one, the meter is left out."""
    plain = terms(cap=6)
    twice = replace(plain, models=(plain.models[1], replace(plain.models[1], name="again", metered=False)))
    world = World((twice, 9))
    enclave = world.launch()
    assert enclave is not None
    assert world.renew(enclave)
    for model in ("metered", "again"):
        assert world.serve(enclave, 1, model) == 1
    assert world.renew(enclave)
    assert enclave.holder.snapshot().unreported == 0
