"""Who used what, with all three parties: records, statements and receipts agree, or it shows whose do not."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest

from cloister.crypto.sign import Label, Statement
from cloister.lending.dispute import Claim, Outcome, settle, verify_statement
from cloister.lending.messages import Lease, UsageStatement
from cloister.lending.usage_report import verify_report
from cloister.testing.simulator import Simulator
from cloister.wire import dump_b64u, parse_b64u

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.client import Inference
    from cloister.lending.messages import UsageReport
    from cloister.testing.simulator import SimulatedLoan


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(seed=7) as made:
        yield made


def stated(sim: Simulator, loan: SimulatedLoan) -> UsageStatement:
    answer = sim.custodian.call("GET", f"/v1/loans/{loan.id}/usage")
    assert answer.status == 200
    return verify_statement(answer.body, sim.custodian.key)


def reports(sim: Simulator, statement: UsageStatement) -> list[UsageReport]:
    found = []
    for span in statement.spans:
        page = sim.custodian.call("GET", f"/v1/instances/{span.instance}/usage").demand()["reports"]
        found += [verify_report(parse_b64u(text, what="report"), span.key) for text in page]
    return found


def settled(sim: Simulator, loan: SimulatedLoan, answers: list[Inference]) -> Outcome:
    """Settle what the custodian states against the receipts that came with these answers."""
    statement = stated(sim, loan)
    kept = [item.receipt for item in answers]
    claims = [Claim(name=str(at), receipt=item.receipt, status=item.status) for at, item in enumerate(kept)]
    return settle(statement, reports(sim, statement), claims)


def test_receipts_of_all_consumers_are_in_the_statement_by_name_only_where_they_are_metered(sim: Simulator) -> None:
    loan = sim.lend(allowance=20, consumers={"alice": 10, "bob": None})
    enclave = sim.launch(loan)
    alice, bob = sim.consumer(enclave, "alice"), sim.consumer(enclave, "bob")
    answers = [alice.infer(), bob.infer(), alice.infer([[1.0], [2.0]])]
    sim.advance(30)
    outcome = settled(sim, loan, answers)
    assert (outcome.settled, outcome.matched, outcome.without_receipt) == (True, 3, 0)
    assert {line.consumer: line.units for line in outcome.statement.lines} == {"alice": 3, None: 1}
    wire = b"".join(request.dump() for request in enclave.link.requests.log)
    assert b"bob" not in wire
    assert [answer.receipt.receipt.consumer for answer in answers] == ["alice", "bob", "alice"]


def test_the_last_report_goes_before_the_close(sim: Simulator) -> None:
    loan = sim.lend(allowance=10)
    enclave = sim.launch(loan)
    answers = [sim.consumer(enclave).infer() for _ in range(3)]
    enclave.stop()
    outcome = settled(sim, loan, answers)
    assert (outcome.settled, outcome.matched) == (True, 3)
    assert outcome.statement.not_itemised == 10 - 3
    assert [request.path.rsplit("/", 1)[1] for request in enclave.link.requests.log][-2:] == ["usage", "close"]


def test_what_a_killed_enclave_had_not_reported_is_written_off_and_said_so(sim: Simulator) -> None:
    loan = sim.lend(allowance=10)
    enclave = sim.launch(loan)
    consumer = sim.consumer(enclave)
    answers = [consumer.infer()]
    sim.advance(25)
    answers.append(consumer.infer())
    enclave.crash()
    sim.advance(200)
    outcome = settled(sim, loan, answers)
    assert (outcome.settled, outcome.matched) == (True, 1)
    assert [finding.code for finding in outcome.findings] == ["not_itemised"]
    assert (outcome.statement.units, outcome.statement.not_itemised) == (1, 9)


def test_a_host_that_lets_no_report_through_gets_no_lease_either(sim: Simulator) -> None:
    loan = sim.lend(allowance=100, max_ceiling=10)
    enclave = sim.launch(loan, renews=False)
    sim.consumer(enclave).infer()
    metering = enclave.instance.metering
    honest = metering.report
    metering.report = lambda: None  # type: ignore[method-assign]  # the host's own doing, as far as it can be
    refusal = enclave.renew()
    assert not isinstance(refusal, Lease)
    assert (refusal.stop, refusal.reasons[0].code) == (False, "usage_missing")
    metering.report = honest  # type: ignore[method-assign]
    sim.advance(2)
    assert isinstance(enclave.renew(), Lease)


def test_two_consumers_of_a_copied_memory_prove_it_together_and_it_stops(sim: Simulator) -> None:
    """T33: each copy's answers are good for themselves; the two receipts are not."""
    loan = sim.lend(allowance=100, max_ceiling=10)
    enclave = sim.launch(loan, renews=False)
    one = sim.consumer(enclave)
    chain = enclave.instance.metering._holder._usage
    before = copy.deepcopy(chain)
    first = one.infer()
    enclave.instance.metering._holder._usage = before  # the copy, at the moment of the copy
    second = sim.consumer(enclave).infer([[5.0]])
    receipts = [first.receipt, second.receipt]
    assert [item.receipt.index for item in receipts] == [1, 1]
    body = {"instance": enclave.id, "receipts": [dump_b64u(item.statement) for item in receipts]}
    answer = sim.custodian.call("POST", "/v1/forks", body, token=None)
    assert (answer.status, answer.json["state"]) == (200, "forked")
    assert "fork_detected" in sim.custodian.events()
    refusal = enclave.renew()
    assert not isinstance(refusal, Lease)
    assert refusal.stop


def test_a_receipt_keeps_the_custodian_s_word_on_its_instance(sim: Simulator) -> None:
    loan = sim.lend()
    enclave = sim.launch(loan)
    kept = sim.consumer(enclave).infer().receipt
    assert kept.status is not None
    status = Statement.parse(kept.status, label=Label.STATUS)
    status.verify([sim.custodian.key])
    again = type(kept).parse(kept.dump())
    assert again == kept
