"""The count on the request path: what the earlier proof of concept got wrong, and how it is cheated."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from enclave_engines import WatchedEngine, broken, failing
from enclave_models import adder, doubler, fragile, identity
from enclave_parties import ALICE, BOB, ConsumerSide, infer_body, make_world, receipt_of
from onnx import TensorProto

from cloister.errors import Rejected
from cloister.lending.receipt import GENESIS, verify_chain
from cloister.lending.terms import LOAN_METER
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path

ROW = [1.0, 2.0, 3.0]


@asynchronous
async def test_the_model_never_runs_when_the_budget_is_zero(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, allowance=3)
    engine = WatchedEngine()
    async with world.enclave(engine=engine) as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        for left in (2, 1, 0):
            answer = await consumer.infer([ROW])
            assert (answer.status, answer.field("cloister-remaining")) == (200, str(left))
        for _ in range(5):
            answer = await consumer.infer([ROW])
            assert (answer.status, answer.json["code"]) == (402, "allowance_exhausted")
            assert answer.field("cloister-receipt") is None
    assert engine.runs == 3


@asynchronous
async def test_a_batch_that_does_not_fit_is_refused_whole(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, allowance=3)
    engine = WatchedEngine()
    async with world.enclave(engine=engine) as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        assert (await consumer.infer([ROW] * 4)).json["reasons"] == [
            {"code": "allowance_exhausted", "subject": "loan", "got": "3", "want": "4"}
        ]
        assert engine.runs == 0
        answer = await consumer.infer([ROW] * 3)
        assert (answer.status, answer.field("cloister-units"), answer.field("cloister-remaining")) == (200, "3", "0")


@asynchronous
async def test_concurrent_calls_cannot_pass_together_at_the_last_unit(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, allowance=1)
    barrier = threading.Event()
    engine = WatchedEngine(before=lambda: barrier.wait(0.2) and None)
    async with world.enclave(engine=engine, engine_workers=8) as enclave:
        consumers = [ConsumerSide(enclave, world.clock) for _ in range(16)]
        answers = await asyncio.gather(*(consumer.infer([ROW]) for consumer in consumers))
        assert sorted(answer.status for answer in answers) == [200] + [402] * 15
    assert engine.runs == 1


def test_threads_cannot_reserve_the_last_unit_together(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, allowance=40)

    async def body() -> None:
        async with world.enclave() as enclave:
            won: list[int] = []
            start = threading.Barrier(8)

            def spend() -> None:
                start.wait()
                for _ in range(100):
                    with contextlib.suppress(Rejected):
                        enclave.metering.reserve("m", ALICE, 1)
                        won.append(1)

            threads = [threading.Thread(target=spend) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                await asyncio.to_thread(thread.join)
            assert len(won) == 40

    asyncio.run(body())


@asynchronous
async def test_a_failed_run_is_not_charged(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, allowance=1)
    engine = WatchedEngine(before=failing)
    async with world.enclave(engine=engine) as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        for _ in range(3):
            answer = await consumer.infer([ROW])
            assert (answer.status, answer.json["code"]) == (500, "engine_failed")
        engine.before = None
        answer = await consumer.infer([ROW])
        assert (answer.status, answer.field("cloister-remaining")) == (200, "0")
        assert enclave.metering.snapshot().served == 1


@asynchronous
async def test_a_run_that_the_model_itself_refuses_is_not_charged(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": fragile()}, allowance=2)
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)

        def body(index: int) -> bytes:
            return json.dumps({"inputs": [{"name": "i", "datatype": "INT64", "shape": [1], "data": [index]}]}).encode()

        failed = await consumer.send(consumer.request("POST", "/v2/models/m/infer", body(99)))
        assert (failed.status, failed.json["code"]) == (500, "engine_failed")
        fine = await consumer.send(consumer.request("POST", "/v2/models/m/infer", body(1)))
        assert (fine.status, fine.json["outputs"][0]["data"], fine.field("cloister-remaining")) == (200, [20.0], "1")


@asynchronous
async def test_a_bug_of_ours_tells_nothing_and_is_not_charged(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, allowance=1)
    engine = WatchedEngine(before=broken)
    async with world.enclave(engine=engine) as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        answer = await consumer.infer([ROW])
        assert (answer.status, answer.json["code"], answer.json["detail"]) == (500, "internal", "internal error")
        engine.before = None
        assert (await consumer.infer([ROW])).status == 200
    assert "canary" not in world.log.getvalue()
    assert '"error": "KeyError"' in world.log.getvalue()


@asynchronous
async def test_refused_input_is_not_charged_and_never_reaches_the_model(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, allowance=1)
    engine = WatchedEngine()
    async with world.enclave(engine=engine) as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        answer = await consumer.infer([[1.0, 2.0]])
        assert (answer.status, answer.json["code"]) == (422, "input")
        assert answer.json["reasons"] == [
            {"code": "input", "subject": "input x", "got": "shape [1, 2]", "want": "[batch, 3]"}
        ]
        assert enclave.metering.snapshot().reserved == {}
    assert engine.runs == 0


@asynchronous
async def test_an_output_that_json_cannot_carry_is_not_charged(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, allowance=1)
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        answer = await consumer.infer([[3e38, 0.0, 0.0]])
        assert (answer.status, answer.json["code"]) == (422, "output")
        assert enclave.metering.snapshot().used == {}


@asynchronous
async def test_every_answer_has_a_receipt_that_chains(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()})
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        keyset = await consumer.keyset()
        receipts = []
        for rows in ([ROW], [ROW, ROW]):
            answer = await consumer.infer(rows)
            receipts.append(receipt_of(answer, keyset, infer_body(rows)))
        assert [(one.index, one.units) for one in receipts] == [(1, 1), (2, 2)]
        assert receipts[0].previous == GENESIS
        assert verify_chain(receipts) == enclave.metering.snapshot().chain_head
        assert {one.model for one in receipts} == {keyset.models[0].digest}


@asynchronous
async def test_a_retry_under_the_same_key_costs_nothing_and_gets_the_same_answer(tmp_path: Path) -> None:
    """T44, first of three."""
    world = make_world(tmp_path, {"m": doubler()}, allowance=2)
    engine = WatchedEngine()
    async with world.enclave(engine=engine) as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        first = await consumer.infer([ROW], idempotency_key="k1")
        world.clock.advance(2)
        again = await consumer.infer([ROW], idempotency_key="k1")
        assert (first.status, again.status) == (200, 200)
        assert first.inner is not None
        assert again.inner is not None
        assert (first.inner.body, first.inner.trailers) == (again.inner.body, again.inner.trailers)
        assert engine.runs == 1
        assert enclave.metering.snapshot().used == {LOAN_METER: 1}


@asynchronous
async def test_another_request_under_the_same_key_is_refused(tmp_path: Path) -> None:
    """T44, second of three, and bad input 44."""
    world = make_world(tmp_path, {"m": doubler()})
    engine = WatchedEngine()
    async with world.enclave(engine=engine) as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        await consumer.infer([ROW], idempotency_key="k1")
        other = await consumer.infer([[9.0, 9.0, 9.0]], idempotency_key="k1")
        assert (other.status, other.json["code"]) == (422, "request_id_reused")
    assert engine.runs == 1


@asynchronous
async def test_keys_of_different_consumers_never_meet(tmp_path: Path) -> None:
    """T44: scope is the consumer."""
    world = make_world(tmp_path, {"m": doubler()})
    engine = WatchedEngine()
    async with world.enclave(engine=engine) as enclave:
        alice, bob = (ConsumerSide(enclave, world.clock, token) for token in (ALICE, BOB))
        assert (await alice.infer([ROW], idempotency_key="k1")).status == 200
        assert (await bob.infer([[0.0, 0.0, 0.0]], idempotency_key="k1")).status == 200
    assert engine.runs == 2


@asynchronous
async def test_a_failed_request_may_be_tried_again_under_its_key(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, allowance=1)
    engine = WatchedEngine(before=failing)
    async with world.enclave(engine=engine) as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        assert (await consumer.infer([ROW], idempotency_key="k1")).status == 500
        engine.before = None
        assert (await consumer.infer([ROW], idempotency_key="k1")).status == 200
        assert (await consumer.infer([ROW], idempotency_key="k1")).status == 200
    assert engine.runs == 2


@asynchronous
async def test_a_second_request_under_a_running_key_waits_for_the_first(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, allowance=2)
    hold = threading.Event()
    engine = WatchedEngine(before=lambda: hold.wait(5) and None)
    async with world.enclave(engine=engine, engine_workers=2) as enclave:
        first, second = (ConsumerSide(enclave, world.clock) for _ in range(2))
        running = asyncio.create_task(first.infer([ROW], idempotency_key="k1"))
        while not engine.runs:  # noqa: ASYNC110 - the run starts in a thread
            await asyncio.sleep(0.01)
        early = await second.infer([ROW], idempotency_key="k1")
        hold.set()
        assert (early.status, early.json["code"]) == (409, "request_in_flight")
        assert (await running).status == 200
    assert engine.runs == 1


@asynchronous
async def test_a_restart_forgets_keys_and_starts_with_nothing(tmp_path: Path) -> None:
    """T44, third of three, and T31: what was spent stays spent, what was escrowed is not found again."""
    world = make_world(tmp_path, {"m": doubler()}, allowance=10, max_ceiling=4)
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        sealed, _ = await consumer.seal(consumer.request("POST", "/v2/models/m/infer", infer_body([ROW])))
        assert (await consumer.infer([ROW], idempotency_key="k1")).status == 200
        first_instance = enclave.metering.instance
    async with world.enclave(lease=False) as enclave:
        assert enclave.metering.instance != first_instance
        assert enclave.metering.snapshot().limits == {}
        consumer = ConsumerSide(enclave, world.clock)
        await enclave.publisher.tick()
        assert (await consumer.infer([ROW], idempotency_key="k1")).json["code"] == "lease_expired"
        assert (await consumer.post(sealed)).status_code == 400
        await enclave.renewal.once()
        assert (await consumer.infer([ROW], idempotency_key="k1")).status == 200
    assert world.custodian.balances[LOAN_METER] <= 2
    assert world.custodian.alarms == []


@asynchronous
async def test_models_and_consumers_have_meters_of_their_own(tmp_path: Path) -> None:
    world = make_world(
        tmp_path,
        {"m": doubler(), "free": doubler()},
        metered=("m", "alice"),
        meters={"m": 5, "alice": 2},
    )
    async with world.enclave() as enclave:
        alice, bob = (ConsumerSide(enclave, world.clock, token) for token in (ALICE, BOB))
        assert (await alice.infer([ROW] * 2)).status == 200
        assert (await alice.infer([ROW], model="free")).json["reasons"][0]["subject"] == "consumer:alice"
        assert (await bob.infer([ROW] * 3)).status == 200
        assert (await bob.infer([ROW])).json["reasons"][0]["subject"] == "model:m"
        assert (await bob.infer([ROW], model="free")).status == 200


@asynchronous
async def test_an_exhausted_loan_goes_on_after_a_top_up(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, allowance=1)
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        assert (await consumer.infer([ROW])).status == 200
        assert (await consumer.infer([ROW])).status == 402
        world.custodian.top_up(2)
        world.clock.advance(6)
        assert enclave.metering.next_renewal(0.5).total_seconds() <= 0, "a top-up must not wait for T/3"
        await enclave.renewal.once()
        assert (await consumer.infer([ROW] * 2)).status == 200
        assert (await consumer.infer([ROW])).status == 402


@pytest.mark.parametrize(
    ("token", "status"), [(None, 401), (b"wrong-token-0123456789", 401), (b"x", 401), (ALICE, 200)]
)
@asynchronous
async def test_only_the_loans_consumers_are_served(tmp_path: Path, token: bytes | None, status: int) -> None:
    world = make_world(tmp_path, {"m": doubler()})
    engine = WatchedEngine()
    async with world.enclave(engine=engine) as enclave:
        consumer = ConsumerSide(enclave, world.clock, token)
        assert (await consumer.infer([ROW])).status == status
        assert (await consumer.get("/v2/models/m")).status == status
        assert (await consumer.get("/v2")).status == status
        assert (await consumer.get("/v2/health/live")).status == 200
    assert engine.runs == (1 if status == 200 else 0)


@asynchronous
async def test_a_loan_open_to_anybody_needs_no_token(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, consumers=None)
    async with world.enclave() as enclave:
        assert (await ConsumerSide(enclave, world.clock, None).infer([ROW])).status == 200


@asynchronous
async def test_a_block_reaches_model_consumer_and_loan_at_the_next_renewal(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler(), "other": doubler()})
    engine = WatchedEngine()
    async with world.enclave(engine=engine) as enclave:
        alice, bob = (ConsumerSide(enclave, world.clock, token) for token in (ALICE, BOB))
        world.custodian.block(consumer="bob", model=world.custodian.lent[1].terms.digest)
        await enclave.renewal.once()
        blocked = await bob.infer([ROW])
        assert (blocked.status, blocked.json["reasons"][0]["subject"]) == (403, "consumer bob")
        blocked = await alice.infer([ROW], model="other")
        assert (blocked.status, blocked.json["reasons"][0]["subject"]) == (403, "model other")
        assert (await alice.get("/v2/models/other/ready")).status == 503
        assert (await alice.infer([ROW])).status == 200
        world.custodian.block(loan=True)
        await enclave.renewal.once()
        assert (await alice.infer([ROW])).json["code"] == "blocked"
        assert enclave.metering.must_end()
    assert engine.runs == 1


@asynchronous
async def test_a_token_that_was_replaced_is_nobodys(tmp_path: Path) -> None:
    """Not for inference, and not for what costs nothing: metadata and answers kept under a request id."""
    world = make_world(tmp_path, {"m": doubler()})
    async with world.enclave() as enclave:
        stolen = ConsumerSide(enclave, world.clock, ALICE)
        assert (await stolen.infer([ROW], idempotency_key="k1")).status == 200
        state = world.custodian.state()
        alice, *others = state.terms.consumers or ()
        fresh = replace(alice, token_sha256=hashlib.sha256(b"a-new-token-0123456789").digest())
        world.custodian.loan = replace(state, terms=replace(state.terms, consumers=(fresh, *others)))
        await enclave.renewal.once()
        assert (await stolen.get("/v2/models/m")).status == 401
        assert (await stolen.infer([ROW], idempotency_key="k1")).status == 401
        assert (await ConsumerSide(enclave, world.clock, b"a-new-token-0123456789").infer([ROW])).status == 200


@asynchronous
async def test_a_stored_reply_is_not_given_to_a_consumer_blocked_since(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()})
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        assert (await consumer.infer([ROW], idempotency_key="k1")).status == 200
        world.custodian.block(consumer="alice")
        await enclave.renewal.once()
        assert (await consumer.infer([ROW], idempotency_key="k1")).status == 403


@asynchronous
async def test_several_inputs_and_outputs_with_binary_data_through_the_gateway(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": adder()})
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        a, b = (
            b"".join(n.to_bytes(8, "little") for n in (1, 2, 3, 4)),
            b"".join(n.to_bytes(8, "little") for n in (10, 20, 30, 40)),
        )
        parameters = {"binary_data_size": 32}
        head = json.dumps(
            {
                "inputs": [
                    {"name": "b", "datatype": "INT64", "shape": [2, 2], "parameters": parameters},
                    {"name": "a", "datatype": "INT64", "shape": [2, 2], "parameters": parameters},
                ],
                "outputs": [{"name": "product", "parameters": {"binary_data": True}}, {"name": "sum"}],
            }
        ).encode()
        request = consumer.request(
            "POST", "/v2/models/m/infer", head + b + a, inference_header_content_length=str(len(head))
        )
        answer = await consumer.send(request)
        assert answer.inner is not None
        size = int(answer.field("inference-header-content-length") or "0")
        told = json.loads(answer.inner.body[:size])
        assert [one["name"] for one in told["outputs"]] == ["product", "sum"]
        assert told["outputs"][1]["data"] == [11, 22, 33, 44]
        product = answer.inner.body[size:]
        assert [int.from_bytes(product[at : at + 8], "little") for at in range(0, 32, 8)] == [10, 40, 90, 160]
        assert answer.field("cloister-units") == "2"


@asynchronous
async def test_a_large_json_request_is_read_aside_and_counted(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, allowance=10_000, max_ceiling=10_000)
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        answer = await consumer.infer([ROW] * 9_000)
        assert (answer.status, answer.field("cloister-units")) == (200, "9000")
        assert (await consumer.infer([ROW] * 1_001)).status == 402


@asynchronous
async def test_answers_and_json_beyond_the_limits_are_refused_uncharged(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, allowance=100)
    async with world.enclave(limits={"max_response_bytes": 400, "max_json_bytes": 2000}) as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        assert (await consumer.infer([ROW])).status == 200
        assert (await consumer.infer([ROW] * 40)).json["code"] == "too_large"
        assert (await consumer.infer([ROW] * 99)).status in {400, 413}
        assert enclave.metering.snapshot().served == 1


@asynchronous
async def test_strings_go_through_the_gateway(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": identity(TensorProto.STRING, ["n"])})
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        body = json.dumps(
            {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [2], "data": ["grüße", ""]}]}
        ).encode()
        answer = await consumer.send(consumer.request("POST", "/v2/models/m/infer", body))
        assert answer.json["outputs"][0]["data"] == ["grüße", ""]
        assert answer.field("cloister-units") == "2"


@asynchronous
async def test_what_the_inner_api_does_not_know(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()})
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        digest = world.custodian.lent[0].terms.digest
        cases = {
            ("GET", "/v2/models/nothing"): (404, "unknown_model"),
            ("GET", f"/v2/models/m/versions/{'0' * 64}"): (404, "unknown_model"),
            ("GET", "/"): (404, "not_found"),
            ("GET", "/v2/models/m/"): (404, "not_found"),
            ("GET", "/v2/models/../m"): (404, "not_found"),
            ("POST", "/v2/models/m"): (405, "method_not_allowed"),
            ("GET", "/v2/models/m/infer"): (405, "method_not_allowed"),
            ("POST", "/v2/models/m/infer"): (400, "malformed"),
        }
        for (method, path), want in cases.items():
            answer = await consumer.send(consumer.request(method, path))
            assert (answer.status, answer.json["code"]) == want, path
        for path in (f"/v2/models/m/versions/{digest}", "/v2/models/m/ready", "/v2/health/ready", "/v2"):
            assert (await consumer.get(path)).status == 200, path
