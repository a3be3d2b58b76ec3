"""A usage report and a lease request in one call: what both calls would do, in one transaction (docs/spec/usage.md)."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cloister.crypto.sign import Label, SigningKey, Statement
from cloister.lending.messages import Lease, LeaseRequest, Refusal
from cloister.lending.terms import LOAN_METER
from cloister.wire import dump_b64u, parse_b64u

if TYPE_CHECKING:
    import httpx
    from custodian_kit import Bench, Toy


@pytest.fixture
def toy(bench: Bench) -> Toy:
    """Return an enclave with a lease that has served two units and not said so yet."""
    found = bench.lend(allowance=100, max_ceiling=10).boot()
    found.renew()
    found.serve(2)
    return found


def _ask(toy: Toy) -> tuple[bytes, bytes]:
    """Return a lease request and the report that is due before it."""
    assert toy.holder is not None
    request = toy.request()
    report = toy.holder.report()
    assert report is not None
    assert toy.holder.reports_due() == 1
    return request, report


def _send(toy: Toy, request: bytes, report: bytes) -> httpx.Response:
    body = {"report": dump_b64u(report), "request": dump_b64u(request)}
    return toy.bench.client.post(f"/v1/instances/{toy.id}/renewal", json=body)


def _receive(toy: Toy, answer: Any) -> Lease | Refusal:
    assert toy.holder is not None
    return toy.holder.receive(parse_b64u(answer["answer"], what="answer"), toy.bench.clock())


def test_report_and_request_in_one_call_are_both_done(bench: Bench, toy: Toy) -> None:
    assert toy.holder is not None
    before = bench.service.context.size
    answer = _send(toy, *_ask(toy)).json()
    toy.holder.acknowledge(parse_b64u(answer["ack"], what="ack"))
    lease = _receive(toy, answer)
    assert isinstance(lease, Lease)
    assert lease.limits[LOAN_METER] == 12
    assert bench.kinds()[before:] == ["usage_reported", "lease_granted"]
    assert toy.holder.reports_due() == 0


def test_the_same_call_again_gets_the_same_bytes_and_debits_once(bench: Bench, toy: Toy) -> None:
    request, report = _ask(toy)
    first = _send(toy, request, report)
    size, balance = bench.service.context.size, toy.lent.balance()
    assert _send(toy, request, report).content == first.content
    assert (bench.service.context.size, toy.lent.balance()) == (size, balance)
    alone = toy.send(request)
    assert alone.content == parse_b64u(first.json()["answer"], what="answer")


def test_a_report_of_another_key_is_refused_and_keeps_no_request_back(bench: Bench, toy: Toy) -> None:
    request, report = _ask(toy)
    payload = Statement.parse(report, label=Label.USAGE_REPORT).payload
    forged = Statement.sign(SigningKey(bytes(range(32))), Label.USAGE_REPORT, payload).dump()
    answer = _send(toy, request, forged).json()
    assert [reason["code"] for reason in answer["reasons"]] == ["unknown_key"]
    refusal = _receive(toy, answer)
    assert isinstance(refusal, Refusal)
    assert (refusal.stop, refusal.reasons[0].code) == (False, "usage_missing")
    assert bench.kinds()[-1] == "lease_refused"
    size = bench.service.context.size
    assert _send(toy, request, forged).status_code == 200
    assert bench.service.context.size == size  # what nobody signed writes nothing, however often it comes


@pytest.mark.parametrize("bad", [b"", b"{}", b"x" * 1000, b"[" * 1000])
def test_a_report_that_does_not_parse_keeps_no_request_back(toy: Toy, bad: bytes) -> None:
    request, _ = _ask(toy)
    answer = _send(toy, request, bad).json()
    assert [reason["code"] for reason in answer["reasons"]] == ["malformed"]
    assert isinstance(_receive(toy, answer), Refusal)


def test_a_gap_in_the_reports_is_refused_and_keeps_no_request_back(toy: Toy) -> None:
    assert toy.holder is not None
    _ask(toy)  # this report is lost on the way
    toy.holder.cut_report()
    toy.serve(1)
    toy.holder.cut_report()
    _, later = (statement for _, statement in toy.holder.usage_files())
    answer = _send(toy, toy.request(), later).json()
    assert [reason["code"] for reason in answer["reasons"]] == ["usage_gap"]
    assert isinstance(_receive(toy, answer), Refusal)
    assert toy.bench.kinds().count("usage_refused") == 1


def test_a_fork_in_the_report_stops_the_instance_in_the_same_call(bench: Bench, toy: Toy) -> None:
    request, report = _ask(toy)
    toy.itemise(3)  # what a copy of the memory reported first: the same index, other bytes
    answer = _send(toy, request, report).json()
    assert [reason["code"] for reason in answer["reasons"]] == ["fork_detected"]
    assert "fork_detected" in bench.kinds()
    refusal = _receive(toy, answer)
    assert isinstance(refusal, Refusal)
    assert refusal.stop


def test_a_request_of_another_key_takes_no_report_with_it(bench: Bench, toy: Toy) -> None:
    request, report = _ask(toy)
    crossed = Statement.sign(SigningKey(bytes(range(32))), Label.LEASE_REQUEST, b"{}").dump()
    assert _send(toy, crossed, report).status_code in (401, 403)  # not this instance's: nothing is looked at
    assert bench.kinds().count("usage_reported") == 0
    answer = _send(toy, request, report)
    assert answer.status_code == 200
    assert bench.kinds().count("usage_reported") == 1


def _out_of_turn(toy: Toy, request: bytes) -> bytes:
    """Return the same request under a number that is not its turn."""
    message = LeaseRequest.parse(Statement.parse(request, label=Label.LEASE_REQUEST).payload)
    return Statement.sign(toy.key, Label.LEASE_REQUEST, replace(message, seq=message.seq + 2).dump()).dump()


def test_a_request_that_is_refused_leaves_the_report_taken(bench: Bench, toy: Toy) -> None:
    request, report = _ask(toy)
    before = bench.service.context.size
    assert _send(toy, _out_of_turn(toy, request), report).status_code == 409
    assert bench.kinds()[before:] == ["usage_reported", "lease_refused"]
    assert _send(toy, request, report).status_code == 200
    assert bench.kinds()[before:] == ["usage_reported", "lease_refused", "lease_granted"]


def test_where_report_and_request_are_refused_both_are_in_the_log(bench: Bench, toy: Toy) -> None:
    assert toy.holder is not None
    _ask(toy)  # this report is lost on the way
    toy.holder.cut_report()
    toy.serve(1)
    toy.holder.cut_report()
    _, later = (statement for _, statement in toy.holder.usage_files())
    before = bench.service.context.size
    assert _send(toy, _out_of_turn(toy, toy.request()), later).status_code == 409
    assert bench.kinds()[before:] == ["usage_refused", "lease_refused"]


def test_a_refused_request_undoes_none_of_those_that_share_its_transaction(bench: Bench, toy: Toy) -> None:
    other = toy.lent.boot()
    other.renew()
    other.serve(1)
    pairs = [(toy, *_ask(toy)), (other, *_ask(other))]
    wrong, right = (_out_of_turn(toy, pairs[0][1]), pairs[0][2]), pairs[1][1:]
    held = threading.Event()

    def hold() -> None:
        with bench.service.context.store.writing():  # whoever asks meanwhile waits, and shares the next transaction
            held.set()
            time.sleep(0.3)

    with ThreadPoolExecutor() as pool:
        holding = pool.submit(hold)
        assert held.wait(5)
        sent = [pool.submit(_send, mine, *what) for mine, what in ((toy, wrong), (other, right), (other, right))]
        holding.result()
        assert [answer.result().status_code for answer in sent] == [409, 200, 200]
    assert bench.kinds().count("usage_reported") == 2
    assert bench.kinds().count("lease_refused") == 1


def test_a_call_for_another_instance_gives_nothing_away(bench: Bench, toy: Toy) -> None:
    request, report = _ask(toy)
    other = bench.lend(allowance=100).boot()
    body = {"report": dump_b64u(report), "request": dump_b64u(request)}
    assert bench.client.post(f"/v1/instances/{other.id}/renewal", json=body).status_code in (401, 403)
    assert bench.client.post(f"/v1/instances/{'ab' * 32}/renewal", json=body).status_code == 404


@pytest.mark.parametrize(
    "body", [{}, {"request": ""}, {"report": "", "request": "", "more": 1}, {"report": 1, "request": 2}]
)
def test_a_body_of_another_shape_is_malformed(toy: Toy, body: Any) -> None:
    answer = toy.bench.client.post(f"/v1/instances/{toy.id}/renewal", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
