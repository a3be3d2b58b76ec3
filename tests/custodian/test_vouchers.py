"""Units on removable media: what a custodian signs, takes back and finds out (docs/spec/voucher.md)."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import STATEMENT, Bench, Lent, Toy

from cloister.crypto.sign import Label, SigningKey, Statement
from cloister.custodian.store.loans import balances_of, postings_of
from cloister.errors import Rejected
from cloister.lending.clock import lifetime
from cloister.lending.lease import LeaseState
from cloister.lending.ledger import OVERDRAFT, verify_postings
from cloister.lending.messages import Consumption, Voucher, VoucherRequest
from cloister.lending.terms import LOAN_METER
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    import httpx

DAY = 86_400
TERM = {"lasts_s": DAY, "units": 6}


def _lend(bench: Bench, *, overdraft: int = 0, **changes: Any) -> Lent:
    term = TERM | ({"overdraft": overdraft} if overdraft else {})
    return bench.lend(**{"allowance": 20, "max_ceiling": 2, "clauses": {"offline": term}, **changes})


def _ask(toy: Toy) -> bytes:
    assert toy.holder is not None
    return toy.holder.offline.request(toy.bench.clock(), toy.bench.rng(16))


def _sign(toy: Toy, request: bytes, **more: int) -> httpx.Response:
    return toy.bench.post(f"/v1/loans/{toy.lent.id}/vouchers", {"request": dump_b64u(request), **more})


def _vouch(toy: Toy, **more: int) -> Voucher:
    """Carry a request out and a voucher in."""
    request = _ask(toy)
    _bring(toy)
    answer = _sign(toy, request, **more)
    assert answer.status_code == 200, answer.text
    assert toy.holder is not None
    return toy.holder.offline.receive(answer.content, toy.bench.clock())


def _bring(toy: Toy) -> None:
    """Carry the usage reports out, as the folder's files."""
    assert toy.holder is not None
    for _, statement in toy.holder.usage_files():
        assert toy.send_report(statement).status_code == 200


def _tell(toy: Toy) -> bytes:
    assert toy.holder is not None
    return toy.holder.offline.consumption(toy.bench.clock())


def _settle(toy: Toy, statement: bytes, token: dict[str, str] | None = None) -> httpx.Response:
    headers = {**(token or toy.bench.admin), **STATEMENT}
    return toy.bench.client.post(f"/v1/loans/{toy.lent.id}/vouchers/settle", content=statement, headers=headers)


def _meter(lent: Lent) -> dict[str, int]:
    """Return where every unit is, once it is proven that each is somewhere (I2) and no account was overdrawn (I5)."""
    shown: dict[str, int] = lent.show()["meters"]["loan"]
    there = shown["balance"] + shown["held"] + shown["spent"] + shown["written_off"]
    assert shown["granted"] + shown["owed"] == there
    with lent.bench.service.context.reading() as connection:
        verify_postings(postings_of(connection, lent.id))
    return shown


def _code(answer: httpx.Response) -> str:
    assert answer.status_code >= 400
    return str(answer.json()["code"])


def _signed(toy: Toy, **members: object) -> bytes:
    base = VoucherRequest(
        instance=toy.id, loan=toy.lent.id, epoch=1, seq=1, req_nonce=bytes(16), used={}, reserved={},
        want={LOAN_METER: 5}, served=0, chain_head=bytes(32),
    )  # fmt: skip
    return Statement.sign(toy.key, Label.VOUCHER_REQUEST, replace(base, **members).dump()).dump()  # type: ignore[arg-type]


# --- the road that is meant ---


def test_a_voucher_is_debited_when_it_is_signed_and_served_without_any_network(bench: Bench) -> None:
    lent = _lend(bench)
    toy = lent.boot()
    voucher = _vouch(toy)
    assert voucher.limits[LOAN_METER] == 6
    assert _meter(lent) == {"balance": 14, "granted": 20, "held": 6, "owed": 0, "spent": 0, "written_off": 0}
    bench.clock.advance(DAY / 2)
    for _ in range(6):
        toy.serve()
    with pytest.raises(Rejected, match="allowance_exhausted"):
        toy.serve()
    answer = _settle(toy, _tell(toy)).json()
    assert answer["settled"] == {"loan": 6}
    assert _meter(lent)["spent"] == 6
    assert bench.kinds().count("voucher_issued") == bench.kinds().count("voucher_settled") == 1


def test_time_runs_from_the_request_not_from_when_the_voucher_arrives(bench: Bench) -> None:
    toy = _lend(bench).boot()
    assert toy.holder is not None
    answer = _sign(toy, _ask(toy))
    bench.clock.advance(DAY - 10)
    toy.holder.offline.receive(answer.content, bench.clock())
    toy.serve()
    bench.clock.advance(11)
    with pytest.raises(Rejected, match="lease_expired"):
        toy.serve()
    assert toy.holder.must_end(bench.clock())


def test_an_instance_with_a_voucher_does_not_end_after_two_lease_times(bench: Bench) -> None:
    toy = _lend(bench).boot()
    assert toy.holder is not None
    toy.renew()
    _vouch(toy)
    bench.clock.advance(130)
    assert not toy.holder.must_end(bench.clock())
    toy.serve()
    plain = bench.lend().boot()
    assert plain.holder is not None
    plain.renew()
    bench.clock.advance(121)
    assert plain.holder.must_end(bench.clock())


def test_a_clock_step_voids_the_voucher_and_leaves_its_units(bench: Bench) -> None:
    toy = _lend(bench).boot()
    assert toy.holder is not None
    _vouch(toy)
    toy.serve()
    toy.holder.void(bench.clock())  # the shell saw the machine's two clocks part
    with pytest.raises(Rejected, match="clock_step"):
        toy.serve()
    assert toy.holder.snapshot().limits[LOAN_METER] == 6
    _vouch(toy)
    toy.serve()


def test_the_staff_may_let_a_voucher_carry_less(bench: Bench) -> None:
    assert _vouch(_lend(bench).boot(), units=2).limits[LOAN_METER] == 2


def test_a_voucher_carries_no_more_than_the_allowance_has(bench: Bench) -> None:
    lent = _lend(bench, allowance=4)
    assert _vouch(lent.boot()).limits[LOAN_METER] == 4
    bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 1})
    other = lent.boot()
    bench.post(f"/v1/loans/{lent.id}/set", {"units": 0})
    assert _code(_sign(other, _ask(other))) == "allowance_exhausted"


def test_back_on_the_network_a_lease_request_from_before_is_no_fork(bench: Bench) -> None:
    lent = _lend(bench)
    toy = lent.boot()
    toy.renew()
    _vouch(toy)
    bench.clock.advance(30)
    stale = toy.request()  # signed before anything was served, and lost
    bench.clock.advance(3600)
    toy.serve(4)
    assert _settle(toy, _tell(toy)).status_code == 200
    assert toy.request() == stale
    toy.renew()
    toy.renew()
    assert toy.holder is not None
    assert toy.holder.state is LeaseState.ACTIVE
    assert _meter(lent)["spent"] == 4


def test_a_second_top_up_comes_while_the_first_is_being_used(bench: Bench) -> None:
    lent = _lend(bench)
    toy = lent.boot()
    _vouch(toy)
    toy.serve(5)
    assert _vouch(toy).limits[LOAN_METER] == 11
    toy.serve(6)
    assert _settle(toy, _tell(toy)).json()["used"] == {"loan": 11}
    assert _meter(lent)["balance"] == 9


# --- overdraft ---


def test_an_overdraft_is_served_booked_and_paid_by_the_next_top_up_first(bench: Bench) -> None:
    lent = _lend(bench, allowance=6, overdraft=3)
    toy = lent.boot()
    _vouch(toy)
    for _ in range(9):
        toy.serve()
    with pytest.raises(Rejected, match="allowance_exhausted"):
        toy.serve()
    assert _settle(toy, _tell(toy)).json()["owed"] == {"loan": 3}
    assert _meter(lent) == {"balance": 0, "granted": 6, "held": 0, "owed": 3, "spent": 9, "written_off": 0}
    answer = bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 5})
    assert answer.json()["balance"] == 2
    assert _meter(lent)["owed"] == 0
    assert "overdraft_repaid" in bench.kinds()


def test_an_overdraft_is_paid_at_once_from_what_the_allowance_still_holds(bench: Bench) -> None:
    lent = _lend(bench, overdraft=3)
    toy = lent.boot()
    _vouch(toy)
    toy.serve(8)
    toy.renew()  # the first contact, over a network this time
    assert _meter(lent)["owed"] == 0
    assert _meter(lent)["spent"] == 8


def test_no_overdraft_under_a_lease_alone(bench: Bench) -> None:
    toy = _lend(bench, overdraft=3).boot()
    toy.renew()
    toy.serve(2)
    with pytest.raises(Rejected, match="allowance_exhausted"):
        toy.serve()


def test_overdrafts_of_all_instances_and_debts_together_stay_within_the_clause(bench: Bench) -> None:
    lent = _lend(bench, overdraft=3)
    first, second = lent.boot(), lent.boot()
    assert _vouch(first).overdraft == 3
    assert _vouch(second).overdraft == 0
    bench.post(f"/v1/loans/{lent.id}/set", {"units": 0})
    first.serve(8)
    assert _settle(first, _tell(first)).json()["owed"] == {"loan": 2}
    assert _vouch(first).overdraft == 1
    for _ in range(2):
        with pytest.raises(Rejected, match="allowance_exhausted"):
            first.serve(2)
    first.serve(1)
    assert _settle(first, _tell(first)).json()["owed"] == {"loan": 3}


def test_silence_costs_the_whole_overdraft(bench: Bench) -> None:
    lent = _lend(bench, overdraft=3)
    _vouch(lent.boot())
    bench.clock.advance(lifetime(timedelta(seconds=DAY)).total_seconds() + 1)
    bench.service.sweep()
    shown = _meter(lent)
    assert (shown["written_off"], shown["balance"], shown["owed"]) == (9, 11, 0)


def test_a_close_tells_the_overdraft_exactly(bench: Bench) -> None:
    lent = _lend(bench, allowance=6, overdraft=3)
    toy = lent.boot()
    _vouch(toy)
    toy.serve(7)
    assert toy.close().status_code == 200
    shown = _meter(lent)
    assert (shown["spent"], shown["owed"], shown["written_off"]) == (7, 1, 0)


# --- files that are not what they should be ---


def test_the_same_request_again_is_the_same_voucher_and_one_debit(bench: Bench) -> None:
    lent = _lend(bench)
    toy = lent.boot()
    request = _ask(toy)
    assert len({_sign(toy, request).content for _ in range(5)}) == 1
    bench.restart()
    assert _sign(toy, request).status_code == 200
    assert lent.balance() == 14
    assert bench.kinds().count("voucher_issued") == 1


def test_an_older_request_after_a_newer_one_gets_nothing(bench: Bench) -> None:
    toy = _lend(bench).boot()
    older, newer = _ask(toy), _ask(toy)
    assert _sign(toy, newer).status_code == 200
    answer = _sign(toy, older)
    assert (answer.status_code, _code(answer)) == (409, "wrong_seq")
    assert "voucher_refused" in bench.kinds()


def test_two_requests_with_one_number_are_a_fork(bench: Bench) -> None:
    lent = _lend(bench)
    toy = lent.boot()
    assert _sign(toy, _signed(toy)).status_code == 200
    assert _code(_sign(toy, _signed(toy, req_nonce=b"another nonce 16"))) == "fork_detected"
    assert lent.show()["instances"][0]["state"] == "forked"
    assert "fork_detected" in bench.kinds()


def test_a_request_that_counts_beyond_its_ceiling_is_an_alarm(bench: Bench) -> None:
    toy = _lend(bench).boot()
    assert _code(_sign(toy, _signed(toy, used={LOAN_METER: 1}))) == "overdrawn"


def test_a_request_of_another_loan_or_not_signed_by_its_instance_is_refused(bench: Bench) -> None:
    lent, other = _lend(bench), _lend(bench)
    toy = lent.boot()
    wrong = bench.post(f"/v1/loans/{other.id}/vouchers", {"request": dump_b64u(_ask(toy))})
    assert _code(wrong) == "wrong_loan"
    toy.key = SigningKey(bytes(32))
    assert _code(_sign(toy, _signed(toy))) in ("unknown_key", "signature_invalid")
    assert _sign(toy, b"{}").status_code == 400


def test_a_voucher_edited_by_one_unit_is_refused(bench: Bench) -> None:
    toy = _lend(bench).boot()
    assert toy.holder is not None
    answer = Statement.parse(_sign(toy, _ask(toy)).content, label=Label.VOUCHER)
    more = replace(Voucher.parse(answer.payload), limits={LOAN_METER: 7}).dump()
    with pytest.raises(Rejected, match="signature_invalid"):
        toy.holder.offline.receive(replace(answer, payload=more).dump(), bench.clock())


def test_a_voucher_is_taken_once_and_only_for_the_latest_request(bench: Bench) -> None:
    toy = _lend(bench).boot()
    assert toy.holder is not None
    first = _sign(toy, _ask(toy)).content
    second = _sign(toy, _ask(toy)).content
    with pytest.raises(Rejected, match="not_pending"):
        toy.holder.offline.receive(first, bench.clock())
    toy.holder.offline.receive(second, bench.clock())
    with pytest.raises(Rejected, match="not_pending"):
        toy.holder.offline.receive(second, bench.clock())


def test_a_voucher_of_another_instance_or_of_the_life_before_is_refused(bench: Bench) -> None:
    lent = _lend(bench)
    toy, other = lent.boot(), lent.boot()
    assert other.holder is not None
    _ask(other)
    answer = _sign(toy, _ask(toy)).content
    with pytest.raises(Rejected, match="wrong_instance"):
        other.holder.offline.receive(answer, bench.clock())


def test_a_lease_is_no_voucher_and_a_voucher_no_lease(bench: Bench) -> None:
    toy = _lend(bench).boot()
    assert toy.holder is not None
    lease, voucher = toy.send(toy.request()).content, _sign(toy, _ask(toy)).content
    with pytest.raises(Rejected, match="wrong_statement"):
        toy.holder.offline.receive(lease, bench.clock())
    with pytest.raises(Rejected, match="wrong_statement"):
        toy.holder.receive(voucher, bench.clock())


def test_a_voucher_older_than_a_block_that_the_enclave_knows_is_ignored(bench: Bench) -> None:
    toy = _lend(bench).boot()
    assert toy.holder is not None
    voucher = _sign(toy, _ask(toy)).content
    other = bench.lend()
    bench.post("/v1/blocks", {"kind": "loan", "subject": other.id, "reason": ""})
    toy.renew()
    with pytest.raises(Rejected, match="stale_block_version"):
        toy.holder.offline.receive(voucher, bench.clock())
    assert toy.holder.snapshot().limits[LOAN_METER] == 6  # its units came with the lease: nothing is stranded


def test_media_that_never_arrive_are_written_off_at_the_vouchers_end(bench: Bench) -> None:
    lent = _lend(bench)
    toy = lent.boot()
    _sign(toy, _ask(toy))
    bench.clock.advance(DAY - 60)
    bench.service.sweep()
    assert _meter(lent)["held"] == 6
    bench.clock.advance(200)
    bench.service.sweep()
    assert _meter(lent) == {"balance": 14, "granted": 20, "held": 0, "owed": 0, "spent": 0, "written_off": 6}
    assert toy.holder is not None
    assert toy.holder.must_end(bench.clock())


def test_no_voucher_without_an_offline_term_or_for_what_is_blocked(bench: Bench) -> None:
    plain = bench.lend().boot()
    with pytest.raises(Rejected, match="no_offline_term"):
        _ask(plain)
    assert _code(_sign(plain, _signed(plain))) == "no_offline_term"
    lent = _lend(bench)
    toy = lent.boot()
    request = _ask(toy)
    bench.post("/v1/blocks", {"kind": "loan", "subject": lent.id, "reason": ""})
    assert _code(_sign(toy, request)) == "blocked"


@pytest.mark.parametrize("role", ["auditor", "borrower"])
def test_only_who_manages_loans_signs_vouchers(bench: Bench, role: str) -> None:
    lent = _lend(bench)
    toy = lent.boot()
    token = lent.token if role == "borrower" else bench.token(role)
    answer = bench.post(f"/v1/loans/{lent.id}/vouchers", {"request": dump_b64u(_ask(toy))}, token=token)
    assert answer.status_code == 403


# --- statements ---


def test_a_borrower_may_bring_its_own_statement_and_a_replay_changes_nothing(bench: Bench) -> None:
    lent = _lend(bench)
    toy = lent.boot()
    _vouch(toy)
    toy.serve(2)
    older, newer = _tell(toy), None
    toy.serve(1)
    newer = _tell(toy)
    assert _settle(toy, newer, lent.token).json()["settled"] == {"loan": 3}
    for again in (newer, older, older):
        assert _settle(toy, again).json()["settled"] == {}
    assert _meter(lent)["spent"] == 3
    assert bench.kinds().count("voucher_settled") == 1


def test_statements_of_two_copies_of_one_memory_are_a_fork(bench: Bench) -> None:
    lent = _lend(bench)
    toy = lent.boot()
    _vouch(toy)
    toy.serve(1)
    copied = copy.copy(toy)
    copied.holder = copy.deepcopy(toy.holder, {id(toy.key): toy.key})
    toy.serve(3)
    assert _settle(toy, _tell(toy)).status_code == 200
    copied.serve(1)
    assert _code(_settle(toy, _tell(copied))) == "fork_detected"  # the same number, another count
    assert lent.show()["instances"][0]["state"] == "forked"


def test_a_later_number_with_a_smaller_count_is_a_fork(bench: Bench) -> None:
    toy = _lend(bench).boot()
    _vouch(toy)
    copied = copy.copy(toy)
    copied.holder = copy.deepcopy(toy.holder, {id(toy.key): toy.key})
    toy.serve(3)
    assert _settle(toy, _tell(toy)).status_code == 200
    _tell(copied)
    assert _code(_settle(toy, _tell(copied))) == "fork_detected"


def test_a_statement_beyond_the_reach_of_its_voucher_is_an_alarm(bench: Bench) -> None:
    lent = _lend(bench, overdraft=3)
    toy = lent.boot()
    _vouch(toy)
    toy.serve(1)
    honest = Consumption.parse(Statement.parse(_tell(toy), label=Label.CONSUMPTION).payload)
    false = replace(honest, used={LOAN_METER: 10}).dump()
    assert _code(_settle(toy, Statement.sign(toy.key, Label.CONSUMPTION, false).dump())) == "overdrawn"
    assert _meter(lent)["spent"] == 0


def test_a_statement_about_a_voucher_that_nobody_signed_is_refused(bench: Bench) -> None:
    toy = _lend(bench).boot()
    _vouch(toy)
    honest = Consumption.parse(Statement.parse(_tell(toy), label=Label.CONSUMPTION).payload)
    false = Statement.sign(toy.key, Label.CONSUMPTION, replace(honest, voucher=bytes(32)).dump()).dump()
    assert _code(_settle(toy, false)) == "voucher_unknown"
    assert toy.holder is not None


def test_an_enclave_without_a_voucher_has_nothing_to_state(bench: Bench) -> None:
    toy = _lend(bench).boot()
    with pytest.raises(Rejected, match="voucher_unknown"):
        _tell(toy)


def test_a_statement_after_the_end_moves_nothing(bench: Bench) -> None:
    lent = _lend(bench)
    toy = lent.boot()
    _vouch(toy)
    toy.serve(2)
    statement = _tell(toy)
    bench.clock.advance(2 * DAY)
    bench.service.sweep()
    assert _settle(toy, statement).json()["settled"] == {}
    assert _meter(lent)["written_off"] == 6


# --- the kill switch says the truth ---


def test_a_block_prints_the_vouchers_end_and_its_overdraft_and_then_it_is_true(bench: Bench) -> None:
    lent = _lend(bench, overdraft=3)
    toy = lent.boot()
    assert toy.holder is not None
    _vouch(toy)
    bench.clock.advance(1000)
    answer = bench.post("/v1/blocks", {"kind": "loan", "subject": lent.id, "reason": ""}).json()
    bound = answer["bound"]
    assert (bound["seconds"], bound["units"]) == (int(lifetime(timedelta(seconds=DAY)).total_seconds()) - 1000 + 1, 9)
    toy.serve(9)  # it never heard of the block: up to the bound it serves
    bench.clock.advance(bound["seconds"])
    with pytest.raises(Rejected):
        toy.serve()


def test_a_stop_that_the_network_brings_ends_the_voucher_too(bench: Bench) -> None:
    lent = _lend(bench)
    toy = lent.boot()
    assert toy.holder is not None
    _vouch(toy)
    bench.post("/v1/blocks", {"kind": "loan", "subject": lent.id, "reason": ""})
    toy.renew()
    with pytest.raises(Rejected, match="blocked"):
        toy.serve()
    assert toy.holder.must_end(bench.clock())


def test_the_ledger_has_an_account_for_what_is_owed(bench: Bench) -> None:
    lent = _lend(bench, allowance=6, overdraft=3)
    toy = lent.boot()
    _vouch(toy)
    toy.serve(9)
    _settle(toy, _tell(toy))
    with bench.service.context.reading() as connection:
        booked = [item for item in postings_of(connection, lent.id) if item.debit_account == OVERDRAFT]
        assert sum(item.units for item in booked) == 3
        assert balances_of(connection, lent.id)[LOAN_METER] == 0
