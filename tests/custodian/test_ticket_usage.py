"""Usage of ticketed models: no more records than tickets, and what becomes of tickets that nobody used."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import STATEMENT, Bench, Lent, Toy

from cloister.crypto.sign import Label, Statement
from cloister.custodian.store.loans import postings_of
from cloister.errors import Rejected
from cloister.lending.dispute import verify_statement
from cloister.lending.ledger import verify_postings
from cloister.lending.messages import Refusal, Ticket, TicketRequest, UsageRecord, UsageReport
from cloister.lending.messages.usage import minute_of
from cloister.lending.receipt import GENESIS, SALT_BYTES, commit, next_head

if TYPE_CHECKING:
    import httpx

    from cloister.lending.lease import LeaseHolder
    from cloister.lending.messages import UsageStatement

SALT = bytes(SALT_BYTES)
GOLD, PLAIN = "digits", "letters"


@pytest.fixture
def lent(bench: Bench) -> Lent:
    """Return a loan of a ticketed and of a plain model."""
    other = bench.seal(PLAIN)
    bench.publish(other)
    models = [{"digest": bench.digest, "name": GOLD, "ticketed": True}, {"digest": other["digest"], "name": PLAIN}]
    return bench.lend(allowance=20, max_ceiling=5, models=models)


@pytest.fixture
def toy(lent: Lent) -> Toy:
    found = lent.boot()
    found.renew()
    return found


def holder(toy: Toy) -> LeaseHolder:
    assert toy.holder is not None
    return toy.holder


def post(toy: Toy, statement: bytes) -> httpx.Response:
    return toy.bench.client.post(f"/v1/instances/{toy.id}/ticket", content=statement, headers=STATEMENT)


def paid(toy: Toy, body: bytes, units: int = 1) -> Ticket | Refusal:
    """Take a ticket for a request, whose inference never starts."""
    reservation = holder(toy).reserve(GOLD, None, units, toy.bench.clock())
    request = holder(toy).tickets.request(reservation, commit(SALT, body), toy.bench.clock())
    answer = holder(toy).tickets.receive(post(toy, request).content, toy.bench.clock())
    holder(toy).refund(reservation)
    return answer


def serve(toy: Toy, body: bytes, units: int = 1) -> None:
    """Serve one inference of the ticketed model."""
    now = toy.bench.clock()
    reservation = holder(toy).reserve(GOLD, None, units, now)
    request = holder(toy).tickets.request(reservation, commit(SALT, body), now)
    holder(toy).tickets.receive(post(toy, request).content, now)
    holder(toy).tickets.begin(reservation, commit(SALT, body), now)
    holder(toy).settle(reservation, units, commit(SALT, body), bytes(32), now)


class Forger:
    """Signs reports as an enclave would whose count is a lie: a chain of its own, by the instance's key."""

    def __init__(self, toy: Toy) -> None:
        assert toy.grant is not None
        self.toy, self.index, self.head = toy, 0, GENESIS
        self.models = {model.name: model.digest for model in toy.grant.terms.models}

    def report(self, *served: tuple[str, int]) -> httpx.Response:
        """Report these inferences, each of so many units of a model."""
        at = minute_of(self.toy.bench.clock())
        records = tuple(
            UsageRecord(
                index=self.index + number, model=self.models[name], consumer=None, units=units, at=at, content=bytes(32)
            )
            for number, (name, units) in enumerate(served, start=1)
        )
        report = UsageReport(instance=self.toy.id, loan=self.toy.lent.id, previous=self.head, records=records)
        answer = self.toy.send_report(Statement.sign(self.toy.key, Label.USAGE_REPORT, report.dump()).dump())
        if answer.status_code == 200:
            self.index += len(records)
            for record in records:
                self.head = next_head(self.head, record)
        return answer


def demand_alarm(answer: httpx.Response, toy: Toy) -> None:
    """Prove that a report was refused, the instance stopped, nothing stored, and the alarm logged once."""
    assert (answer.status_code, answer.json()["code"]) == (403, "overdrawn"), answer.text
    assert toy.lent.show()["instances"][0]["state"] == "overdrawn"
    assert toy.bench.kinds().count("overdraft_detected") == 1


def stated(lent: Lent) -> UsageStatement:
    answer = lent.bench.client.get(f"/v1/loans/{lent.id}/usage", headers=lent.token)
    assert answer.status_code == 200, answer.text
    return verify_statement(answer.content, lent.bench.init.key)


def meter(lent: Lent) -> dict[str, int]:
    """Return where the units are, once it is proven that each is somewhere."""
    shown: dict[str, int] = lent.show()["meters"]["loan"]
    assert shown["granted"] == shown["balance"] + shown["held"] + shown["spent"] + shown["written_off"]
    with lent.bench.service.context.reading() as connection:
        verify_postings(postings_of(connection, lent.id))
    return shown


# --- records and tickets ---


def test_records_up_to_the_tickets_are_taken_and_one_unit_more_is_overdrawn(toy: Toy) -> None:
    paid(toy, b"one", 2)
    paid(toy, b"two")
    forger = Forger(toy)
    assert forger.report((GOLD, 1), (GOLD, 1)).status_code == 200
    assert forger.report((GOLD, 1)).status_code == 200
    demand_alarm(forger.report((GOLD, 1)), toy)
    assert [line.units for line in stated(toy.lent).lines] == [3]


@pytest.mark.parametrize("served", [((GOLD, 1),), ((PLAIN, 2), (GOLD, 1)), ((GOLD, 2**53 - 1),)])
def test_a_record_of_a_ticketed_model_without_any_ticket_is_overdrawn(toy: Toy, served: tuple[Any, ...]) -> None:
    """The lease's ceiling, which has room for them, is for the other model."""
    demand_alarm(Forger(toy).report(*served), toy)
    assert stated(toy.lent).lines == ()


def test_tickets_back_no_record_of_another_model(toy: Toy) -> None:
    for number in range(3):
        paid(toy, b"%d" % number)
    forger = Forger(toy)
    assert forger.report((PLAIN, 5), (GOLD, 3)).status_code == 200
    demand_alarm(forger.report((PLAIN, 1)), toy)


def test_tickets_of_one_instance_back_no_record_of_another(toy: Toy) -> None:
    other = toy.lent.boot()
    other.renew()
    paid(other, b"one", 3)
    answer = Forger(toy).report((GOLD, 1))
    assert answer.json()["code"] == "overdrawn"
    assert Forger(other).report((GOLD, 3)).status_code == 200


def test_a_refused_ticket_and_one_that_was_sent_twice_back_nothing_more(toy: Toy) -> None:
    assert isinstance(paid(toy, b"too much", 18), Refusal)
    now = toy.bench.clock()
    reservation = holder(toy).reserve(GOLD, None, 1, now)
    request = holder(toy).tickets.request(reservation, commit(SALT, b"one"), now)
    assert post(toy, request).content == post(toy, request).content
    forger = Forger(toy)
    assert forger.report((GOLD, 1)).status_code == 200
    demand_alarm(forger.report((GOLD, 1)), toy)


def test_an_honest_enclave_that_mixes_both_models_is_never_overdrawn(toy: Toy) -> None:
    for number in range(3):
        serve(toy, b"%d" % number, 2)
        toy.serve(1, model=PLAIN)
        paid(toy, b"unused %d" % number)
        toy.renew()
    assert toy.lent.show()["instances"][0]["state"] == "active"
    assert meter(toy.lent)["spent"] == 3 * 2 + 3 + 3
    assert {line.model: line.units for line in stated(toy.lent).lines} == {
        Forger(toy).models[GOLD]: 6,
        Forger(toy).models[PLAIN]: 3,
    }


# --- the close of an instance that holds tickets it did not use ---


@pytest.mark.parametrize("clauses", [{}, {"refund": "unused"}])
def test_a_close_gives_unused_tickets_back_to_nobody(bench: Bench, clauses: dict[str, str]) -> None:
    models = [{"digest": bench.digest, "name": GOLD, "ticketed": True}]
    lent = bench.lend(allowance=9, models=models, **({"clauses": clauses} if clauses else {}))
    toy = lent.boot()
    toy.renew()
    serve(toy, b"one", 2)
    paid(toy, b"two", 3)
    before = meter(lent)
    assert toy.close().status_code == 200
    assert meter(lent) == before
    assert (before["spent"], before["balance"]) == (5, 4)
    statement = stated(lent)
    (span,) = statement.spans
    assert (span.granted, span.itemised, span.ended) == (5, 2, True)
    assert (statement.units, statement.not_itemised) == (2, 3)  # paid for, never run: charged, and not itemised


def test_a_ticket_whose_inference_was_running_at_the_close_is_a_record_without_a_receipt(toy: Toy) -> None:
    now = toy.bench.clock()
    reservation = holder(toy).reserve(GOLD, None, 2, now)
    request = holder(toy).tickets.request(reservation, commit(SALT, b"one"), now)
    holder(toy).tickets.receive(post(toy, request).content, now)
    holder(toy).tickets.begin(reservation, commit(SALT, b"one"), now)
    waiting = holder(toy).reserve(GOLD, None, 1, now)  # this one has no ticket yet: it costs nothing
    assert toy.close().status_code == 200
    (line,) = stated(toy.lent).lines
    assert (line.units, line.cut_units) == (2, 2)
    with pytest.raises(Rejected):
        holder(toy).tickets.begin(waiting, commit(SALT, b"two"), now)
    assert toy.lent.show()["instances"][0]["state"] == "closed"


def test_a_ticket_asked_for_before_the_close_and_answered_after_it_runs_nothing(toy: Toy) -> None:
    now = toy.bench.clock()
    reservation = holder(toy).reserve(GOLD, None, 1, now)
    request = holder(toy).tickets.request(reservation, commit(SALT, b"one"), now)
    answer = post(toy, request)
    toy.close()
    before = meter(toy.lent)
    holder(toy).tickets.receive(answer.content, now)  # its inference has gone: paid for, and void
    with pytest.raises(Rejected):
        holder(toy).tickets.begin(reservation, commit(SALT, b"one"), now)
    assert post(toy, request).content == answer.content  # the stored bytes, and no second debit
    assert meter(toy.lent) == before
    assert toy.lent.show()["instances"][0]["state"] == "closed"


def test_a_closed_instance_gets_no_new_ticket_and_stays_closed(toy: Toy) -> None:
    paid(toy, b"one")
    toy.close()
    before = meter(toy.lent)
    request = TicketRequest(
        instance=toy.id, epoch=1, index=2, request=commit(SALT, b"two"), model=Forger(toy).models[GOLD], consumer=None,
        units=1,
    )  # fmt: skip
    signed = Statement.sign(toy.key, Label.TICKET_REQUEST, request.dump()).dump()
    for statement in (signed, Statement.sign(toy.key, Label.TICKET_REQUEST, replace(request, units=2).dump()).dump()):
        answer = Refusal.parse(Statement.parse(post(toy, statement).content, label=Label.REFUSAL).payload)
        assert answer.stop
    assert toy.lent.show()["instances"][0]["state"] == "closed"
    assert meter(toy.lent) == before


def test_an_instance_that_dies_with_unused_tickets_costs_them_once(toy: Toy) -> None:
    paid(toy, b"one", 2)
    toy.bench.clock.advance(10_000)
    toy.bench.service.sweep()
    shown = meter(toy.lent)
    assert (shown["spent"], shown["written_off"]) == (2, 5)  # the ticket's units, and the lease's for the plain model
    assert stated(toy.lent).not_itemised == 7
