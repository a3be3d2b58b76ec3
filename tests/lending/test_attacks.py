"""Attacks T31 to T52 of the threat model and list 7.5 of the bad inputs, one test each.

T39 and T45 with real processes and threads, T43 (units are computed by the engine) and T51 (a server's
limits) are in the tests of ``custodian`` and ``enclave``; here is their pure part.
"""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import timedelta

import pytest
from custodian_fake import Crash, instance_key
from world import TOKENS, Enclave, World, terms

from cloister.crypto.sign import Label, SigningKey, Statement
from cloister.errors import CloisterError, Malformed, Rejected, Unavailable
from cloister.lending.ending import decide_close
from cloister.lending.lease import LeaseState, parse_answer
from cloister.lending.lease_grant import LeaseDecision, Replay, decide_lease, verify_epoch, verify_request
from cloister.lending.messages import Close, Lease, LeaseRequest, Refusal
from cloister.lending.receipt import fork_evidence
from cloister.lending.state import AlarmKind, InstanceState, InstanceStatus, LoanState
from cloister.lending.terms import LOAN_METER, MAX_UNITS, LoanId, Meter
from cloister.lending.usage_report import Reported


def started(units: int = 9, cap: int = 2, *, lease: bool = True) -> tuple[World, Enclave]:
    world = World((terms(cap=cap), units))
    enclave = world.launch()
    assert enclave is not None
    if lease:
        assert world.renew(enclave)
    return world, enclave


def code(world: World, enclave: Enclave, units: int = 1, model: str = "plain", consumer: str = "ann") -> str:
    """Return why the enclave will not serve."""
    with pytest.raises(Rejected) as caught:
        enclave.holder.reserve(model, TOKENS[consumer], units, enclave.time(world.now))
    return caught.value.code


def signed_answer(world: World, enclave: Enclave) -> tuple[int, Lease]:
    """Return an answer on its way to the enclave."""
    sent = world.send(enclave)
    assert sent is not None
    answer = world.carry(sent)
    assert answer is not None
    lease = parse_answer(world.answers[answer], world.custodian.key.verify_key)
    assert isinstance(lease, Lease)
    return answer, lease


def state_of(world: World, enclave: Enclave) -> tuple[InstanceState, LoanState]:
    return world.custodian.db.instances[enclave.id], world.custodian.db.loans[world.loan]


def decided(world: World, enclave: Enclave, request: LeaseRequest) -> LeaseDecision | Replay:
    instance, loan = state_of(world, enclave)
    digest = verify_request(
        Statement.sign(enclave.key, LeaseRequest.LABEL, request.dump()).dump(), enclave.key.verify_key
    )[1]
    reported = world.custodian.db.reported(enclave.id, request.served)
    return decide_lease(request, digest, instance=instance, loan=loan, reported=reported, epoch=1, now=world.now)


def a_request(enclave: Enclave, **members: object) -> LeaseRequest:
    """Return the next request this enclave could sign, with some members changed."""
    view = enclave.holder.snapshot()
    request = LeaseRequest(
        instance=enclave.id,
        epoch=1,
        seq=view.seq + 1,
        req_nonce=bytes(16),
        used=view.used,
        reserved={},
        want={LOAN_METER: 100},
        served=view.served,
        chain_head=view.chain_head,
    )
    return replace(request, **members)  # type: ignore[arg-type]  # the names are the caller's


# --- T31 to T33: rollback, clone, copy ---


def test_t31_a_machine_rolled_back_boots_with_ceiling_zero() -> None:
    world, enclave = started(units=3)
    assert world.serve(enclave, 2) == 2
    again = world.relaunch(enclave)
    assert again is not None
    assert again.id != enclave.id
    assert again.holder.snapshot().limits == {}
    assert again.holder.state is LeaseState.STARTING
    assert code(world, again) == "lease_expired"
    world.renew(again)
    assert world.serve(again, 1) == 1
    assert code(world, again) == "allowance_exhausted"


def test_t32_a_lease_of_one_instance_is_refused_by_another() -> None:
    world, first = started(lease=False)
    second = world.launch()
    assert second is not None
    world.send(second)
    answer, _ = signed_answer(world, first)
    with pytest.raises(Rejected) as caught:
        second.holder.receive(world.answers[answer], world.now)
    assert caught.value.code == "wrong_instance"
    assert second.holder.snapshot().limits == {}


def test_t33_a_copied_memory_is_noticed_when_the_second_copy_asks() -> None:
    world, enclave = started()
    twin = world.fork(enclave)
    world.serve(enclave)
    world.advance(20)
    assert world.renew(enclave)
    assert not world.renew(twin)
    assert twin.holder.state is LeaseState.REVOKED
    assert [alarm.kind for alarm in world.custodian.alarms] == [AlarmKind.FORK]
    assert world.custodian.db.instances[enclave.id].status is InstanceStatus.FORKED
    world.advance(20)
    assert not world.renew(enclave)
    assert enclave.holder.must_end(enclave.time(world.now))


def test_t33_two_receipts_of_one_place_prove_the_copy() -> None:
    world, enclave = started()
    twin = world.fork(enclave)
    world.serve(enclave)
    world.serve(twin)
    first, second = world.receipts
    evidence = fork_evidence(first, second)
    assert evidence is not None
    assert (evidence.instance, evidence.index) == (enclave.id, 1)
    assert fork_evidence(first, first) is None
    assert fork_evidence(first, replace(second, index=2)) is None


def test_t33_a_copy_lives_no_longer_than_t() -> None:
    world, enclave = started(units=90, cap=50)
    twin = world.fork(enclave)
    assert world.serve(twin) == 1
    world.advance(60.1)
    assert world.serve(twin) == 0


# --- T34 to T36: replay, delay, cut ---


def test_t34_an_answer_delivered_a_hundred_times_changes_nothing_more() -> None:
    world, enclave = started(lease=False)
    answer, _ = signed_answer(world, enclave)
    world.deliver(answer, enclave)
    before = enclave.holder.snapshot()
    for _ in range(100):
        with pytest.raises(Rejected) as caught:
            enclave.holder.receive(world.answers[answer], enclave.time(world.now))
        assert caught.value.code == "not_pending"
    assert enclave.holder.snapshot() == before


def test_t35_an_answer_held_back_gives_units_but_no_time() -> None:
    world, enclave = started(lease=False)
    answer, _ = signed_answer(world, enclave)
    world.advance(10 * 60)
    enclave.holder.receive(world.answers[answer], enclave.time(world.now))
    assert enclave.holder.snapshot().limits[LOAN_METER] == 2
    assert enclave.holder.state is LeaseState.EXPIRED
    assert code(world, enclave) == "lease_expired"


def test_t35_time_runs_from_the_first_sending_not_from_a_retry() -> None:
    world, enclave = started(lease=False)
    first = world.send(enclave)
    assert first is not None
    sent_at = enclave.time(world.now)
    world.advance(40)
    second = world.send(enclave)
    assert second is not None
    assert world.requests[first] == world.requests[second]
    answer = world.carry(second)
    assert answer is not None
    world.deliver(answer, enclave)
    assert enclave.holder.deadline == sent_at + timedelta(seconds=60)


@pytest.mark.parametrize("step", ["before request", "request sent", "answered", "delivered"])
def test_t36_a_network_cut_anywhere_ends_serving_within_the_bound(step: str) -> None:
    world, enclave = started(units=99, cap=90)
    world.advance(20)
    if step != "before request":
        sent = world.send(enclave)
        assert sent is not None
        if step != "request sent":
            answer = world.carry(sent)
            assert answer is not None
            if step == "delivered":
                world.deliver(answer, enclave)
    blocked_at = world.now
    world.block("loan", world.loan)
    last = blocked_at
    for _ in range(100):
        world.advance(1)
        if world.serve(enclave):
            last = world.now
    assert last < blocked_at + timedelta(seconds=60 * 1.001 + 1)
    assert world.chunks


# --- T37: the enclave's clock ---


@pytest.mark.parametrize("step", [-3600, -30])
def test_t37_a_clock_set_back_voids_the_lease_and_the_count_holds(step: int) -> None:
    world, enclave = started(units=3)
    world.advance(40)
    enclave.holder.must_end(enclave.time(world.now))
    world.step_clock(enclave, step)
    assert code(world, enclave) == "clock_step"
    assert enclave.holder.deadline is None
    world.renew(enclave)
    assert world.serve(enclave, 2) == 2
    assert world.serve(enclave) == 0


def test_t37_an_answer_to_a_request_before_the_step_gives_no_time() -> None:
    world, enclave = started(lease=False)
    answer, _ = signed_answer(world, enclave)
    world.step_clock(enclave, -3600)
    world.deliver(answer, enclave)
    assert enclave.holder.snapshot().limits[LOAN_METER] == 2
    assert code(world, enclave) == "clock_step"
    assert world.renew(enclave)
    assert world.serve(enclave) == 1


def test_t37_a_clock_set_forward_only_ends_the_lease_sooner() -> None:
    world, enclave = started()
    world.step_clock(enclave, 3600)
    assert code(world, enclave) == "lease_expired"
    assert enclave.holder.must_end(enclave.time(world.now))


def test_t37_a_frozen_clock_wins_at_most_n_units() -> None:
    world, enclave = started(units=99, cap=5)
    world.freeze_clock(enclave)
    world.block("loan", world.loan)
    world.advance(10**6)
    assert sum(world.serve(enclave) for _ in range(20)) == 5


def test_t37_stepping_the_clock_does_not_put_off_the_end() -> None:
    world, enclave = started()
    for _ in range(13):
        world.advance(10)
        enclave.holder.must_end(enclave.time(world.now))
        world.step_clock(enclave, -5)
        enclave.holder.must_end(enclave.time(world.now))
    assert enclave.holder.must_end(enclave.time(world.now))


# --- T38 to T40: the custodian's database and its crashes ---


def test_t38_an_older_database_does_not_start_until_recovered() -> None:
    world, enclave = started(units=2)
    old = world.custodian.db.copy()
    world.advance(20)
    world.renew(enclave)
    world.custodian.restore(old)
    with pytest.raises(Rejected) as caught:
        world.custodian.start()
    assert {reason.code for reason in caught.value.reasons} == {"database_older"}
    with pytest.raises(Unavailable):
        world.custodian.lease(enclave.id, world.requests[-1][1], world.now)


def test_t38_recovery_waits_fences_and_writes_off() -> None:
    world = World((terms(), 5))
    world.backup()
    enclave = world.launch()
    assert enclave is not None
    world.renew(enclave)
    world.serve(enclave, 2)
    world.restore()
    db = world.custodian.db
    assert db.epoch == 2
    assert db.loans[world.loan].balances[LOAN_METER] == 0  # 2 units on each of 3 meters were lost: 6 in all
    assert world.launch() is None  # quiet, and nothing left
    world.top_up(world.loan, 5)
    assert world.launch() is None
    world.advance(62)
    again = world.launch()
    assert again is not None
    assert world.renew(again)


def test_t39_a_custodian_whose_epoch_was_taken_over_is_fenced() -> None:
    verify_epoch(held=3, stored=3)
    with pytest.raises(Unavailable, match="fenced"):
        verify_epoch(held=3, stored=4)


@pytest.mark.parametrize("point", ["before commit", "after commit", "before answer"])
def test_t40_a_crash_around_the_commit_costs_one_debit_and_repeats_the_same_bytes(point: str) -> None:
    world, enclave = started(lease=False)
    sent = world.send(enclave)
    assert sent is not None
    world.crash_custodian(point)
    with pytest.raises(Crash):
        world.custodian.lease(enclave.id, world.requests[sent][1], world.now)
    world.restart_custodian()
    first = world.custodian.lease(enclave.id, world.requests[sent][1], world.now)
    world.top_up(world.loan, 5)
    world.block("model", world.loans[world.loan].models[1].digest)
    assert world.custodian.lease(enclave.id, world.requests[sent][1], world.now) == first
    assert world.custodian.db.instances[enclave.id].limits[LOAN_METER] == 2


# --- T41, T42, T46, T47: what a lying borrower may say ---


def test_t41_reporting_nothing_forever_serves_no_more_than_n() -> None:
    world, enclave = started(units=99, cap=5)
    for seq in range(2, 50):
        decision = decided(world, enclave, a_request(enclave, seq=seq, used={}, want={LOAN_METER: 10**9}))
        assert isinstance(decision, LeaseDecision)
        assert decision.instance.limits[LOAN_METER] == 5
        world.custodian.db.instances[enclave.id] = decision.instance


def test_t42_an_instance_of_one_loan_gets_nothing_from_another() -> None:
    world, enclave = started()
    world.add_loan(terms(2), 9)
    other = LoanId("loan-" + "c" * 16)
    instance, _ = state_of(world, enclave)
    loan = world.custodian.db.loans[other]
    with pytest.raises(Rejected) as caught:
        decide_lease(
            a_request(enclave), bytes(32), instance=instance, loan=loan, reported=Reported(), epoch=1, now=world.now
        )
    assert caught.value.code == "wrong_instance"
    close = Close(instance=enclave.id, epoch=1, seq=9, used={}, served=0, chain_head=bytes(32))
    with pytest.raises(Rejected, match="wrong_instance"):
        decide_close(close, instance=instance, loan=loan, reported=Reported(), now=world.now)


def test_t42_a_request_signed_by_another_key_touches_nothing() -> None:
    world, enclave = started()
    stranger, _ = instance_key("stranger")
    statement = Statement.sign(stranger, LeaseRequest.LABEL, a_request(enclave).dump()).dump()
    before = world.custodian.db
    with pytest.raises(Rejected) as caught:
        world.custodian.lease(enclave.id, statement, world.now)
    assert caught.value.code == "unknown_key"
    assert world.custodian.db is before


@pytest.mark.parametrize("units", [-1, 2**53, 2**63, 2**64, 1.0, 1.5, True, "5", None, float("nan")])
def test_t46_units_that_are_no_units_do_not_parse(units: object) -> None:
    _, enclave = started()
    good = a_request(enclave).dump()
    assert b'"want":{"loan":100}' in good
    spelled = {True: b"true", None: b"null"}.get(units, str(units).encode())  # type: ignore[call-overload]  # hashable all
    if isinstance(units, str):
        spelled = b'"5"'
    with pytest.raises(Malformed):
        LeaseRequest.parse(good.replace(b'"want":{"loan":100}', b'"want":{"loan":' + spelled + b"}"))


def test_t46_the_largest_want_is_capped_like_any_other() -> None:
    world, enclave = started(units=9, cap=4)
    decision = decided(world, enclave, a_request(enclave, want={LOAN_METER: MAX_UNITS}))
    assert isinstance(decision, LeaseDecision)
    assert decision.instance.limits[LOAN_METER] == 4


def test_t46_a_want_for_a_meter_that_the_loan_has_not_is_ignored() -> None:
    world, enclave = started()
    decision = decided(world, enclave, a_request(enclave, want={Meter("model:other"): 5}))
    assert isinstance(decision, LeaseDecision)
    assert Meter("model:other") not in decision.instance.limits
    assert decision.debits == {}


def test_t47_a_lease_with_any_member_changed_is_refused() -> None:
    world, enclave = started(lease=False)
    _, lease = signed_answer(world, enclave)
    forger = SigningKey(b"f" * 32)
    for field in fields(Lease):
        forged = Statement.sign(forger, Lease.LABEL, lease.dump())
        for bad in (forged, replace(forged, key_id=world.custodian.key.key_id)):
            with pytest.raises(Rejected) as caught:
                enclave.holder.receive(bad.dump(), world.now)
            assert caught.value.code in {"unknown_key", "signature_invalid"}, field.name
    changes = {
        "instance": ("0" * 64, "wrong_instance"),
        "epoch": (0, None),
        "req_digest": (bytes(32), "not_pending"),
    }
    for name, (value, want) in changes.items():
        changed = replace(lease, **{name: value})  # type: ignore[arg-type]  # by name
        statement = Statement.sign(world.custodian.key, Lease.LABEL, changed.dump()).dump()
        with pytest.raises(CloisterError) as caught_too:
            enclave.holder.receive(statement, world.now)
        if want is not None:
            assert isinstance(caught_too.value, Rejected)
            assert caught_too.value.code == want
    assert enclave.holder.snapshot().limits == {}


def test_t47_an_older_epoch_is_refused() -> None:
    world, enclave = started()
    _, lease = signed_answer(world, enclave)
    newer = Statement.sign(world.custodian.key, Lease.LABEL, replace(lease, epoch=5).dump()).dump()
    enclave.holder.receive(newer, world.now)
    assert world.send(enclave) is not None
    pending = verify_request(world.requests[-1][1], enclave.key.verify_key)[1]
    older = replace(lease, epoch=4, req_digest=pending)
    statement = Statement.sign(world.custodian.key, Lease.LABEL, older.dump()).dump()
    with pytest.raises(Rejected) as caught:
        enclave.holder.receive(statement, world.now)
    assert caught.value.code == "stale_epoch"


@pytest.mark.parametrize("label", [label for label in Label if label not in (Label.LEASE, Label.REFUSAL)])
def test_t91_no_other_statement_passes_for_a_lease(label: Label) -> None:
    world, enclave = started(lease=False)
    _, lease = signed_answer(world, enclave)
    with pytest.raises(Rejected) as caught:
        enclave.holder.receive(Statement.sign(world.custodian.key, label, lease.dump()).dump(), world.now)
    assert caught.value.code == "wrong_statement"


# --- T48 to T52 ---


def test_t48_an_old_unblock_does_not_bring_back_what_is_blocked() -> None:
    world, enclave = started()
    _, unblocked = signed_answer(world, enclave)
    world.deliver(len(world.answers) - 1, enclave)
    world.block("model", world.loans[world.loan].models[0].digest)
    world.advance(20)
    world.renew(enclave)
    assert code(world, enclave) == "blocked"
    _, lease = signed_answer(world, enclave)
    old = replace(lease, models=unblocked.models, block_version=unblocked.block_version)
    with pytest.raises(Rejected) as caught:
        enclave.holder.receive(Statement.sign(world.custodian.key, Lease.LABEL, old.dump()).dump(), world.now)
    assert caught.value.code == "stale_block_version"
    assert code(world, enclave) == "blocked"


def test_t49_a_long_stream_is_cut_when_the_lease_ends() -> None:
    world = World((terms(cap=600, ttl=5), 600))
    enclave = world.launch()
    assert enclave is not None
    world.renew(enclave)
    stream = world.begin(enclave, 600)
    assert stream is not None
    started_at = world.now
    for _ in range(600):
        world.advance(1)
        world.chunk(enclave, stream)
    assert world.chunks[-1].at <= started_at + timedelta(seconds=5 * 1.001 + 1)
    with pytest.raises(Rejected) as caught:
        enclave.holder.permit(stream.reservation, stream.produced + 1, enclave.time(world.now))
    assert caught.value.code == "lease_expired"
    assert world.finish(enclave, stream) is None
    assert enclave.holder.snapshot().used == {LOAN_METER: stream.produced}


def test_t50_a_close_gives_nothing_back() -> None:
    world, enclave = started(units=2)
    world.close(enclave)
    assert world.custodian.db.loans[world.loan].balances[LOAN_METER] == 0
    assert world.custodian.db.instances[enclave.id].status is InstanceStatus.CLOSED


@pytest.mark.parametrize(("wanted", "clone_proof", "back"), [(True, True, 2), (True, False, 0), (False, True, 0)])
def test_t50_a_refund_takes_a_policy_that_excludes_copies(*, wanted: bool, clone_proof: bool, back: int) -> None:
    world, enclave = started(units=2)
    instance, loan = state_of(world, enclave)
    close = Close(instance=enclave.id, epoch=1, seq=9, used={}, served=0, chain_head=bytes(32))
    decision = decide_close(
        close,
        instance=replace(instance, clone_proof=clone_proof),
        loan=replace(loan, refund_on_close=wanted),
        reported=Reported(),
        now=world.now,
    )
    assert decision is not None
    assert decision.credits.get(LOAN_METER, 0) == back


def a_close(enclave: Enclave, **members: object) -> Close:
    close = Close(instance=enclave.id, epoch=1, seq=9, used={}, served=0, chain_head=bytes(32))
    return replace(close, **members)  # type: ignore[arg-type]  # the names are the caller's


def test_t50_a_close_with_counters_that_do_not_fit_is_an_alarm_and_gives_nothing_back() -> None:
    world, enclave = started()
    world.serve(enclave, 2)
    world.advance(20)
    world.renew(enclave)
    instance, loan = state_of(world, enclave)
    instance, loan = replace(instance, clone_proof=True), replace(loan, refund_on_close=True)
    for used, kind, status in (
        ({}, AlarmKind.FORK, InstanceStatus.FORKED),
        ({LOAN_METER: 99}, AlarmKind.OVERDRAWN, InstanceStatus.OVERDRAWN),
    ):
        decision = decide_close(
            a_close(enclave, used=used), instance=instance, loan=loan, reported=Reported(), now=world.now
        )
        assert decision is not None
        assert ([alarm.kind for alarm in decision.alarms], decision.instance.status) == ([kind], status)
        assert (decision.credits, decision.postings) == ({}, ())


def test_t50_a_blocked_or_dead_instance_gets_nothing_back() -> None:
    world, enclave = started()
    instance, loan = state_of(world, enclave)
    instance, loan = replace(instance, clone_proof=True), replace(loan, refund_on_close=True)
    blocked = replace(instance, status=InstanceStatus.BLOCKED)
    for state, now in ((blocked, world.now), (instance, instance.dead_at)):
        decision = decide_close(a_close(enclave), instance=state, loan=loan, reported=Reported(), now=now)
        assert decision is not None
        assert decision.credits == {}


def test_bad_77_a_close_with_an_old_number_is_refused() -> None:
    world, enclave = started()
    instance, loan = state_of(world, enclave)
    with pytest.raises(Rejected, match="wrong_seq"):
        decide_close(
            a_close(enclave, seq=instance.seq), instance=instance, loan=loan, reported=Reported(), now=world.now
        )


def test_c4_an_instance_whose_policy_changed_or_whose_evidence_is_old_is_stopped_with_all_reasons() -> None:
    world, enclave = started()
    instance, loan = state_of(world, enclave)
    changed = replace(loan, policy_digest="d" * 64, evidence_age=timedelta(0), blocked=True)
    request = a_request(enclave)
    decision = decide_lease(
        request, bytes(32), instance=instance, loan=changed, reported=Reported(), epoch=2, now=instance.dead_at
    )
    assert isinstance(decision, LeaseDecision)
    assert isinstance(decision.reply, Refusal)
    assert decision.reply.stop
    assert [reason.code for reason in decision.reply.reasons] == [
        "stale_epoch",
        "blocked",
        "policy_changed",
        "evidence_too_old",
        "instance_dead",
    ]
    assert decision.instance.status is InstanceStatus.FENCED
    assert decision.instance.written_off


@pytest.mark.parametrize("status", [status for status in InstanceStatus if status is not InstanceStatus.ACTIVE])
def test_c4_an_instance_that_is_not_active_is_stopped_for_good(status: InstanceStatus) -> None:
    world, enclave = started()
    instance, loan = state_of(world, enclave)
    for written_off in (False, True):
        state = replace(instance, status=status, written_off=written_off)
        decision = decide_lease(
            a_request(enclave), bytes(32), instance=state, loan=loan, reported=Reported(), epoch=1, now=world.now
        )
        assert isinstance(decision, LeaseDecision)
        assert isinstance(decision.reply, Refusal)
        assert decision.reply.stop
        assert decision.debits == {}
        assert decision.instance.status is status


def test_t51_a_request_costs_no_state_before_its_key_is_proven() -> None:
    world, enclave = started()
    before = world.custodian.db
    for junk in (b"", b"{}", b"x" * 100, a_request(enclave).dump()):
        with pytest.raises(CloisterError):
            world.custodian.lease(enclave.id, junk, world.now)
    with pytest.raises(Rejected):
        world.custodian.lease("0" * 64, world.requests[0][1], world.now)  # type: ignore[arg-type]  # no such instance
    assert world.custodian.db is before


def test_t51_instances_of_one_loan_are_capped() -> None:
    world = World((terms(instances=2, cap=1), 99))
    assert world.launch()
    assert world.launch()
    assert world.launch() is None


def test_t52_a_custodian_clock_behind_its_database_stops_it() -> None:
    world, enclave = started()
    sent = world.send(enclave)
    assert sent is not None
    world.set_custodian_clock(-3600)
    with pytest.raises(Unavailable, match="behind the database"):
        world.custodian.lease(enclave.id, world.requests[sent][1], world.custodian_now())
    world.set_custodian_clock(-4)
    assert world.custodian.lease(enclave.id, world.requests[sent][1], world.custodian_now())


def test_t90_a_block_between_two_steps_is_seen_by_the_decision() -> None:
    world, enclave = started()
    sent = world.send(enclave)
    assert sent is not None
    world.block("loan", world.loan)
    answer = world.carry(sent)
    assert answer is not None
    refusal = parse_answer(world.answers[answer], world.custodian.key.verify_key)
    assert isinstance(refusal, Refusal)
    assert refusal.stop
    assert [reason.code for reason in refusal.reasons] == ["blocked"]


# --- list 7.5: numbers that do not fit ---


@pytest.mark.parametrize("off", [-1, 2])
def test_bad_77_a_number_that_is_not_the_next_is_refused(off: int) -> None:
    world, enclave = started()
    world.renew(enclave)
    seq = world.custodian.db.instances[enclave.id].seq
    with pytest.raises(Rejected) as caught:
        decided(world, enclave, a_request(enclave, seq=seq + off))
    assert caught.value.code == "wrong_seq"


def test_bad_79_two_requests_with_one_number_block_the_instance() -> None:
    world, enclave = started()
    decision = decided(world, enclave, a_request(enclave, seq=1, req_nonce=b"n" * 16))
    assert isinstance(decision, LeaseDecision)
    assert decision.instance.status is InstanceStatus.FORKED
    assert decision.debits == {}
    assert [alarm.kind for alarm in decision.alarms] == [AlarmKind.FORK]


def test_bad_80_less_used_than_before_is_fork_evidence() -> None:
    world, enclave = started()
    world.serve(enclave, 2)
    world.advance(20)
    world.renew(enclave)
    decision = decided(world, enclave, a_request(enclave, used={LOAN_METER: 1}))
    assert isinstance(decision, LeaseDecision)
    assert decision.instance.status is InstanceStatus.FORKED
    assert decision.instance.used == {LOAN_METER: 2}


@pytest.mark.parametrize(
    "members", [{"used": {LOAN_METER: 3}}, {"reserved": {LOAN_METER: 3}}, {"used": {Meter("model:x"): 1}}]
)
def test_bad_81_more_used_than_the_limit_is_refused_with_an_alarm(members: dict[str, object]) -> None:
    world, enclave = started()
    decision = decided(world, enclave, a_request(enclave, **members))
    assert isinstance(decision, LeaseDecision)
    assert isinstance(decision.reply, Refusal)
    assert decision.reply.stop
    assert decision.instance.status is InstanceStatus.OVERDRAWN
    assert [alarm.kind for alarm in decision.alarms] == [AlarmKind.OVERDRAWN]
    assert decision.postings == ()


def test_bad_84_a_lower_limit_than_known_is_ignored() -> None:
    world, enclave = started()
    _, lease = signed_answer(world, enclave)
    lower = replace(lease, limits={LOAN_METER: 1})
    enclave.holder.receive(Statement.sign(world.custodian.key, Lease.LABEL, lower.dump()).dump(), world.now)
    assert enclave.holder.snapshot().limits[LOAN_METER] == 2


def test_bad_85_a_lease_signed_by_a_retired_key_is_refused() -> None:
    world, enclave = started(lease=False)
    _, lease = signed_answer(world, enclave)
    retired = SigningKey(b"r" * 32)
    with pytest.raises(Rejected, match="unknown_key"):
        enclave.holder.receive(Statement.sign(retired, Lease.LABEL, lease.dump()).dump(), world.now)


def test_bad_87_an_enclave_killed_mid_answer_loses_at_most_n() -> None:
    world, enclave = started(units=9, cap=3)
    stream = world.begin(enclave, 3)
    assert stream is not None
    world.chunk(enclave, stream)
    again = world.relaunch(enclave)
    assert again is not None
    world.renew(again)
    world.advance(62)
    world.sweep()
    assert world.custodian.db.instances[enclave.id].status is InstanceStatus.DEAD
    assert world.custodian.db.loans[world.loan].balances[LOAN_METER] == 9 - 3 - 3


def test_bad_91_one_unit_and_sixteen_instances() -> None:
    world = World((terms(cap=1, instances=16), 1))
    enclaves = [world.launch()]
    with_lease = [enclave for enclave in enclaves if enclave and world.renew(enclave)]
    assert sum(world.serve(enclave) for enclave in with_lease) == 1
    assert world.launch() is None  # nothing left: no key is released for nothing
