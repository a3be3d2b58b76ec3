"""The enclave's side, rule by rule: meters, consumers, streams, renewing, ending (E1-E10)."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from datetime import timedelta

import pytest
from custodian_fake import instance_key
from world import TOKENS, Enclave, World, terms

from cloister.crypto.sign import Statement
from cloister.errors import Rejected, UsageError
from cloister.lending.lease import LeaseHolder, LeaseState
from cloister.lending.lease_grant import verify_request
from cloister.lending.messages import Close, Grant, Lease, LeaseRequest, Refusal
from cloister.lending.meters import Meters
from cloister.lending.receipt import GENESIS, head_after, verify_chain
from cloister.lending.state import InstanceStatus
from cloister.lending.terms import (
    LOAN_METER,
    Consumer,
    ConsumerId,
    consumer_meter,
    meters_in,
    model_meter,
    unserved_cap,
)

METERED, BOB = model_meter("metered"), consumer_meter(ConsumerId("bob"))


def started(units: int = 9, cap: int = 4, **members: int) -> tuple[World, Enclave]:
    world = World((terms(cap=cap, **members), units))
    enclave = world.launch()
    assert enclave is not None
    assert world.renew(enclave)
    return world, enclave


def request_of(world: World, enclave: Enclave) -> LeaseRequest:
    assert world.send(enclave) is not None
    return verify_request(world.requests[-1][1], enclave.key.verify_key)[0]


def test_e1_a_fresh_instance_has_nothing_and_serves_nothing() -> None:
    world = World((terms(), 9))
    enclave = world.launch()
    assert enclave is not None
    view = enclave.holder.snapshot()
    assert (view.state, view.limits, view.used, view.seq, view.deadline) == (LeaseState.STARTING, {}, {}, 0, None)
    assert view.chain_head == GENESIS
    assert world.serve(enclave) == 0
    assert not enclave.holder.must_end(world.now)


def test_e1_a_grant_for_another_instance_is_refused() -> None:
    world, enclave = started()
    key, _ = instance_key("other")
    grant = Grant(
        instance=enclave.id,
        request_digest=bytes(32),
        epoch=1,
        terms=terms(),
        policy_digest="c" * 64,
        result="",
        publisher=key.verify_key,
        keys=(),
        block_version=0,
    )
    with pytest.raises(Rejected, match="wrong_instance"):
        LeaseHolder(key=key, grant=grant, custodian=world.custodian.key.verify_key)


def test_e2_one_request_is_pending_and_repeated_bit_by_bit() -> None:
    world, enclave = started()
    first = enclave.holder.request(world.now, b"1" * 16)
    world.serve(enclave)
    world.advance(6)
    assert enclave.holder.request(world.now, b"2" * 16) == first


def test_e4_an_inference_needs_room_in_every_meter_it_falls_under() -> None:
    world, enclave = started(cap=4)
    world.custodian.db.change(world.loan, balances={LOAN_METER: 9, METERED: 0, BOB: 0})
    assert world.serve(enclave, 3, "metered", "bob") == 3
    assert enclave.holder.snapshot().used == {LOAN_METER: 3, METERED: 3, BOB: 3}
    assert world.serve(enclave, 1, "plain", "bob") == 1
    assert enclave.holder.snapshot().used == {LOAN_METER: 4, METERED: 3, BOB: 4}
    with pytest.raises(Rejected) as caught:
        enclave.holder.reserve("metered", TOKENS["bob"], 2, enclave.time(world.now))
    assert {reason.subject for reason in caught.value.reasons} == {LOAN_METER, METERED, BOB}
    assert enclave.holder.snapshot().reserved == {}


def test_e4_reserved_units_are_not_there_for_others() -> None:
    world, enclave = started(cap=4)
    first = enclave.holder.reserve("plain", TOKENS["ann"], 3, enclave.time(world.now))
    with pytest.raises(Rejected, match="allowance_exhausted"):
        enclave.holder.reserve("plain", TOKENS["ann"], 2, enclave.time(world.now))
    enclave.holder.refund(first)
    enclave.holder.reserve("plain", TOKENS["ann"], 4, enclave.time(world.now))


@pytest.mark.parametrize("units", [0, -1, True, 1.0, 2**53])
def test_t46_units_to_reserve_are_positive_integers(units: int) -> None:
    world, enclave = started()
    with pytest.raises(UsageError):
        enclave.holder.reserve("plain", TOKENS["ann"], units, enclave.time(world.now))


@pytest.mark.parametrize("token", [None, b"", b"wrong", TOKENS["ann"] + b" "])
def test_only_a_consumer_of_the_loan_is_served(token: bytes | None) -> None:
    world, enclave = started()
    with pytest.raises(Rejected) as caught:
        enclave.holder.reserve("plain", token, 1, enclave.time(world.now))
    assert caught.value.code == "unauthorized"


def test_a_loan_without_consumers_serves_anybody() -> None:
    world = World((replace(terms(), consumers=()), 9))
    nobody = world.launch()
    assert nobody is not None
    world.renew(nobody)
    with pytest.raises(Rejected, match="unauthorized"):
        nobody.holder.reserve("plain", TOKENS["ann"], 1, world.now)
    world.custodian.db.change(world.loan, terms=replace(terms(), consumers=None))
    anybody = world.launch()
    assert anybody is not None
    world.renew(anybody)
    assert anybody.holder.reserve("plain", None, 1, world.now).consumer is None


def test_an_unknown_model_is_named() -> None:
    world, enclave = started()
    with pytest.raises(Rejected, match="unknown_model"):
        enclave.holder.reserve("other", TOKENS["ann"], 1, enclave.time(world.now))
    with pytest.raises(Rejected, match="unknown_model"):
        enclave.holder.remaining("other")


def test_a_blocked_model_stops_and_the_others_go_on() -> None:
    world, enclave = started()
    stream = world.begin(enclave, 2, "metered")
    assert stream is not None
    world.block("model", world.loans[world.loan].models[1].digest)
    world.renew(enclave)
    assert not world.chunk(enclave, stream)
    with pytest.raises(Rejected, match="blocked"):
        enclave.holder.reserve("metered", TOKENS["ann"], 1, enclave.time(world.now))
    assert world.serve(enclave, 1, "plain") == 1


def test_a_blocked_consumer_is_told_so_and_the_others_go_on() -> None:
    world, enclave = started()
    world.block("consumer", f"{world.loan}/bob")
    world.renew(enclave)
    with pytest.raises(Rejected, match="consumer bob: blocked"):
        enclave.holder.reserve("plain", TOKENS["bob"], 1, enclave.time(world.now))
    assert world.serve(enclave) == 1


def test_a_consumer_added_later_is_served_after_the_next_renewal() -> None:
    world, enclave = started()
    loan = world.custodian.db.loans[world.loan]
    token = b"token of eve"
    eve = Consumer(id=ConsumerId("eve"), token_sha256=hashlib.sha256(token).digest())
    with pytest.raises(Rejected, match="unauthorized"):
        enclave.holder.reserve("plain", token, 1, enclave.time(world.now))
    world.custodian.db.change(world.loan, terms=replace(loan.terms, consumers=(*(loan.terms.consumers or ()), eve)))
    world.renew(enclave)
    assert enclave.holder.reserve("plain", token, 1, enclave.time(world.now)).consumer == eve


def test_e5_a_stream_may_not_produce_more_than_it_reserved() -> None:
    world, enclave = started()
    reservation = enclave.holder.reserve("plain", TOKENS["ann"], 2, enclave.time(world.now))
    enclave.holder.permit(reservation, 2, enclave.time(world.now))
    with pytest.raises(Rejected, match="allowance_exhausted"):
        enclave.holder.permit(reservation, 3, enclave.time(world.now))
    with pytest.raises(UsageError):
        enclave.holder.settle(reservation, 3, bytes(32), bytes(32), enclave.time(world.now))


def test_e5_what_was_produced_is_charged_even_if_the_last_chunk_may_not_leave() -> None:
    world, enclave = started()
    reservation = enclave.holder.reserve("plain", TOKENS["ann"], 3, enclave.time(world.now))
    world.advance(61)
    with pytest.raises(Rejected, match="lease_expired"):
        enclave.holder.settle(reservation, 2, bytes(32), bytes(32), enclave.time(world.now))
    view = enclave.holder.snapshot()
    assert (view.used, view.reserved, view.served) == ({LOAN_METER: 2}, {}, 1)


def test_a_reservation_is_settled_once_and_by_its_own_instance() -> None:
    world, enclave = started()
    other = world.launch()
    assert other is not None
    world.renew(other)
    reservation = enclave.holder.reserve("plain", TOKENS["ann"], 1, enclave.time(world.now))
    with pytest.raises(UsageError):
        other.holder.refund(reservation)
    enclave.holder.settle(reservation, 1, bytes(32), bytes(32), enclave.time(world.now))
    for again in (
        lambda: enclave.holder.refund(reservation),
        lambda: enclave.holder.permit(reservation, 1, enclave.time(world.now)),
        lambda: enclave.holder.settle(reservation, 1, bytes(32), bytes(32), enclave.time(world.now)),
    ):
        with pytest.raises(UsageError):
            again()


def test_e6_receipts_are_a_chain_whose_head_the_custodian_learns() -> None:
    world, enclave = started()
    for _ in range(3):
        world.serve(enclave)
    head = verify_chain(world.receipts)
    last = world.receipts[-1]
    assert head == head_after(last)
    assert enclave.holder.snapshot().chain_head == head
    world.advance(20)
    world.renew(enclave)
    assert world.custodian.db.instances[enclave.id].chain_head == head


def test_e7_a_shell_that_notices_a_step_voids_the_lease() -> None:
    world, enclave = started()
    later = enclave.time(world.now) + timedelta(hours=1)
    enclave.holder.void(later)
    with pytest.raises(Rejected, match="clock_step"):
        enclave.holder.reserve("plain", TOKENS["ann"], 1, later)
    assert not enclave.holder.must_end(later)
    assert enclave.holder.next_renewal(later, 0.5) == later


def test_e9_the_model_goes_at_two_t_without_renewal() -> None:
    world, enclave = started()
    world.advance(119.9)
    assert not enclave.holder.must_end(enclave.time(world.now))
    world.advance(0.5)
    assert enclave.holder.must_end(enclave.time(world.now))


def test_e9_an_instance_that_never_gets_a_lease_ends_too() -> None:
    world = World((terms(), 9))
    enclave = world.launch()
    assert enclave is not None
    world.send(enclave)
    world.advance(121)
    assert enclave.holder.must_end(enclave.time(world.now))


def test_e10_there_is_no_grace() -> None:
    _, enclave = started()
    deadline = enclave.holder.deadline
    assert deadline is not None
    enclave.holder.reserve("plain", TOKENS["ann"], 1, deadline - timedelta(microseconds=1))
    with pytest.raises(Rejected, match="lease_expired"):
        enclave.holder.reserve("plain", TOKENS["ann"], 1, deadline)


def test_a_stop_ends_the_instance_for_good() -> None:
    world, enclave = started()
    world.block("loan", world.loan)
    world.renew(enclave)
    assert enclave.holder.state is LeaseState.REVOKED
    assert enclave.holder.must_end(enclave.time(world.now))
    with pytest.raises(Rejected, match="blocked"):
        enclave.holder.reserve("plain", TOKENS["ann"], 1, enclave.time(world.now))
    with pytest.raises(Rejected, match="blocked"):
        enclave.holder.request(enclave.time(world.now), bytes(16))
    world.unblock("loan", world.loan)
    assert world.custodian.db.instances[enclave.id].status is InstanceStatus.BLOCKED
    enclave.holder.close(enclave.time(world.now))


def test_a_wait_is_no_stop() -> None:
    world, enclave = started()
    world.custodian.db.quiet_until = world.now + timedelta(seconds=9.5)
    request = request_of(world, enclave)
    answer = world.carry(len(world.requests) - 1)
    assert answer is not None
    refusal = enclave.holder.receive(world.answers[answer], enclave.time(world.now))
    assert isinstance(refusal, Refusal)
    assert (refusal.stop, refusal.retry_after) == (False, timedelta(seconds=10))
    assert [reason.code for reason in refusal.reasons] == ["recovering"]
    assert enclave.holder.state is LeaseState.ACTIVE
    now = enclave.time(world.now)
    assert enclave.holder.next_renewal(now, 0.0) >= now + timedelta(seconds=10)
    world.advance(10)
    assert request_of(world, enclave).seq == request.seq + 1


def test_close_counts_what_was_reserved_and_says_the_same_again() -> None:
    world, enclave = started()
    enclave.holder.reserve("plain", TOKENS["ann"], 2, enclave.time(world.now))
    statement = enclave.holder.close(enclave.time(world.now))
    close = Close.parse(Statement.parse(statement, label=Close.LABEL).verify([enclave.key.verify_key]))
    assert close.used == {LOAN_METER: 2}
    assert enclave.holder.close(enclave.time(world.now)) == statement
    assert enclave.holder.state is LeaseState.CLOSED
    assert enclave.holder._key is None
    for again in (
        lambda: enclave.holder.request(world.now, bytes(16)),
        lambda: enclave.holder.reserve("plain", TOKENS["ann"], 1, world.now),
    ):
        with pytest.raises(Rejected, match="lease_expired"):
            again()
    for _ in range(2):
        world.custodian.close(enclave.id, statement, world.now)
    instance = world.custodian.db.instances[enclave.id]
    assert (instance.status, instance.used[LOAN_METER]) == (InstanceStatus.CLOSED, 2)


def test_a_close_in_the_middle_of_a_run_refuses_its_answer_and_keeps_the_charge() -> None:
    world, enclave = started()
    holder, now = enclave.holder, enclave.time(world.now)
    running = holder.reserve("plain", TOKENS["ann"], 2, now)
    holder.close(now)
    for answer in (
        lambda: holder.permit(running, 2, now),
        lambda: holder.settle(running, 2, bytes(32), bytes(32), now),
    ):
        with pytest.raises(Rejected, match="lease_expired"):
            answer()
    holder.refund(running)
    assert holder.snapshot().used == {LOAN_METER: 2}


def test_remaining_counts_down_over_lease_and_balance() -> None:
    world, enclave = started(units=9, cap=4)
    holder = enclave.holder
    bob = (world.loans[world.loan].consumers or ())[1]
    assert holder.remaining("plain") == 9
    world.serve(enclave, 3, "metered", "bob")
    assert (holder.remaining("plain"), holder.remaining("metered", bob)) == (6, 6)
    world.top_up(world.loan, 10)
    assert holder.remaining("plain") == 6
    world.advance(20)
    world.renew(enclave)
    assert (holder.remaining("plain"), holder.remaining("metered", bob)) == (16, 6)


def test_an_exhausted_allowance_still_renews_so_that_a_top_up_flows() -> None:
    world, enclave = started(units=2)
    assert world.serve(enclave, 2) == 2
    for _ in range(10):
        world.advance(20)
        assert world.renew(enclave)
        assert world.serve(enclave) == 0
    now = enclave.time(world.now)
    assert enclave.holder.next_renewal(now, 1.0) <= now + timedelta(seconds=7.5)
    world.top_up(world.loan, 1)
    world.advance(7.5)
    world.renew(enclave)
    assert world.serve(enclave) == 1


def test_units_that_run_low_are_fetched_early() -> None:
    world, enclave = started(units=99, cap=10)
    now = enclave.time(world.now)
    assert enclave.holder.next_renewal(now, 0.5) > now + timedelta(seconds=19)
    world.serve(enclave, 6)
    assert enclave.holder.next_renewal(now, 0.5) == now + timedelta(seconds=6)


def test_a_rate_cap_bounds_n_and_the_pace() -> None:
    capped = terms(cap=1000, rate_cap=2)
    assert unserved_cap(capped) == 120
    world = World((capped, 1000))
    enclave = world.launch()
    assert enclave is not None
    world.renew(enclave)
    assert enclave.holder.snapshot().limits[LOAN_METER] == 120
    served = 0
    for _ in range(60):
        served += sum(world.serve(enclave, 10) for _ in range(20))
        world.advance(5)
        world.renew(enclave)
    assert served <= 120 + 2 * 300 + 60


def test_every_meter_of_the_terms_is_leased() -> None:
    world, enclave = started(units=3, cap=4)
    assert meters_in(world.loans[world.loan]) == (LOAN_METER, METERED, BOB)
    assert enclave.holder.snapshot().limits == {LOAN_METER: 3, METERED: 3, BOB: 3}
    assert request_of(world, enclave).want == {LOAN_METER: 4, METERED: 4, BOB: 4}


def test_a_meter_that_is_leased_is_charged_whatever_the_grant_said() -> None:
    world, enclave = started()
    changed = tuple(replace(model, metered=True) for model in world.loans[world.loan].models)
    loan = world.custodian.db.loans[world.loan]
    world.custodian.db.change(
        world.loan,
        terms=replace(loan.terms, models=changed),
        balances={**loan.balances, model_meter("plain"): 1},
    )
    sent = world.send(enclave)
    assert sent is not None
    enclave.holder.receive(world.custodian.lease(enclave.id, world.requests[sent][1], world.now), world.now)
    with pytest.raises(Rejected) as caught:
        enclave.holder.reserve("plain", TOKENS["ann"], 1, enclave.time(world.now))
    assert [reason.subject for reason in caught.value.reasons] == [model_meter("plain")]


def test_meters_know_no_negative_and_no_lowering() -> None:
    meters = Meters()
    assert meters.room(LOAN_METER) == 0
    meters.raise_to({LOAN_METER: 5})
    meters.raise_to({LOAN_METER: 3})
    assert meters.limits == {LOAN_METER: 5}
    meters.reserve([LOAN_METER], 5)
    for used in (-1, 6, True):
        with pytest.raises(UsageError):
            meters.settle([LOAN_METER], reserved=5, used=used)
    meters.settle([LOAN_METER], reserved=5, used=2)
    assert (meters.used, meters.reserved, meters.room(LOAN_METER)) == ({LOAN_METER: 2}, {}, 3)
    assert Lease.LABEL is not Refusal.LABEL


def test_e5_e6_permit_and_charge_at_one_time_gives_what_the_two_give_one_after_the_other() -> None:
    world, enclave = started()
    holder, other = enclave.holder, enclave.fork().holder
    one = holder.reserve("plain", TOKENS["ann"], 2, enclave.time(world.now))
    two = other.reserve("plain", TOKENS["ann"], 2, enclave.time(world.now))
    other.permit(two, 1, enclave.time(world.now))
    receipt = other.charge(two, 1, b"q" * 32, b"a" * 32, enclave.time(world.now))
    assert holder.permit_and_charge(one, 1, b"q" * 32, b"a" * 32, enclave.time(world.now)) == receipt
    assert holder.snapshot() == other.snapshot()
    with pytest.raises(UsageError):
        holder.permit_and_charge(one, 1, b"q" * 32, b"a" * 32, enclave.time(world.now))


def test_e5_what_may_not_leave_whole_is_given_back_and_not_charged() -> None:
    world, enclave = started()
    holder = enclave.holder
    for units, later in ((3, timedelta(0)), (2, timedelta(hours=1))):
        reservation = holder.reserve("plain", TOKENS["ann"], 2, enclave.time(world.now))
        with pytest.raises(Rejected):
            holder.permit_and_charge(reservation, units, b"q" * 32, b"a" * 32, enclave.time(world.now) + later)
        view = holder.snapshot()
        assert (view.used, view.reserved, view.served) == ({}, {}, 0)


@pytest.mark.parametrize("seed", range(20))
def test_answers_in_one_piece_break_no_invariant_through_renewals_blocks_and_ends(seed: int) -> None:
    """I1 to I9 are held after every step, as in the simulations of streams."""
    draw = random.Random(seed)
    world, enclave = started(units=60, cap=8)
    assert world.whole(enclave) == 1
    for _ in range(60):
        match draw.randrange(8):
            case 0:
                world.renew(enclave)
            case 1:
                world.advance(draw.choice((1, 20, 70)))
            case 2 if draw.randrange(6) == 0:
                world.block("consumer", f"{world.loan}/bob")
            case 3 if draw.randrange(20) == 0:
                world.close(enclave)
            case 4:
                world.serve(enclave, draw.randint(1, 4), draw.choice(("plain", "metered")), "ann")
            case _:
                model, who = draw.choice(("plain", "metered")), draw.choice(("ann", "bob"))
                world.whole(enclave, draw.randint(1, 4), model, who)
        world.verify(enclave)
