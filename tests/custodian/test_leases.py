"""Leases as the custodian grants them: one transaction, one debit, one reply (30-metering C1-C9)."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from custodian_kit import STATEMENT, Bench, Toy

from cloister.crypto.sign import Label, SigningKey, Statement
from cloister.custodian.store.loans import balances_of, postings_of
from cloister.errors import Rejected
from cloister.lending.lease import LeaseState
from cloister.lending.ledger import verify_postings
from cloister.lending.messages import Lease, LeaseRequest, Refusal, Status
from cloister.lending.terms import LOAN_METER, Meter
from cloister.wire import MAX_INT, dump_b64u


def _signed(toy: Toy, **members: object) -> bytes:
    base = LeaseRequest(
        instance=toy.id, epoch=1, seq=1, req_nonce=bytes(16), used={}, reserved={}, want={LOAN_METER: 5},
        served=0, chain_head=bytes(32),
    )  # fmt: skip
    return Statement.sign(toy.key, Label.LEASE_REQUEST, replace(base, **members).dump()).dump()  # type: ignore[arg-type]


def _lease(toy: Toy, statement: bytes) -> Lease:
    answer = toy.send(statement)
    assert answer.status_code == 200, answer.text
    return Lease.parse(Statement.parse(answer.content, label=Label.LEASE).verify([toy.bench.init.key]))


def _refusal(toy: Toy, statement: bytes) -> Refusal:
    answer = toy.send(statement)
    assert answer.status_code == 200, answer.text
    return Refusal.parse(Statement.parse(answer.content, label=Label.REFUSAL).verify([toy.bench.init.key]))


def _whole(shown: dict[str, int]) -> bool:
    """I2: every unit that was granted is somewhere."""
    return shown["granted"] == shown["balance"] + shown["held"] + shown["spent"] + shown["written_off"]


def test_allowance_is_debited_when_the_ceiling_rises_not_when_use_is_reported(bench: Bench) -> None:
    lent = bench.lend(allowance=10, max_ceiling=4)
    toy = lent.boot()
    toy.renew()
    shown = lent.show()["meters"]["loan"]
    assert (shown["balance"], shown["held"], shown["spent"]) == (6, 4, 0)
    toy.serve(3)
    bench.clock.advance(20)
    toy.renew()
    shown = lent.show()["meters"]["loan"]
    assert (shown["balance"], shown["held"], shown["spent"]) == (3, 4, 3)
    assert _whole(shown)


def test_a_loan_of_zero_units_raises_no_ceiling(bench: Bench) -> None:
    lent = bench.lend(allowance=1)
    first, second = lent.boot(), lent.boot()
    assert _lease(first, _signed(first)).limits[LOAN_METER] == 1
    assert _lease(second, _signed(second)).limits[LOAN_METER] == 0


def test_the_same_request_a_hundred_times_is_one_debit_and_one_reply(bench: Bench) -> None:
    lent = bench.lend(allowance=10)
    toy = lent.boot()
    statement = _signed(toy)
    replies = {toy.send(statement).content for _ in range(100)}
    assert len(replies) == 1
    assert lent.balance() == 5
    assert bench.kinds().count("lease_granted") == 1


def test_the_stored_reply_survives_a_restart(bench: Bench) -> None:
    toy = bench.lend().boot()
    statement = _signed(toy)
    before = toy.send(statement).content
    bench.restart()
    assert toy.send(statement).content == before


def test_same_number_other_bytes_is_a_fork_and_blocks_the_instance(bench: Bench) -> None:
    lent = bench.lend()
    toy = lent.boot()
    _lease(toy, _signed(toy))
    refusal = _refusal(toy, _signed(toy, req_nonce=b"another nonce 16"))
    assert refusal.stop
    assert refusal.reasons[0].code == "fork_detected"
    assert "fork_detected" in bench.kinds()
    assert _refusal(toy, _signed(toy, seq=2)).stop
    assert lent.show()["instances"][0]["state"] == "forked"


def test_used_that_goes_back_is_a_fork(bench: Bench) -> None:
    toy = bench.lend().boot()
    _lease(toy, _signed(toy))
    _lease(toy, _signed(toy, seq=2, **toy.itemise(3)))
    assert _refusal(toy, _signed(toy, seq=3, used={LOAN_METER: 2})).reasons[0].code == "fork_detected"


def test_used_beyond_the_limit_is_an_alarm_and_no_lease(bench: Bench) -> None:
    toy = bench.lend().boot()
    _lease(toy, _signed(toy))
    assert _refusal(toy, _signed(toy, seq=2, used={LOAN_METER: 6})).reasons[0].code == "overdrawn"
    assert "overdraft_detected" in bench.kinds()


@pytest.mark.parametrize("seq", [1, 4, MAX_INT])
def test_a_wrong_sequence_number_is_a_conflict(bench: Bench, seq: int) -> None:
    toy = bench.lend().boot()
    _lease(toy, _signed(toy))
    _lease(toy, _signed(toy, seq=2))
    answer = toy.send(_signed(toy, seq=seq))
    assert (answer.status_code, answer.json()["code"]) == (409, "wrong_seq")
    assert bench.audit()[-1]["kind"] == "lease_refused"


def test_a_request_of_another_instance_or_by_another_key_touches_nothing(bench: Bench) -> None:
    lent = bench.lend()
    toy, other = lent.boot(), lent.boot()
    size = len(bench.audit())
    crossed = bench.client.post(f"/v1/instances/{toy.id}/lease", content=_signed(other), headers=STATEMENT)
    assert crossed.json()["code"] == "unknown_key"
    thief = Statement.sign(SigningKey.generate(), Label.LEASE_REQUEST, b"{}").dump()
    assert toy.send(thief).json()["code"] == "unknown_key"
    assert toy.send(b"not a statement").status_code == 400
    assert len(bench.audit()) == size
    assert lent.balance() == 10


def test_a_statement_of_another_kind_is_no_lease_request(bench: Bench) -> None:
    toy = bench.lend().boot()
    for label in Label:
        if label is Label.LEASE_REQUEST:
            continue
        payload = Statement.parse(_signed(toy), label=Label.LEASE_REQUEST).payload
        answer = toy.send(Statement.sign(toy.key, label, payload).dump())
        assert answer.json()["code"] == "wrong_statement"


def test_an_instance_nobody_registered_is_unknown(bench: Bench) -> None:
    toy = Toy(bench.lend())
    assert toy.send(_signed(toy)).status_code == 404


def test_wanting_everything_gets_no_more_than_the_allowance_and_n(bench: Bench) -> None:
    lent = bench.lend(allowance=50, max_ceiling=20)
    toy = lent.boot()
    assert _lease(toy, _signed(toy, want={LOAN_METER: MAX_INT})).limits[LOAN_METER] == 20
    assert toy.send(_signed(toy, seq=2, want={})).status_code == 200
    assert lent.balance() == 30


def test_a_blocked_loan_is_told_to_stop_with_its_next_renewal(bench: Bench) -> None:
    lent = bench.lend()
    toy = lent.boot()
    toy.renew()
    bench.post("/v1/blocks", {"kind": "loan", "subject": lent.id, "reason": ""})
    bench.clock.advance(20)
    refusal = toy.renew()
    assert isinstance(refusal, Refusal)
    assert refusal.stop
    assert toy.holder is not None
    assert toy.holder.state is LeaseState.REVOKED


def test_a_withdrawn_model_leaves_the_lease_and_the_other_stays(bench: Bench) -> None:
    other = bench.seal("xray")
    bench.publish(other)
    models = [{"digest": bench.digest, "name": "digits"}, {"digest": other["digest"], "name": "xray"}]
    toy = bench.lend(models=models).boot()
    assert set(_lease(toy, _signed(toy)).models) == {bench.digest, other["digest"]}
    bench.post(f"/v1/models/{bench.digest}/withdraw")
    assert _lease(toy, _signed(toy, seq=2)).models == (other["digest"],)


def test_a_blocked_consumer_leaves_the_lease(bench: Bench) -> None:
    lent = bench.lend(consumers=[{"id": "ward-a"}, {"id": "ward-b"}])
    toy = lent.boot()
    bench.post("/v1/blocks", {"kind": "consumer", "subject": "ward-a", "loan": lent.id, "reason": "left"})
    listed = _lease(toy, _signed(toy)).consumers
    assert listed is not None
    assert [item.id for item in listed] == ["ward-b"]


def test_every_meter_of_a_loan_is_counted_by_itself(bench: Bench) -> None:
    lent = bench.lend(
        allowance=10,
        models=[{"digest": bench.digest, "name": "digits", "allowance": 7}],
        consumers=[{"id": "ward-a", "allowance": 3}, {"id": "ward-b"}],
    )
    toy = lent.boot()
    toy.renew()
    toy.serve(2, token=lent.made["consumer_tokens"]["ward-a"].encode())
    bench.clock.advance(20)
    toy.renew()
    meters = lent.show()["meters"]
    assert {name: counts["granted"] for name, counts in meters.items()} == {
        "loan": 10, "model:digits": 7, "consumer:ward-a": 3,
    }  # fmt: skip
    assert {name: counts["spent"] for name, counts in meters.items()} == dict.fromkeys(meters, 2)
    assert all(_whole(counts) for counts in meters.values())


def test_a_dead_instance_is_written_off_and_nothing_comes_back(bench: Bench) -> None:
    lent = bench.lend(allowance=10, max_ceiling=4)
    toy = lent.boot()
    toy.renew()
    toy.serve(1)
    assert bench.service.sweep() == 0
    bench.clock.advance(62)
    assert bench.service.sweep() == 1
    shown = lent.show()["meters"]["loan"]
    assert (shown["balance"], shown["held"], shown["spent"], shown["written_off"]) == (6, 0, 0, 4)
    assert _whole(shown)
    assert bench.service.sweep() == 0
    refusal = _refusal(toy, _signed(toy, seq=2))
    assert refusal.stop


def test_a_close_gives_nothing_back(bench: Bench) -> None:
    lent = bench.lend(allowance=10, max_ceiling=4)
    toy = lent.boot()
    toy.renew()
    toy.serve(1)
    assert toy.close().status_code == 200
    shown = lent.show()["meters"]["loan"]
    assert (shown["balance"], shown["spent"], shown["written_off"]) == (6, 1, 3)
    assert lent.show()["live_instances"] == 0


def test_an_instance_with_old_evidence_must_attest_again(bench: Bench) -> None:
    toy = bench.lend(ttl_s=3600).boot()
    toy.renew()
    for _ in range(25):
        bench.clock.advance(3500)
        answer = toy.renew()
    assert isinstance(answer, Refusal)
    assert answer.reasons[0].code == "evidence_too_old"


def test_a_changed_policy_ends_running_instances(bench: Bench) -> None:
    lent = bench.lend()
    toy = lent.boot()
    toy.renew()
    policy = {**lent.show()["policy"], "version": 2}
    assert bench.post(f"/v1/loans/{lent.id}/policy", {"policy": policy}).status_code == 200
    bench.clock.advance(20)
    answer = toy.renew()
    assert isinstance(answer, Refusal)
    assert answer.reasons[0].code == "policy_changed"


def test_sixteen_instances_and_one_unit_get_one_unit_together(bench: Bench) -> None:
    lent = bench.lend(allowance=1, max_instances=16)
    toys = [lent.boot() for _ in range(16)]
    granted = [_lease(toy, _signed(toy)).limits[LOAN_METER] for toy in toys]
    assert sum(granted) == 1


def test_sixteen_threads_never_overdraw_and_every_unit_is_somewhere(bench: Bench) -> None:
    """T45: the balance race, on a real database, through the whole service."""
    lent = bench.lend(allowance=200, max_instances=16, max_ceiling=3)
    toys = [lent.boot() for _ in range(16)]
    leased: list[int] = []
    faults: list[BaseException] = []

    def renew(toy: Toy) -> None:
        try:
            limit = 0
            for seq in range(1, 7):
                statement = _signed(toy, seq=seq, **toy.itemise(limit), want={LOAN_METER: limit + 3})
                reply = bench.service.lease(toy.id, statement)
                payload = Statement.parse(reply, label=Label.LEASE).verify([bench.init.key])
                limit = Lease.parse(payload).limits[LOAN_METER]
            leased.append(limit)
        except BaseException as exc:  # noqa: BLE001 - carried to the test's own thread
            faults.append(exc)

    threads = [threading.Thread(target=renew, args=(toy,)) for toy in toys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert sum(leased) == 200
    shown = lent.show()["meters"]["loan"]
    assert shown["balance"] == 0
    assert _whole(shown)


@pytest.mark.drill
@pytest.mark.timeout(1800)
def test_sixteen_threads_and_a_hundred_thousand_grants(bench: Bench) -> None:
    """T45 at length: as above with 6,250 renewals a thread."""
    lent = bench.lend(allowance=50_000, max_instances=16, max_ceiling=1)
    toys = [lent.boot() for _ in range(16)]

    def renew(toy: Toy) -> None:
        limit = 0
        for seq in range(1, 6251):
            statement = _signed(toy, seq=seq, **toy.itemise(limit), want={LOAN_METER: limit + 1})
            payload = Statement.parse(bench.service.lease(toy.id, statement), label=Label.LEASE).payload
            limit = Lease.parse(payload).limits[LOAN_METER]

    threads = [threading.Thread(target=renew, args=(toy,)) for toy in toys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shown = lent.show()["meters"]["loan"]
    assert shown["balance"] == 0
    assert _whole(shown)


def test_the_ledger_tells_the_same_story_as_the_balance(bench: Bench) -> None:
    lent = bench.lend(allowance=10, max_ceiling=4)
    toy = lent.boot()
    toy.renew()
    bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 5})
    bench.post(f"/v1/loans/{lent.id}/set", {"units": 2})
    with bench.service.context.reading() as connection:
        postings = postings_of(connection, lent.id)
        stored = balances_of(connection, lent.id)
    verify_postings(postings)
    assert stored == {LOAN_METER: 2}
    assert lent.balance() == 2


def test_meters_that_do_not_exist_are_malformed(bench: Bench) -> None:
    toy = bench.lend().boot()
    payload = Statement.parse(_signed(toy, want={Meter("loan"): 1}), label=Label.LEASE_REQUEST).payload
    forged = payload.replace(b'"want":{"loan":1}', b'"want":{"purse":1}')
    answer = toy.send(Statement.sign(toy.key, Label.LEASE_REQUEST, forged).dump())
    assert answer.status_code == 400


@pytest.mark.parametrize("units", [b"-1", b"9007199254740992", b"1.5", b"true", b'"5"', b"1e3"])
def test_units_that_are_no_units_are_malformed(bench: Bench, units: bytes) -> None:
    """T46: no negative, no float, no huge, no boolean, no text."""
    toy = bench.lend().boot()
    payload = Statement.parse(_signed(toy, want={Meter("loan"): 1}), label=Label.LEASE_REQUEST).payload
    forged = payload.replace(b'"want":{"loan":1}', b'"want":{"loan":' + units + b"}")
    assert toy.send(Statement.sign(toy.key, Label.LEASE_REQUEST, forged).dump()).status_code == 400


def test_status_tells_a_consumer_who_runs_the_enclave(bench: Bench) -> None:
    lent = bench.lend()
    toy = lent.boot()
    toy.renew()
    nonce = bench.rng(32)
    answer = bench.client.get(f"/v1/instances/{toy.id}/status?nonce={dump_b64u(nonce)}")
    status = Status.parse(Statement.parse(answer.content, label=Label.STATUS).verify([bench.init.key]))
    assert (status.operator, status.state, status.nonce) == ("Hospital of the Holy Ghost", "active", nonce)
    bench.post("/v1/blocks", {"kind": "loan", "subject": lent.id, "reason": ""})
    answer = bench.client.get(f"/v1/instances/{toy.id}/status?nonce={dump_b64u(nonce)}")
    assert Status.parse(Statement.parse(answer.content, label=Label.STATUS).payload).state == "blocked"
    for bad in ("", "?nonce=", "?nonce=AAAA", f"?nonce={dump_b64u(nonce)}&nonce={dump_b64u(nonce)}"):
        assert bench.client.get(f"/v1/instances/{toy.id}/status{bad}").status_code == 400


def test_a_lease_of_one_instance_is_refused_by_another(bench: Bench) -> None:
    lent = bench.lend()
    first, second = lent.boot(), lent.boot()
    second.request()
    answer = first.send(first.request())
    assert second.holder is not None
    with pytest.raises(Rejected) as refused:
        second.holder.receive(answer.content, bench.clock())
    assert refused.value.code in {"wrong_instance", "not_pending", "wrong_request"}
