"""What the contract demands, checked at the start and at every chunk: hours, sub-allowances, their counts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any

import pytest
from world import TOKENS, Enclave, World, terms

from cloister.crypto.sign import SigningKey
from cloister.errors import Rejected
from cloister.lending.clauses import Clauses, Window
from cloister.lending.conditions import Conditions, account_of, person_of
from cloister.lending.revocation import RevocationList
from cloister.lending.sub_allowance import BlockId, Caveats, Chain, SubAllowance
from cloister.lending.terms import InstanceId, LoanId, Terms
from cloister.wire import dump_b64u

BORROWER, ANN = SigningKey(bytes([1]) * 32), SigningKey(bytes([2]) * 32)
OPEN = Clauses(borrower=BORROWER.verify_key, sub_allowances=True)
ALWAYS = tuple(Window(day=day, start=0, end=1440) for day in range(1, 8))


def at(now: datetime) -> int:
    return now.hour * 60 + now.minute


def started(clauses: Clauses, units: int = 9, cap: int = 4) -> tuple[World, Enclave]:
    world = World((replace(terms(cap=cap), clauses=clauses), units))
    enclave = world.launch()
    assert enclave is not None
    assert world.renew(enclave)
    return world, enclave


def today(world: World, minutes: int) -> Clauses:
    """Return the clauses of a loan that closes so many minutes after the world's time."""
    now = world.now
    return replace(OPEN, hours=(Window(day=now.isoweekday(), start=0, end=at(now) + minutes),))


def sub_of(world: World, enclave: Enclave, **members: Any) -> SubAllowance:
    caveats = Caveats(**{"not_after": world.now + timedelta(days=1), **members})
    chain = Chain.start(BORROWER, loan=world.loan, holder=ANN.verify_key, caveats=caveats)
    return enclave.holder.conditions.admit(chain.dump(), dump_b64u(ANN.seed()).encode(), enclave.time(world.now))


def code(world: World, enclave: Enclave, who: bytes | SubAllowance, units: int = 1, model: str = "plain") -> str:
    try:
        enclave.holder.reserve(model, who, units, enclave.time(world.now))
    except Rejected as exc:
        return exc.code
    return ""


def test_nothing_starts_outside_the_hours() -> None:
    world, _ = started(OPEN)
    other = tuple(window for window in ALWAYS if window.day != world.now.isoweekday())
    world, enclave = started(replace(OPEN, hours=other))
    assert code(world, enclave, TOKENS["ann"]) == "outside_hours"
    world, enclave = started(replace(OPEN, hours=ALWAYS))
    assert code(world, enclave, TOKENS["ann"]) == ""


def test_a_stream_that_runs_past_the_closing_hour_is_cut_between_chunks() -> None:
    world, enclave = started(today(World((terms(), 9)), 1))
    reservation = enclave.holder.reserve("plain", TOKENS["ann"], 3, enclave.time(world.now))
    enclave.holder.permit(reservation, 1, enclave.time(world.now))
    world.advance(50)
    assert world.renew(enclave)
    enclave.holder.permit(reservation, 2, enclave.time(world.now))
    world.advance(11)  # an honest clock may be slow by a little
    now = enclave.time(world.now)
    for step in (
        lambda: enclave.holder.permit(reservation, 3, now),
        lambda: enclave.holder.demand_live(reservation.model, reservation.consumer, now),
        lambda: enclave.holder.settle(reservation, 3, b"\x01" * 32, b"\x02" * 32, now),
    ):
        with pytest.raises(Rejected, match="outside_hours"):
            step()
    assert enclave.holder.snapshot().used == {"loan": 3}


def test_a_clock_set_back_into_the_hours_voids_the_lease_and_serves_nothing() -> None:
    world, enclave = started(today(World((terms(), 9)), 1))
    world.advance(59)
    assert world.renew(enclave)
    world.advance(2)
    assert code(world, enclave, TOKENS["ann"]) == "outside_hours"
    with pytest.raises(Rejected, match="clock_step"):
        enclave.holder.reserve("plain", TOKENS["ann"], 1, enclave.time(world.now) - timedelta(seconds=30))


def test_a_sub_allowance_lets_in_whom_the_contract_does_not_list() -> None:
    world, enclave = started(OPEN)
    assert code(world, enclave, b"some token") == "unauthorized"
    assert code(world, enclave, sub_of(world, enclave), units=3) == ""
    assert enclave.holder.snapshot().reserved == {"loan": 3}


@pytest.mark.parametrize("clauses", [Clauses(), Clauses(borrower=BORROWER.verify_key)])
def test_a_sub_allowance_needs_the_contracts_clause(clauses: Clauses) -> None:
    world, enclave = started(clauses)
    with pytest.raises(Rejected, match="sub_allowances_off"):
        sub_of(world, enclave)


def test_a_sub_allowance_is_charged_to_the_loan_and_to_itself() -> None:
    world, enclave = started(OPEN, units=9, cap=9)
    sub = sub_of(world, enclave, units=4)
    done = enclave.holder.reserve("plain", sub, 3, enclave.time(world.now))
    enclave.holder.settle(done, 2, b"\x01" * 32, b"\x02" * 32, enclave.time(world.now))
    assert enclave.holder.snapshot().used == {"loan": 2}
    assert enclave.holder.remaining("plain", sub) == 2
    assert code(world, enclave, sub, units=3) == "sub_allowance_exhausted"
    given_back = enclave.holder.reserve("plain", sub, 2, enclave.time(world.now))
    enclave.holder.refund(given_back)
    assert enclave.holder.remaining("plain", sub) == 2


def test_a_sub_allowance_larger_than_the_loan_is_bound_by_the_loan() -> None:
    world, enclave = started(OPEN, units=9, cap=4)
    sub = sub_of(world, enclave, units=1000)
    assert code(world, enclave, sub, units=5) == "allowance_exhausted"
    assert enclave.holder.conditions.room(sub, 1000) == 1000
    assert code(world, enclave, sub, units=4) == ""


def test_a_refused_sub_allowance_sets_nothing_aside_on_the_loan() -> None:
    world, enclave = started(OPEN)
    sub = sub_of(world, enclave, units=1)
    assert code(world, enclave, sub, units=2) == "sub_allowance_exhausted"
    assert enclave.holder.snapshot().reserved == {}


def test_a_sub_allowance_for_one_instance_is_refused_by_another() -> None:
    world, enclave = started(OPEN)
    other = world.launch()
    assert other is not None
    assert world.renew(other)
    named = {"instance": enclave.id}
    assert code(world, enclave, sub_of(world, enclave, **named)) == ""
    assert code(world, other, sub_of(world, other, **named)) == "sub_allowance_scope"


def test_a_sub_allowance_is_refused_for_another_model_and_after_its_end() -> None:
    world, enclave = started(OPEN)
    sub = sub_of(world, enclave, models=("metered",), not_after=world.now + timedelta(seconds=30))
    assert code(world, enclave, sub, model="plain") == "sub_allowance_scope"
    assert code(world, enclave, sub, model="metered") == ""
    world.advance(31)
    assert world.renew(enclave)
    assert code(world, enclave, sub, model="metered") == "sub_allowance_expired"


def test_a_stream_under_a_sub_allowance_is_cut_when_that_ends() -> None:
    world, enclave = started(OPEN)
    sub = sub_of(world, enclave, not_after=world.now + timedelta(seconds=30))
    reservation = enclave.holder.reserve("plain", sub, 2, enclave.time(world.now))
    world.advance(31)
    with pytest.raises(Rejected, match="sub_allowance_expired"):
        enclave.holder.permit(reservation, 1, enclave.time(world.now))


def list_of(world: World, *blocks: BlockId, number: int = 1, **members: Any) -> RevocationList:
    values = {"loan": world.loan, "not_after": world.now + timedelta(seconds=50), "blocks": frozenset(blocks)}
    return RevocationList(number=number, **values | members)


def revoke(enclave: Enclave, revoked: RevocationList, key: SigningKey = BORROWER) -> str:
    try:
        enclave.holder.conditions.revoke(revoked.sign(key))
    except Rejected as exc:
        return exc.code
    return ""


def narrowed(world: World, enclave: Enclave) -> tuple[SubAllowance, SubAllowance]:
    """Return what Ann may use, and what Bob may use of it."""
    end, bob = world.now + timedelta(days=1), SigningKey(bytes([3]) * 32)
    first = Chain.start(BORROWER, loan=world.loan, holder=ANN.verify_key, caveats=Caveats(not_after=end))
    second = first.narrow(ANN, holder=bob.verify_key, caveats=Caveats())
    admit = enclave.holder.conditions.admit
    now = enclave.time(world.now)
    return tuple(
        admit(chain.dump(), dump_b64u(key.seed()).encode(), now) for chain, key in ((first, ANN), (second, bob))
    )  # type: ignore[return-value]  # two of them


def test_a_parent_that_is_called_back_takes_what_was_narrowed_from_it_along() -> None:
    world, enclave = started(OPEN)
    ann, bob = narrowed(world, enclave)
    assert (code(world, enclave, ann), code(world, enclave, bob)) == ("", "")
    assert revoke(enclave, list_of(world, ann.id)) == ""
    assert [code(world, enclave, who) for who in (ann, bob)] == ["sub_allowance_revoked"] * 2
    with pytest.raises(Rejected, match="sub_allowance_revoked"):
        narrowed(world, enclave)


def test_a_child_that_is_called_back_leaves_its_parent() -> None:
    world, enclave = started(OPEN)
    ann, bob = narrowed(world, enclave)
    assert revoke(enclave, list_of(world, bob.id)) == ""
    assert [code(world, enclave, who) for who in (ann, bob)] == ["", "sub_allowance_revoked"]


def test_a_stream_under_a_sub_allowance_that_is_called_back_is_cut_between_chunks() -> None:
    world, enclave = started(OPEN)
    sub = sub_of(world, enclave)
    reservation = enclave.holder.reserve("plain", sub, 2, enclave.time(world.now))
    enclave.holder.permit(reservation, 1, enclave.time(world.now))
    assert revoke(enclave, list_of(world, sub.id)) == ""
    with pytest.raises(Rejected, match="sub_allowance_revoked"):
        enclave.holder.permit(reservation, 2, enclave.time(world.now))


def test_an_old_list_replayed_or_a_shorter_one_lets_nobody_in_again() -> None:
    world, enclave = started(OPEN)
    ann, _ = narrowed(world, enclave)
    before, after = list_of(world, number=1), list_of(world, ann.id, number=2)
    assert revoke(enclave, before) == ""
    assert revoke(enclave, after) == ""
    assert revoke(enclave, before) == "revocations_old"
    assert revoke(enclave, after) == "revocations_old"
    assert revoke(enclave, list_of(world, number=3)) == "revocations_shrunk"
    assert code(world, enclave, ann) == "sub_allowance_revoked"


def test_a_list_of_another_borrower_or_for_another_loan_is_refused() -> None:
    world, enclave = started(OPEN)
    ann, _ = narrowed(world, enclave)
    revoked = list_of(world, ann.id)
    assert revoke(enclave, revoked, key=ANN) == "unknown_key"
    assert revoke(enclave, replace(revoked, loan=LoanId("loan-" + "z" * 16))) == "wrong_loan"
    assert code(world, enclave, ann) == ""


def test_an_id_that_nobody_knows_calls_nothing_back() -> None:
    world, enclave = started(OPEN)
    ann, bob = narrowed(world, enclave)
    assert revoke(enclave, list_of(world, BlockId("0" * 64))) == ""
    assert [code(world, enclave, who) for who in (ann, bob)] == ["", ""]


def test_a_list_calls_back_no_consumer_and_counts_only_where_sub_allowances_do() -> None:
    world, enclave = started(OPEN)
    ann, _ = narrowed(world, enclave)
    assert revoke(enclave, list_of(world, ann.id)) == ""
    assert code(world, enclave, TOKENS["ann"]) == ""
    world, enclave = started(Clauses(borrower=BORROWER.verify_key))
    assert revoke(enclave, list_of(world)) == "sub_allowances_off"


def test_without_a_list_in_time_nobody_is_let_in_where_the_contract_wants_one() -> None:
    world, enclave = started(replace(OPEN, revocations=True))
    with pytest.raises(Rejected, match="revocations_missing"):
        sub_of(world, enclave)
    assert code(world, enclave, TOKENS["ann"]) == "", "consumers of the contract need none"
    assert revoke(enclave, list_of(world)) == ""
    sub = sub_of(world, enclave)
    assert code(world, enclave, sub) == ""
    world.advance(55)  # an honest clock may be slow by a little
    assert world.renew(enclave)
    assert code(world, enclave, sub) == "revocations_missing", "a host that withholds the next list stops all of them"
    assert revoke(enclave, list_of(world, number=2)) == ""
    assert code(world, enclave, sub) == ""
    assert revoke(enclave, list_of(world, number=3, not_after=world.now + timedelta(days=32))) == ""
    assert code(world, enclave, sub) == "revocations_missing", "one that is good for years is none"
    with pytest.raises(Rejected, match="revocations_missing"):
        sub_of(world, enclave)


def test_who_holds_a_sub_allowance_that_has_ended_is_let_in_to_nothing() -> None:
    world, enclave = started(OPEN)
    sub_of(world, enclave, not_after=world.now + timedelta(seconds=20))
    with pytest.raises(Rejected, match="sub_allowance_expired"):
        sub_of(world, enclave, not_after=world.now)


def test_a_list_whose_end_has_passed_goes_on_to_hold() -> None:
    world, enclave = started(OPEN)
    ann, _ = narrowed(world, enclave)
    assert revoke(enclave, list_of(world, ann.id)) == ""
    world.advance(55)
    assert world.renew(enclave)
    assert code(world, enclave, ann) == "sub_allowance_revoked"


def test_parallel_requests_at_the_last_unit_are_served_once() -> None:
    world, enclave = started(OPEN, units=100, cap=100)
    sub, lock = sub_of(world, enclave, units=1), Lock()  # the shell's one lock, as in enclave.metering

    def ask(_: int) -> str:
        with lock:
            return code(world, enclave, sub)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(32)))
    assert sorted(found) == [""] + ["sub_allowance_exhausted"] * 31


def test_outputs_are_rounded_to_the_fewest_places_that_anybody_demands() -> None:
    world, enclave = started(OPEN)
    fine, coarse = sub_of(world, enclave, precision=6), sub_of(world, enclave, precision=1)
    named: Terms = replace(terms(), clauses=replace(OPEN, precision=3))
    conditions = Conditions(named, InstanceId("1" * 64))
    assert [conditions.precision(who) for who in (None, fine, coarse)] == [3, 3, 1]
    assert [enclave.holder.conditions.precision(who) for who in (None, fine)] == [None, 6]


def test_the_hours_are_utc_whatever_the_machine_thinks() -> None:
    monday = datetime(2026, 11, 23, 23, 59, tzinfo=UTC)
    named = replace(terms(), clauses=Clauses(hours=(Window(day=1, start=0, end=1440),)))
    conditions = Conditions(named, InstanceId("1" * 64))
    conditions.demand(named.models[0], None, monday)
    with pytest.raises(Rejected, match="outside_hours"):
        conditions.demand(named.models[0], None, monday + timedelta(minutes=1))


def test_guests_are_counted_as_one_and_known_apart() -> None:
    world, enclave = started(OPEN)
    first, second = sub_of(world, enclave, units=1), sub_of(world, enclave, units=2)
    assert account_of(first) == account_of(second)
    assert person_of(first) != person_of(second)
    assert person_of(None) == account_of(None)
