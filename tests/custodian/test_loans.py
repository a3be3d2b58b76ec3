"""Loans and their allowances: adding adds, asking is answered, nothing happens twice."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import SOFTWARE, Bench

from cloister.custodian.store.blocks import MAX_ASKS, AskRow, AskState, insert_ask
from cloister.lending.terms import LOAN_METER
from cloister.testing.simulated import simulated_policy
from cloister.wire import MAX_INT

if TYPE_CHECKING:
    import httpx


def test_top_up_adds_and_does_not_replace(bench: Bench) -> None:
    lent = bench.lend(allowance=10)
    answer = bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 5})
    assert answer.json()["balance"] == 15
    assert lent.balance() == 15


def test_set_sets_up_and_down_to_zero(bench: Bench) -> None:
    lent = bench.lend(allowance=10)
    for units in (3, 20, 0, 0):
        assert bench.post(f"/v1/loans/{lent.id}/set", {"units": units}).json()["balance"] == units
        assert lent.balance() == units


def test_set_leaves_instances_what_they_hold(bench: Bench) -> None:
    lent = bench.lend(allowance=10, max_ceiling=4)
    toy = lent.boot()
    toy.renew()
    bench.post(f"/v1/loans/{lent.id}/set", {"units": 0})
    shown = lent.show()["meters"]["loan"]
    assert (shown["balance"], shown["held"]) == (0, 4)


def test_a_request_for_more_is_read_and_answered(bench: Bench) -> None:
    lent = bench.lend(allowance=1)
    asked = bench.post(f"/v1/loans/{lent.id}/requests", {"units": 40, "reason": "flu season"}, token=lent.token)
    assert asked.status_code == 201
    waiting = [item for item in lent.show()["requests"] if item["state"] == "open"]
    assert [(item["units"], item["reason"]) for item in waiting] == [(40, "flu season")]
    answer = bench.post(f"/v1/loans/{lent.id}/requests/{asked.json()['id']}/approve")
    assert (answer.json()["state"], answer.json()["balance"]) == ("approved", 41)
    assert lent.balance() == 41
    assert bench.client.get(f"/v1/loans/{lent.id}/summary", headers=lent.token).json()["balances"] == {"loan": 41}


def test_a_request_may_be_granted_in_part_or_denied(bench: Bench) -> None:
    lent = bench.lend(allowance=1)
    first, second = (
        bench.post(f"/v1/loans/{lent.id}/requests", {"units": 40}, token=lent.token).json()["id"] for _ in range(2)
    )
    assert bench.post(f"/v1/loans/{lent.id}/requests/{first}/approve", {"units": 2}).json()["granted"] == 2
    denied = bench.post(f"/v1/loans/{lent.id}/requests/{second}/deny", {"reason": "unpaid"}).json()
    assert (denied["state"], denied["answer"]) == ("denied", "unpaid")
    assert lent.balance() == 3
    again = bench.post(f"/v1/loans/{lent.id}/requests/{second}/approve")
    assert (again.status_code, again.json()["code"]) == (409, "already_decided")
    assert lent.balance() == 3


def test_a_loan_shows_what_waits_and_no_more_than_so_many_requests(bench: Bench) -> None:
    """Found by the soak: every event of every stream carried each request that was ever made."""
    lent = bench.lend()
    waits = bench.post(f"/v1/loans/{lent.id}/requests", {"units": 1}, token=lent.token).json()["id"]
    with bench.service.context.store.writing() as connection:
        for number in range(MAX_ASKS + 20):
            bench.clock.advance(1)
            decided = AskRow(
                id=f"req-{number}", loan=lent.id, meter=LOAN_METER, units=1, reason="", state=AskState.DENIED,
                created_at=bench.clock(),
            )  # fmt: skip
            insert_ask(connection, decided)
    shown = [ask["id"] for ask in lent.show()["requests"]]
    assert len(shown) == MAX_ASKS
    assert shown[:2] == [waits, f"req-{MAX_ASKS + 19}"]


def test_requests_waiting_for_an_answer_are_bounded(bench: Bench) -> None:
    lent = bench.lend()
    codes = [bench.post(f"/v1/loans/{lent.id}/requests", {"units": 1}, token=lent.token).status_code for _ in range(18)]
    assert codes == [201] * 16 + [429] * 2


@pytest.mark.parametrize("verb", ["top-up", "set"])
@pytest.mark.parametrize(
    "units", [-1, 2**53, 2**64, 1.5, True, "5", None, [], {}, float("1e300")], ids=lambda value: repr(value)[:12]
)
def test_units_out_of_range_or_of_another_type_are_refused(bench: Bench, verb: str, units: Any) -> None:
    """T46, list 64 and 65."""
    lent = bench.lend()
    answer = bench.post(f"/v1/loans/{lent.id}/{verb}", {"units": units})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert lent.balance() == 10


def test_a_top_up_of_zero_is_no_top_up(bench: Bench) -> None:
    lent = bench.lend()
    assert bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 0}).status_code == 400


def test_an_allowance_does_not_overflow(bench: Bench) -> None:
    lent = bench.lend(allowance=10)
    answer = bench.post(f"/v1/loans/{lent.id}/top-up", {"units": MAX_INT})
    assert (answer.status_code, answer.json()["code"]) == (422, "too_many_units")
    assert bench.post(f"/v1/loans/{lent.id}/top-up", {"units": MAX_INT - 10}).json()["balance"] == MAX_INT


def test_a_meter_the_loan_does_not_have_is_not_found(bench: Bench) -> None:
    lent = bench.lend()
    answer = bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 1, "meter": "model:digits"})
    assert answer.status_code == 404
    assert bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 1, "meter": "purse"}).status_code == 400


def test_the_same_key_charges_once_and_answers_the_same(bench: Bench) -> None:
    lent = bench.lend(allowance=10)
    answers = [bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 5}, **{"Idempotency-Key": "k"}) for _ in range(3)]
    assert {answer.content for answer in answers} == {answers[0].content}
    assert lent.balance() == 15
    bench.restart()
    assert (
        bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 5}, **{"Idempotency-Key": "k"}).content
        == answers[0].content
    )
    assert lent.balance() == 15


def test_the_same_key_for_another_request_is_refused(bench: Bench) -> None:
    lent = bench.lend(allowance=10)
    bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 5}, **{"Idempotency-Key": "k"})
    answer = bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 6}, **{"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
    assert lent.balance() == 15


def test_keys_of_two_actors_are_two_keys(bench: Bench) -> None:
    lent = bench.lend(allowance=10)
    lender = bench.token("lender")
    for token in (bench.admin, lender):
        bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 5}, token=token, **{"Idempotency-Key": "k"})
    assert lent.balance() == 20


def test_a_failed_request_may_be_tried_again_under_its_key(bench: Bench) -> None:
    lent = bench.lend(allowance=10)
    key = {"Idempotency-Key": "k"}
    assert bench.post(f"/v1/loans/{lent.id}/top-up", {"units": MAX_INT}, **key).status_code == 422
    assert bench.post(f"/v1/loans/{lent.id}/top-up", {"units": MAX_INT}, **key).status_code == 422
    assert lent.balance() == 10


def test_a_key_is_forgotten_after_its_time(bench: Bench) -> None:
    lent = bench.lend(allowance=10)
    key = {"Idempotency-Key": "k"}
    bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 5}, **key)
    bench.clock.advance(86_401)
    assert bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 5}, **key).json()["balance"] == 20


def test_parallel_creates_under_one_key_make_one_loan(bench: Bench) -> None:
    """List 67."""
    answers: list[httpx.Response] = []
    body = bench.loan_body()

    def create() -> None:
        answers.append(bench.post("/v1/loans", body, **{"Idempotency-Key": "one"}))

    threads = [threading.Thread(target=create) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["loan"] for answer in answers}) == 1
    assert len(bench.get("/v1/loans").json()["loans"]) == 1


@pytest.mark.parametrize("key", ["", "a" * 201, "with space", "tab\there"])
def test_a_strange_key_is_malformed(bench: Bench, key: str) -> None:
    lent = bench.lend()
    assert bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 5}, **{"Idempotency-Key": key}).status_code == 400


def test_a_loan_names_its_consumers_or_says_anybody(bench: Bench) -> None:
    body = bench.loan_body()
    del body["consumers"]
    answer = bench.post("/v1/loans", body)
    assert answer.status_code == 400
    assert "consumers" in answer.json()["detail"]


@pytest.mark.parametrize(
    "change",
    [
        {"models": []},
        {"models": [{"name": "digits"}]},
        {"models": [{"name": "Digits", "digest": "0" * 64}]},
        {"consumers": [{"id": "a"}, {"id": "a"}]},
        {"consumers": [{"id": "../../etc/passwd"}]},
        {"consumers": "anybody"},
        {"policy": {}},
        {"policy": None},
        {"borrower": ""},
        {"borrower": "x" * 201},
        {"ttl_s": 0},
        {"ttl_s": 10**9},
        {"ttl_s": -1},
        {"max_ceiling": 0},
        {"max_instances": 0},
        {"rate_cap": -1},
        {"surprise": 1},
    ],
    ids=lambda change: f"{next(iter(change))}",
)
def test_a_loan_that_makes_no_sense_is_malformed_and_not_made(bench: Bench, change: dict[str, Any]) -> None:
    answer = bench.post("/v1/loans", bench.loan_body(**change))
    assert answer.status_code == 400, answer.text
    assert bench.get("/v1/loans").json()["loans"] == []


def test_a_loan_of_an_unpublished_or_withdrawn_model_is_not_made(bench: Bench) -> None:
    models = [{"digest": "0" * 64, "name": "digits"}]
    assert bench.post("/v1/loans", bench.loan_body(models=models)).status_code == 404
    bench.post(f"/v1/models/{bench.digest}/withdraw")
    answer = bench.post("/v1/loans", bench.loan_body())
    assert (answer.status_code, answer.json()["code"]) == (409, "model_withdrawn")


def test_consumers_are_added_and_their_tokens_shown_once(bench: Bench) -> None:
    lent = bench.lend(consumers=[{"id": "ward-a"}])
    added = bench.post(f"/v1/loans/{lent.id}/consumers", {"consumers": [{"id": "ward-b", "allowance": 4}]})
    token = added.json()["consumer_tokens"]["ward-b"]
    shown = lent.show()
    assert [item["id"] for item in shown["terms"]["consumers"]] == ["ward-a", "ward-b"]
    assert shown["terms"]["version"] == 2
    assert shown["meters"]["consumer:ward-b"]["balance"] == 4
    assert token not in bench.get(f"/v1/loans/{lent.id}").text
    again = bench.post(f"/v1/loans/{lent.id}/consumers", {"consumers": [{"id": "ward-b"}]})
    assert (again.status_code, again.json()["code"]) == (409, "already_exists")


def test_a_loan_for_anybody_takes_no_consumers(bench: Bench) -> None:
    lent = bench.lend()
    answer = bench.post(f"/v1/loans/{lent.id}/consumers", {"consumers": [{"id": "ward-b"}]})
    assert (answer.status_code, answer.json()["code"]) == (409, "consumers_open")


def test_an_older_policy_is_refused(bench: Bench) -> None:
    """T18: versions only grow."""
    lent = bench.lend(policy=simulated_policy(SOFTWARE, version=5).to_json())
    for version in (4, 5):
        policy = simulated_policy(SOFTWARE, version=version).to_json()
        answer = bench.post(f"/v1/loans/{lent.id}/policy", {"policy": policy})
        assert (answer.status_code, answer.json()["code"]) == (409, "policy_version_old")
    policy = simulated_policy(SOFTWARE, version=6).to_json()
    assert bench.post(f"/v1/loans/{lent.id}/policy", {"policy": policy}).json()["version"] == 6
    assert bench.audit()[-1]["details"]["version"] == "6"


def test_block_says_within_which_bound_it_stops(bench: Bench) -> None:
    lent = bench.lend(allowance=10, max_ceiling=4, ttl_s=60)
    for _ in range(2):
        lent.boot().renew()
    answer = bench.post("/v1/blocks", {"kind": "loan", "subject": lent.id, "reason": "unpaid"}).json()
    assert (answer["block_version"], answer["bound"]) == (1, {"seconds": 62, "units": 8})
    assert [item["units"] for item in answer["instances"]] == [4, 4]


def test_block_and_unblock_only_ever_count_up(bench: Bench) -> None:
    lent = bench.lend()
    versions = []
    for _ in range(3):
        versions.append(
            bench.post("/v1/blocks", {"kind": "loan", "subject": lent.id, "reason": ""}).json()["block_version"]
        )
        gone = bench.client.delete(f"/v1/blocks/loan/{lent.id}", headers=bench.admin)
        versions.append(gone.json()["block_version"])
    assert versions == [1, 2, 3, 4, 5, 6]
    assert lent.show()["state"] == "active"


def test_blocking_twice_changes_nothing(bench: Bench) -> None:
    lent = bench.lend()
    body = {"kind": "loan", "subject": lent.id, "reason": ""}
    assert [bench.post("/v1/blocks", body).json()["block_version"] for _ in range(2)] == [1, 1]
    assert bench.kinds().count("blocked") == 1


def test_a_block_that_would_stop_nothing_is_refused(bench: Bench) -> None:
    lent = bench.lend(consumers=[{"id": "ward-a"}])
    for body, status in (
        ({"kind": "loan", "subject": "loan-aaaaaaaaaaaaaaaa"}, 404),
        ({"kind": "loan", "subject": "'; DROP TABLE loan; --"}, 404),
        ({"kind": "model", "subject": "0" * 64}, 404),
        ({"kind": "instance", "subject": "0" * 64}, 404),
        ({"kind": "consumer", "subject": "ward-b", "loan": lent.id}, 404),
        ({"kind": "consumer", "subject": "ward-a"}, 422),
        ({"kind": "loan", "subject": lent.id, "loan": lent.id}, 422),
        ({"kind": "everything", "subject": "x"}, 400),
    ):
        assert bench.post("/v1/blocks", {**body, "reason": ""}).status_code == status, body


def test_unblocking_what_is_not_blocked_is_not_found(bench: Bench) -> None:
    lent = bench.lend()
    assert bench.client.delete(f"/v1/blocks/loan/{lent.id}", headers=bench.admin).status_code == 404
    assert bench.client.delete("/v1/blocks/world/all", headers=bench.admin).status_code == 404


def test_a_blocked_instance_stays_blocked_after_unblocking(bench: Bench) -> None:
    lent = bench.lend()
    toy = lent.boot()
    toy.renew()
    bench.post("/v1/blocks", {"kind": "instance", "subject": toy.id, "reason": ""})
    bench.client.delete(f"/v1/blocks/instance/{toy.id}", headers=bench.admin)
    bench.clock.advance(20)
    assert toy.renew().stop


def test_models_are_published_once_and_show_their_files(bench: Bench) -> None:
    assert bench.publish().json()["digest"] == bench.digest
    assert bench.kinds().count("model_published") == 1
    shown = bench.get(f"/v1/models/{bench.digest}").json()
    assert shown["files"] == [{"path": "model.onnx", "size": 600}]
    assert shown["card"] == {"task": "image-classification"}
    assert bench.get(f"/v1/models/{'0' * 64}").status_code == 404


def test_a_model_our_publisher_did_not_sign_is_refused(bench: Bench) -> None:
    package = bench.seal("xray")
    assert bench.publish({**package, "signature": bench.package["signature"]}).json()["code"] == "signature_invalid"


def test_a_model_whose_key_the_vault_cannot_open_is_refused(bench: Bench) -> None:
    package = bench.seal("xray")
    other = bench.seal("mri")
    crossed = {**package["envelope"], "recipients": other["envelope"]["recipients"]}
    assert bench.publish({**package, "envelope": crossed}).json()["code"] == "wrong_key"
    assert bench.publish({**package, "envelope": other["envelope"]}).json()["code"] == "wrong_model"


def test_a_withdrawn_model_stays_withdrawn(bench: Bench) -> None:
    bench.post(f"/v1/models/{bench.digest}/withdraw")
    assert bench.publish().json()["code"] == "model_withdrawn"
