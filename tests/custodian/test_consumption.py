"""Consumption statements, usage files and vouchers held against each other: two histories of one key are found out."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import STATEMENT, Bench, Lent, Toy

from cloister.crypto.sign import Label, Statement
from cloister.lending.messages import Consumption, Lease, UsageReport, Voucher
from cloister.lending.terms import LOAN_METER
from cloister.lending.usage_report import head_of, verify_report
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    import httpx

    from cloister.lending.lease import LeaseHolder

DAY = 86_400


@pytest.fixture
def lent(bench: Bench) -> Lent:
    return bench.lend(allowance=40, max_ceiling=6, clauses={"offline": {"lasts_s": DAY, "units": 12}})


@pytest.fixture
def toy(lent: Lent) -> Toy:
    """Return an enclave with a voucher that has served twice."""
    toy = lent.boot()
    vouch(toy)
    toy.serve()
    toy.serve()
    return toy


def holder(toy: Toy) -> LeaseHolder:
    assert toy.holder is not None
    return toy.holder


def ask(toy: Toy) -> bytes:
    return holder(toy).offline.request(toy.bench.clock(), toy.bench.rng(16))


def files(toy: Toy) -> list[bytes]:
    return [statement for _, statement in holder(toy).usage_files()]


def bring(toy: Toy, reports: list[bytes]) -> None:
    for statement in reports:
        answer = toy.send_report(statement)
        assert answer.status_code == 200, answer.text


def signed(toy: Toy, request: bytes) -> bytes:
    answer = toy.bench.post(f"/v1/loans/{toy.lent.id}/vouchers", {"request": dump_b64u(request)})
    assert answer.status_code == 200, answer.text
    return answer.content


def vouch(toy: Toy) -> Voucher:
    request = ask(toy)
    bring(toy, files(toy))
    return holder(toy).offline.receive(signed(toy, request), toy.bench.clock())


def tell(toy: Toy) -> bytes:
    return holder(toy).offline.consumption(toy.bench.clock())


def told(toy: Toy, statement: bytes, **changes: Any) -> bytes:
    """Return a statement as a second voice of the same key would sign it."""
    honest = Consumption.parse(Statement.parse(statement, label=Label.CONSUMPTION).payload)
    return Statement.sign(toy.key, Label.CONSUMPTION, replace(honest, **changes).dump()).dump()


def settle(toy: Toy, statement: bytes) -> httpx.Response:
    headers = {**toy.bench.admin, **STATEMENT}
    return toy.bench.client.post(f"/v1/loans/{toy.lent.id}/vouchers/settle", content=statement, headers=headers)


def demand_fork(answer: httpx.Response, toy: Toy) -> None:
    """Prove that a file was found out, the instance stopped, and the alarm logged once."""
    assert (answer.status_code, answer.json()["code"]) == (403, "fork_detected"), answer.text
    assert toy.lent.show()["instances"][0]["state"] == "forked"
    assert toy.bench.kinds().count("fork_detected") == 1


def copied(toy: Toy) -> Toy:
    """Return an enclave with a copy of the memory."""
    twin = copy.copy(toy)
    twin.holder = copy.deepcopy(toy.holder, {id(toy.key): toy.key})
    return twin


# --- statement against statement ---


@pytest.mark.parametrize(
    "changes",
    [{"used": {LOAN_METER: 1}}, {"used": {LOAN_METER: 3}}, {"chain_head": bytes(32)}, {"last": 3}, {"first": 2}],
    ids=["counts less", "counts more", "another head", "another end", "another start"],
)
def test_one_number_in_two_different_statements_is_a_fork(toy: Toy, changes: dict[str, Any]) -> None:
    statement = tell(toy)
    assert settle(toy, statement).json()["settled"] == {"loan": 2}
    assert settle(toy, statement).json()["settled"] == {}  # the same bytes again are nothing
    demand_fork(settle(toy, told(toy, statement, **changes)), toy)
    assert toy.lent.show()["meters"]["loan"]["spent"] == 2


@pytest.mark.parametrize(
    "changes",
    [{"used": {LOAN_METER: 1}, "last": 3}, {"used": {}, "last": 3}, {"last": 1}, {"used": {LOAN_METER: 3}}],
    ids=["counts less", "counts nothing", "ends earlier", "more units and no record"],
)
def test_a_larger_number_that_says_less_or_other_of_the_same_is_a_fork(toy: Toy, changes: dict[str, Any]) -> None:
    statement = tell(toy)
    settle(toy, statement)
    demand_fork(settle(toy, told(toy, statement, number=2, **changes)), toy)


def test_a_smaller_number_that_comes_late_and_counts_more_is_a_fork(toy: Toy) -> None:
    older = tell(toy)
    toy.serve()
    assert settle(toy, tell(toy)).status_code == 200
    assert settle(toy, older).json()["settled"] == {}
    demand_fork(settle(toy, told(toy, older, used={LOAN_METER: 4})), toy)


def test_two_statements_that_end_at_one_record_and_name_two_heads_are_a_fork_before_any_report(toy: Toy) -> None:
    statement = tell(toy)
    settle(toy, statement)
    demand_fork(settle(toy, told(toy, statement, number=2, chain_head=bytes(32))), toy)


def test_statements_that_say_the_same_again_or_go_on_are_none(toy: Toy) -> None:
    for served in (0, 0, 1, 2):
        for _ in range(served):
            toy.serve()
        assert settle(toy, tell(toy)).status_code == 200
    bring(toy, files(toy))
    assert settle(toy, tell(toy)).json()["settled"] == {}
    assert "fork_detected" not in toy.bench.kinds()


# --- statement against reports ---


@pytest.mark.parametrize(
    "changes", [{"chain_head": bytes(32)}, {"used": {LOAN_METER: 1}}, {"used": {LOAN_METER: 3}}, {"last": 1}]
)
def test_a_statement_that_contradicts_the_reports_is_a_fork(toy: Toy, changes: dict[str, Any]) -> None:
    statement = tell(toy)
    bring(toy, files(toy))
    demand_fork(settle(toy, told(toy, statement, **changes)), toy)
    assert toy.lent.show()["meters"]["loan"]["spent"] == 0


def test_a_report_that_contradicts_a_statement_from_before_it_is_a_fork(toy: Toy) -> None:
    """Two copies of one memory: the statement of one came without its reports, the reports are the other's."""
    twin, now = copied(toy), toy.bench.clock()
    toy.serve()
    other = holder(twin)
    other.settle(other.reserve("digits", None, 1, now), 1, bytes(32), bytes([1]) * 32, now)
    assert settle(toy, tell(toy)).status_code == 200
    (lie,) = files(twin)
    demand_fork(toy.send_report(lie), toy)


def test_reports_that_come_after_their_statement_are_taken_in_whatever_pieces(toy: Toy) -> None:
    first = tell(toy)
    toy.serve()
    second = tell(toy)
    assert settle(toy, second).status_code == 200
    assert len(files(toy)) == 2  # one ends where each statement does
    bring(toy, files(toy))
    assert settle(toy, first).json()["settled"] == {}
    assert "fork_detected" not in toy.bench.kinds()


def test_a_report_that_passes_a_statement_without_ending_there_is_held_against_it_all_the_same(toy: Toy) -> None:
    settle(toy, tell(toy))
    toy.serve()
    pieces = [verify_report(item, toy.key.verify_key) for item in files(toy)]
    whole = UsageReport(
        instance=toy.id,
        loan=toy.lent.id,
        previous=pieces[0].previous,
        records=tuple(record for piece in pieces for record in piece.records),
    )
    assert head_of(whole) == holder(toy).snapshot().chain_head
    bring(toy, [Statement.sign(toy.key, Label.USAGE_REPORT, whole.dump()).dump()])
    assert "fork_detected" not in toy.bench.kinds()


def test_an_older_statement_of_a_copy_is_held_against_the_reports_all_the_same(toy: Toy) -> None:
    """The custodian has the reports and a newer statement of one copy; then the other's older statement comes."""
    twin, now = copied(toy), toy.bench.clock()
    other = holder(twin)
    other.settle(other.reserve("digits", None, 1, now), 1, bytes(32), bytes([1]) * 32, now)
    older = tell(twin)
    toy.serve()
    tell(toy)
    toy.serve()
    assert settle(toy, tell(toy)).status_code == 200
    bring(toy, files(toy))
    demand_fork(settle(toy, older), toy)


def test_a_close_that_ends_where_a_statement_did_and_names_another_head_is_a_fork(toy: Toy) -> None:
    twin, now = copied(toy), toy.bench.clock()
    toy.serve()
    other = holder(twin)
    other.settle(other.reserve("digits", None, 1, now), 1, bytes(32), bytes([1]) * 32, now)
    assert settle(toy, tell(toy)).status_code == 200
    toy.bench.client.post(f"/v1/instances/{toy.id}/close", content=other.close(now), headers=STATEMENT)
    assert toy.lent.show()["instances"][0]["state"] == "forked"
    assert toy.bench.kinds().count("fork_detected") == 1


# --- the voucher as an acknowledgement ---


def test_a_voucher_lets_go_of_the_reports_up_to_its_request_and_keeps_later_ones(toy: Toy) -> None:
    request = ask(toy)
    toy.serve()  # after the request, before the voucher
    bring(toy, files(toy)[:1])
    holder(toy).offline.receive(signed(toy, request), toy.bench.clock())
    assert [first for first, _ in holder(toy).usage_files()] == [3]
    assert holder(toy).snapshot().unreported == 1
    vouch(toy)
    assert files(toy) == []


def test_a_voucher_that_is_not_ours_lets_go_of_nothing(toy: Toy) -> None:
    request = ask(toy)
    before = files(toy)
    bring(toy, before)
    voucher = Voucher.parse(Statement.parse(signed(toy, request), label=Label.VOUCHER).payload)
    forged = Statement.sign(toy.key, Label.VOUCHER, voucher.dump()).dump()
    for bad in (forged, signed(toy, request)[:-1]):
        with pytest.raises(Exception, match=r"unknown_key|statement"):
            holder(toy).offline.receive(bad, toy.bench.clock())
    assert files(toy) == before


def test_a_report_acknowledged_late_after_a_voucher_let_it_go_is_no_fault(toy: Toy) -> None:
    online = holder(toy).request(toy.bench.clock(), toy.bench.rng(16))
    report = holder(toy).report()
    assert report is not None
    late = toy.send_report(report)  # the answer is on its way
    vouch(toy)  # and a courier was quicker
    toy.serve()
    holder(toy).acknowledge(late.content)
    assert holder(toy).snapshot().unreported == 1
    answer = toy.send(online)
    assert isinstance(holder(toy).receive(answer.content, toy.bench.clock()), Lease)
    assert isinstance(toy.renew(), Lease)
    assert holder(toy).snapshot().unreported == 0


def test_without_the_reports_up_to_its_request_no_voucher_is_signed(toy: Toy) -> None:
    request = ask(toy)
    answer = toy.bench.post(f"/v1/loans/{toy.lent.id}/vouchers", {"request": dump_b64u(request)})
    assert answer.json()["code"] == "usage_missing"
    assert len(files(toy)) == 1
