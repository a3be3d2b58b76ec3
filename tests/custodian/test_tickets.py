"""One signature for one inference: ticketed models as the custodian pays for them (docs/spec/ticket.md)."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import STATEMENT, Bench, Lent, Toy

from cloister.crypto.sign import Label, Statement
from cloister.custodian.store.loans import postings_of
from cloister.errors import Rejected, UsageError
from cloister.lending.ledger import verify_postings
from cloister.lending.messages import Refusal, Ticket, TicketRequest
from cloister.lending.receipt import SALT_BYTES, commit, verify_receipt
from cloister.lending.ticket import verify_ticket
from cloister.lending.ticket_grant import TICKET_LIFE

if TYPE_CHECKING:
    from cloister.lending.lease import Reservation

SALT = bytes(SALT_BYTES)


def _lend(bench: Bench, **changes: Any) -> Lent:
    models = [{"digest": bench.digest, "name": "digits", "ticketed": True}]
    return bench.lend(**{"allowance": 5, "models": models, **changes})


def _boot(lent: Lent) -> Toy:
    toy = lent.boot()
    toy.renew()
    return toy


def _post(toy: Toy, statement: bytes) -> Any:
    return toy.bench.client.post(f"/v1/instances/{toy.id}/ticket", content=statement, headers=STATEMENT)


def _asked(toy: Toy, body: bytes, units: int = 1, *, token: bytes | None = None) -> tuple[Reservation, bytes]:
    """Return what the enclave set aside for a request, and its ticket request."""
    assert toy.holder is not None
    reservation = toy.holder.reserve("digits", token, units, toy.bench.clock())
    return reservation, toy.holder.tickets.request(reservation, commit(SALT, body), toy.bench.clock())


def _take(toy: Toy, statement: bytes) -> Ticket | Refusal:
    answer = _post(toy, statement)
    assert answer.status_code == 200, answer.text
    assert toy.holder is not None
    return toy.holder.tickets.receive(answer.content, toy.bench.clock())


def _serve(toy: Toy, body: bytes = b"a scan", units: int = 1, *, token: bytes | None = None) -> tuple[bytes, bytes]:
    """Serve one inference as the enclave does; return ticket and receipt. Raises what it raises."""
    assert toy.holder is not None
    reservation, statement = _asked(toy, body, units, token=token)
    answer = _take(toy, statement)
    if isinstance(answer, Refusal):
        toy.holder.refund(reservation)
        raise Rejected("refused", reasons=answer.reasons)
    now = toy.bench.clock()
    ticket = toy.holder.tickets.begin(reservation, commit(SALT, body), now)
    toy.holder.permit(reservation, units, now)
    return ticket, toy.holder.settle(reservation, units, commit(SALT, body), bytes(32), now)


def _balance(lent: Lent) -> int:
    """Return the balance, once it is proven that each unit is somewhere (I2)."""
    shown = lent.show()["meters"]["loan"]
    assert shown["granted"] == shown["balance"] + shown["held"] + shown["spent"] + shown["written_off"]
    with lent.bench.service.context.reading() as connection:
        verify_postings(postings_of(connection, lent.id))
    return int(shown["balance"])


def test_an_inference_costs_one_signature_and_is_paid_before_it_runs(bench: Bench) -> None:
    lent = _lend(bench)
    toy = _boot(lent)
    assert _balance(lent) == 5  # no lease holds units of a ticketed model
    for left in (4, 3):
        _serve(toy)
        assert _balance(lent) == left
    assert lent.show()["meters"]["loan"]["spent"] == 2
    assert bench.kinds().count("ticket_granted") == 2


def test_distinct_inferences_never_exceed_the_allowance(bench: Bench) -> None:
    lent = _lend(bench, allowance=3)
    toy, other = _boot(lent), _boot(lent)
    served = 0
    for number in range(5):
        for enclave in (toy, other):
            try:
                _serve(enclave, b"scan %d" % number)
            except Rejected as exc:
                assert exc.code == "allowance_exhausted"  # noqa: PT017 - or it was served
            else:
                served += 1
    assert served == 3
    assert _balance(lent) == 0


def test_nothing_runs_without_a_ticket_or_with_one_for_another_request(bench: Bench) -> None:
    toy = _boot(_lend(bench))
    assert toy.holder is not None
    now = bench.clock()
    bare = toy.holder.reserve("digits", None, 1, now)
    for attempt in (
        lambda: toy.holder.permit(bare, 1, now),  # type: ignore[union-attr]
        lambda: toy.holder.settle(bare, 1, bytes(32), bytes(32), now),  # type: ignore[union-attr]
        lambda: toy.holder.tickets.begin(bare, bytes(32), now),  # type: ignore[union-attr]
    ):
        with pytest.raises(Rejected, match="ticket_wanted"):
            attempt()
    reservation, statement = _asked(toy, b"a scan")
    assert isinstance(_take(toy, statement), Ticket)
    with pytest.raises(Rejected, match="ticket_wanted"):
        toy.holder.tickets.begin(reservation, commit(SALT, b"another"), now)
    with pytest.raises(Rejected, match="ticket_wanted"):
        toy.holder.permit(reservation, 1, now)  # it has a ticket and was not started with it
    toy.holder.tickets.begin(reservation, commit(SALT, b"a scan"), now)
    with pytest.raises(Rejected, match="ticket_wanted"):
        toy.holder.settle(reservation, 1, commit(SALT, b"another"), bytes(32), now)


def test_a_consumer_can_prove_that_the_custodian_signed_for_just_its_request(bench: Bench) -> None:
    toy = _boot(_lend(bench))
    ticket, receipt = _serve(toy, b"my scan")
    proven = verify_receipt(receipt, toy.key.verify_key)
    assert verify_ticket(ticket, bench.init.key, proven).request == commit(SALT, b"my scan")
    with pytest.raises(Rejected, match="ticket_mismatch"):
        verify_ticket(ticket, bench.init.key, replace(proven, request=commit(SALT, b"another")))
    with pytest.raises(Rejected, match="unknown_key"):
        verify_ticket(ticket, toy.key.verify_key, proven)


def test_cloned_memory_and_a_stopped_clock_serve_no_request_twice_over(bench: Bench) -> None:
    lent = _lend(bench, allowance=3)
    toy = _boot(lent)
    frozen = copy.copy(toy)
    frozen.holder = copy.deepcopy(toy.holder, {id(toy.key): toy.key})
    _serve(toy, b"one")
    bench.clock.advance(10)
    with pytest.raises(Rejected) as refused:
        _serve(frozen, b"two")  # the same index for another request: two copies
    assert refused.value.code == "fork_detected"
    assert _balance(lent) == 2
    with pytest.raises(Rejected):
        _serve(toy, b"three")
    assert lent.show()["instances"][0]["state"] == "forked"


def test_two_copies_with_one_pending_request_get_one_ticket_for_one_inference(bench: Bench) -> None:
    lent = _lend(bench)
    toy = _boot(lent)
    _, statement = _asked(toy, b"one")
    copied = copy.deepcopy(toy.holder, {id(toy.key): toy.key})
    assert copied is not None
    answers = {_post(toy, statement).content for _ in range(3)}
    assert len(answers) == 1
    assert _balance(lent) == 4
    copied.tickets.receive(answers.pop(), bench.clock())


def test_the_stored_ticket_survives_a_restart(bench: Bench) -> None:
    toy = _boot(_lend(bench))
    _, statement = _asked(toy, b"one")
    before = _post(toy, statement).content
    bench.restart()
    assert _post(toy, statement).content == before
    assert _balance(toy.lent) == 4


def test_one_request_is_pending_at_a_time_and_a_lost_inference_stays_paid(bench: Bench) -> None:
    lent = _lend(bench)
    toy = _boot(lent)
    assert toy.holder is not None
    reservation, statement = _asked(toy, b"gone")
    toy.holder.refund(reservation)
    with pytest.raises(UsageError):
        _asked(toy, b"next")
    assert toy.holder.tickets.pending == statement
    assert isinstance(_take(toy, statement), Ticket)
    _serve(toy, b"next")
    assert _balance(lent) == 3


def test_a_ticket_must_be_used_soon(bench: Bench) -> None:
    toy = _boot(_lend(bench))
    assert toy.holder is not None
    reservation, statement = _asked(toy, b"slow")
    _take(toy, statement)
    bench.clock.advance(TICKET_LIFE.total_seconds())
    toy.renew()
    with pytest.raises(Rejected, match="ticket_expired"):
        toy.holder.tickets.begin(reservation, commit(SALT, b"slow"), bench.clock())


@pytest.mark.parametrize("seq", [2, 3, 99])
def test_an_index_that_is_not_the_next_is_a_conflict(bench: Bench, seq: int) -> None:
    toy = _boot(_lend(bench))
    _, statement = _asked(toy, b"one")
    asked = TicketRequest.parse(Statement.parse(statement, label=Label.TICKET_REQUEST).payload)
    answer = _post(toy, Statement.sign(toy.key, Label.TICKET_REQUEST, replace(asked, index=seq).dump()).dump())
    assert (answer.status_code, answer.json()["code"]) == (409, "wrong_seq")
    assert bench.audit()[-1]["kind"] == "ticket_refused"


@pytest.mark.parametrize(
    ("change", "code"),
    [({"model": "a" * 64}, "unknown_model"), ({"consumer": "eve"}, "unauthorized"), ({"epoch": 9}, "stale_epoch")],
)
def test_a_request_for_something_else_gets_a_signed_no(bench: Bench, change: dict[str, Any], code: str) -> None:
    lent = _lend(bench)
    toy = _boot(lent)
    _, statement = _asked(toy, b"one")
    asked = TicketRequest.parse(Statement.parse(statement, label=Label.TICKET_REQUEST).payload)
    answer = _post(toy, Statement.sign(toy.key, Label.TICKET_REQUEST, replace(asked, **change).dump()).dump())
    refusal = Refusal.parse(Statement.parse(answer.content, label=Label.REFUSAL).verify([bench.init.key]))
    assert refusal.reasons[0].code == code
    assert _balance(lent) == 5


def test_a_block_stops_at_the_next_ticket_not_at_the_end_of_the_lease(bench: Bench) -> None:
    lent = _lend(bench)
    toy = _boot(lent)
    _serve(toy)
    bound = bench.post("/v1/blocks", {"kind": "loan", "subject": lent.id, "reason": ""}).json()["bound"]
    assert bound["units"] == 0
    with pytest.raises(Rejected, match="refused"):
        _serve(toy)
    assert toy.holder is not None
    assert toy.holder.must_end(bench.clock())


def test_a_blocked_consumer_gets_no_ticket_and_the_instance_goes_on(bench: Bench) -> None:
    lent = _lend(bench, consumers=[{"id": "alice"}, {"id": "bob", "allowance": 1}])
    toy = _boot(lent)
    alice, bob = (lent.made["consumer_tokens"][name].encode() for name in ("alice", "bob"))
    bench.post("/v1/blocks", {"kind": "consumer", "subject": "alice", "loan": lent.id, "reason": ""})
    with pytest.raises(Rejected) as refused:
        _serve(toy, token=alice)
    assert refused.value.code == "blocked"
    _serve(toy, token=bob)
    with pytest.raises(Rejected) as refused:
        _serve(toy, token=bob)
    assert (refused.value.code, refused.value.reasons[0].subject) == ("allowance_exhausted", "consumer:bob")


def test_the_rate_cap_holds_for_tickets_too(bench: Bench) -> None:
    toy = _boot(_lend(bench, rate_cap=1, ttl_s=2, allowance=50))
    _serve(toy, units=2)
    with pytest.raises(Rejected) as refused:
        _serve(toy, units=1)
    assert refused.value.code == "rate_capped"
    bench.clock.advance(1)
    _serve(toy, units=1)


def test_a_plain_model_takes_no_ticket_and_a_ticketed_one_no_lease_units(bench: Bench) -> None:
    other = bench.seal("letters")
    bench.publish(other)
    models = [
        {"digest": bench.digest, "name": "digits", "ticketed": True, "allowance": 2},
        {"digest": other["digest"], "name": "letters"},
    ]
    lent = bench.lend(allowance=10, max_ceiling=4, models=models)
    toy = _boot(lent)
    toy.serve(3, model="letters")
    _serve(toy, units=2)
    shown = lent.show()["meters"]
    assert shown["loan"]["balance"] == 4
    assert shown["model:digits"] == {
        "balance": 0, "granted": 2, "held": 0, "owed": 0, "spent": 2, "written_off": 0,
    }  # fmt: skip


def test_a_ticket_altered_by_one_unit_is_refused(bench: Bench) -> None:
    toy = _boot(_lend(bench))
    assert toy.holder is not None
    _, statement = _asked(toy, b"one")
    answer = Statement.parse(_post(toy, statement).content, label=Label.TICKET)
    more = replace(Ticket.parse(answer.payload), units=2).dump()
    with pytest.raises(Rejected, match="signature_invalid"):
        toy.holder.tickets.receive(replace(answer, payload=more).dump(), bench.clock())
    with pytest.raises(Rejected, match="wrong_statement"):
        toy.holder.receive(answer.dump(), bench.clock())
