"""The gateway under attack: altered, replayed, cross-wired, cut, stale, oversized, slow."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from enclave_engines import WatchedEngine
from enclave_models import doubler, spreader
from enclave_parties import ALICE, BOB, Answer, ConsumerSide, World, drive, infer_body, make_world, opened

from cloister.channel.bhttp import BinaryRequest
from cloister.channel.keyset import (
    CHUNKED_REQUEST_TYPE,
    CHUNKED_RESPONSE_TYPE,
    GATEWAY_PATH,
    KEYS_TYPE,
    OHTTP_KEY_PROBLEM,
)
from cloister.channel.ohttp import GatewayKeys, seal_request
from cloister.channel.padding import padded_size
from cloister.channel.replay import dump_http_date
from cloister.enclave.app import create_app
from cloister.errors import Rejected
from cloister.lending.terms import LOAN_METER
from cloister.telemetry.exposition import prometheus_text
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.enclave.instance import EnclaveInstance

ROW = [1.0, 2.0, 3.0]
BLANK = b'{"status":400,"title":"Bad Request","type":"about:blank"}'


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path, {"m": doubler()})


def asked(consumer: ConsumerSide, rows: list[list[float]] | None = None) -> BinaryRequest:
    return consumer.request("POST", "/v2/models/m/infer", infer_body(rows or [ROW]))


@asynchronous
async def test_a_replayed_ciphertext_costs_nothing_and_gets_nothing(world: World) -> None:
    """T56, bad input 43."""
    engine = WatchedEngine()
    async with world.enclave(engine=engine) as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        sealed, opener = await consumer.seal(asked(consumer))
        assert opened(await consumer.post(sealed), opener).status == 200
        for seconds in (0, 1, 58, 120, 3600):
            world.clock.advance(seconds)
            if seconds == 3600:
                await enclave.renewal.once()
            again = await consumer.post(sealed)
            if seconds < 60:
                assert (again.status_code, again.content) == (400, BLANK)
        assert enclave.metering.snapshot().served == 1
    assert engine.runs == 1


@asynchronous
async def test_a_replay_at_the_same_moment_runs_once(world: World) -> None:
    engine = WatchedEngine()
    async with world.enclave(engine=engine, engine_workers=4) as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        sealed, _ = await consumer.seal(asked(consumer))
        answers = await asyncio.gather(*(consumer.post(sealed) for _ in range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] + [400] * 7
    assert engine.runs == 1


@asynchronous
async def test_every_altered_byte_of_a_request_gets_one_identical_error(world: World) -> None:
    """T55 and T63, bad inputs 39 and 40: one status, one body, no oracle."""
    engine = WatchedEngine()
    async with world.enclave(engine=engine) as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        sealed, _ = await consumer.seal(asked(consumer))
        rng = random.Random(5)
        places = sorted({*range(3, 60), *rng.sample(range(60, len(sealed)), 120), len(sealed) - 1})
        for at in places:
            damaged = bytearray(sealed)
            damaged[at] ^= 1 << rng.randrange(8)
            answer = await consumer.post(bytes(damaged))
            assert (answer.status_code, answer.content) == (400, BLANK), at
        for size in (0, 1, 6, 7, 8, 1100, len(sealed) - 1):
            answer = await consumer.post(sealed[:size])
            assert (answer.status_code, answer.content) == (400, BLANK), size
        assert (await consumer.post(sealed + b"\x00")).content == BLANK
    assert engine.runs == 0


@asynchronous
async def test_every_altered_byte_of_an_answer_is_an_error_and_never_another_result(world: World) -> None:
    """T55: the way back."""
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        rng = random.Random(6)
        for _ in range(25):
            sealed, opener = await consumer.seal(asked(consumer))
            answer = bytearray((await consumer.post(sealed)).content)
            answer[rng.randrange(len(answer))] ^= 1 << rng.randrange(8)
            with pytest.raises(Rejected):
                _ = [*opener.feed(bytes(answer)), opener.end()]


@asynchronous
async def test_an_unknown_key_is_told_so_that_a_client_can_verify_again(world: World) -> None:
    """Bad input 38."""
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        foreign = GatewayKeys.generate(older=enclave.publisher.keys)
        sealed, _ = seal_request(foreign.configs[0], asked(consumer).dump())
        answer = await consumer.post(sealed)
        assert (answer.status_code, answer.json()["type"]) == (400, OHTTP_KEY_PROBLEM)


@asynchronous
async def test_answers_of_two_consumers_cannot_be_swapped(world: World) -> None:
    """T57, bad input 45."""
    async with world.enclave() as enclave:
        alice, bob = (ConsumerSide(enclave, world.clock, token) for token in (ALICE, BOB))
        (for_alice, alice_opener), (for_bob, bob_opener) = await alice.seal(asked(alice)), await bob.seal(asked(bob))
        to_alice, to_bob = await alice.post(for_alice), await bob.post(for_bob)
        for answer, opener in ((to_bob, alice_opener), (to_alice, bob_opener)):
            with pytest.raises(Rejected) as refused:
                opened(answer, opener)
            assert refused.value.code == "decryption_failed"


@asynchronous
async def test_an_answer_cut_at_any_chunk_is_truncated(tmp_path: Path) -> None:
    """T58, bad input 46."""
    world = make_world(tmp_path, {"m": spreader(60_000)})
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        sealed, opener = await consumer.seal(asked(consumer, [[1.5]]))
        status, chunks, ended = await drive(create_app(enclave), [sealed])
        assert (status, ended) == (200, True)
        assert len(chunks) > 3
        whole = b"".join([*opener.feed(b"".join(chunks)), opener.end()])
        assert len(whole) == padded_size(len(whole))
        for keep in range(len(chunks)):
            sealed, opener = await consumer.seal(asked(consumer, [[1.5]]))
            _, chunks, _ = await drive(create_app(enclave), [sealed])
            opener.feed(b"".join(chunks[:keep]))
            with pytest.raises(Rejected) as refused:
                opener.end()
            assert refused.value.code == "truncated"
        for swap in (1, 2):
            sealed, opener = await consumer.seal(asked(consumer, [[1.5]]))
            _, chunks, _ = await drive(create_app(enclave), [sealed])
            chunks[swap], chunks[swap + 1] = chunks[swap + 1], chunks[swap]
            with pytest.raises(Rejected):
                _ = [*opener.feed(b"".join(chunks)), opener.end()]


@asynchronous
async def test_a_long_stream_is_cut_when_the_lease_ends(tmp_path: Path) -> None:
    """T49: a slow reader cannot make an answer outlive the lease by more than one chunk."""
    world = make_world(tmp_path, {"m": spreader(60_000)}, ttl=5)
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        sealed, opener = await consumer.seal(asked(consumer, [[1.5]]))
        left: list[float] = []

        async def slow(_: int) -> None:
            await asyncio.sleep(0)
            left.append((world.clock.wall() - begun).total_seconds())
            world.clock.advance(2)

        begun = world.clock.wall()
        status, chunks, _ = await drive(create_app(enclave), [sealed], on_chunk=slow)
        assert status == 200
        assert max(left) < 5
        assert len(chunks) == 3
        opener.feed(b"".join(chunks))
        with pytest.raises(Rejected) as refused:
            opener.end()
        assert refused.value.code == "truncated"
        assert enclave.metrics.value("cloister_exchanges_total", "cut") == 1


@asynchronous
async def test_a_block_cuts_a_stream_that_is_under_way(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": spreader(60_000)})
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        sealed, _ = await consumer.seal(asked(consumer, [[1.5]]))

        async def blocked_after_two(count: int) -> None:
            if count == 2:
                world.custodian.block(consumer="alice")
                await enclave.renewal.once()

        _, chunks, _ = await drive(create_app(enclave), [sealed], on_chunk=blocked_after_two)
        assert len(chunks) == 2


@pytest.mark.parametrize("seconds", [-61, 61, -3600, 86400])
@asynchronous
async def test_a_date_outside_the_window_is_refused_with_the_enclaves_own(tmp_path: Path, seconds: int) -> None:
    world = make_world(tmp_path, {"m": doubler()})
    engine = WatchedEngine()
    async with world.enclave(engine=engine) as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        request = asked(consumer)
        world.clock.advance(0)
        ahead = FakeDate(request, world, seconds).request
        answer = await consumer.send(ahead)
        assert (answer.status, answer.json["code"]) == (400, "date_skewed")
        assert answer.json["type"] == "https://iana.org/assignments/http-problem-types#date"
        assert answer.json["error"] == answer.json["detail"], "what clients of the inference protocol read"
        assert answer.field("date") == dump_http_date(world.clock.wall())
    assert engine.runs == 0


class FakeDate:
    """A request with a Date that is off by some seconds."""

    def __init__(self, request: BinaryRequest, world: World, seconds: int) -> None:
        world.clock.step_wall(seconds)
        date = dump_http_date(world.clock.wall())
        world.clock.step_wall(-seconds)
        lines = tuple((name, date if name == "date" else value) for name, value in request.headers)
        self.request = BinaryRequest(
            method=request.method, authority="enclave", path=request.path, headers=lines, body=request.body
        )


@asynchronous
async def test_a_request_without_a_date_is_refused(world: World) -> None:
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        request = BinaryRequest(
            method="GET", authority="enclave", path="/v2", headers=(("authorization", f"Bearer {ALICE.decode()}"),)
        )
        assert (await consumer.send(request)).json["code"] == "date_missing"


@asynchronous
async def test_outer_headers_steer_nothing(world: World) -> None:
    """T64, bad inputs 41 and 42: only sealed fields count."""
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock, None)
        sealed, opener = await consumer.seal(asked(consumer))
        answer = await consumer.post(
            sealed,
            authorization=f"Bearer {ALICE.decode()}",
            idempotency_key="outer",
            x_model="other",
            inference_header_content_length="5",
        )
        assert opened(answer, opener).json["code"] == "unauthorized"
        consumer = ConsumerSide(enclave, world.clock)
        sealed, opener = await consumer.seal(asked(consumer))
        answer = await consumer.post(sealed, authorization="Bearer nobody", date="Mon, 01 Jan 2001 00:00:00 GMT")
        assert opened(answer, opener).status == 200


@asynchronous
async def test_a_request_for_another_replica_is_not_opened(world: World) -> None:
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        sealed, opener = await consumer.seal(asked(consumer))
        answer = await consumer.post(sealed, attested_instance="0" * 64)
        assert (answer.status_code, answer.json()["type"]) == (400, OHTTP_KEY_PROBLEM)
        answer = await consumer.post(sealed, attested_instance=enclave.metering.instance)
        assert opened(answer, opener).status == 200


@pytest.mark.parametrize("kind", ["application/json", "message/ohttp-req", "", "message/ohttp-chunked-req-x"])
@asynchronous
async def test_what_is_not_sealed_is_refused(tmp_path: Path, kind: str) -> None:
    """Bad input 37."""
    world = make_world(tmp_path, {"m": doubler()})
    async with world.enclave() as enclave:
        answer = await ConsumerSide(enclave, world.clock).post(infer_body([ROW]), content_type=kind)
        assert answer.status_code == 415


@asynchronous
async def test_a_request_too_large_is_refused_by_its_length_and_by_its_bytes(world: World) -> None:
    async with world.enclave(limits={"max_request_bytes": 4096}) as enclave:
        app = create_app(enclave)
        assert (await drive(app, [b"x"], headers={"content-length": "4097"}))[0] == 413
        assert (await drive(app, [b"x" * 2048] * 3))[0] == 413
        assert enclave.metrics.value("cloister_exchanges_total", "too_large") == 2


@asynchronous
async def test_what_looks_like_smuggling_is_refused(world: World) -> None:
    """Bad input 50."""
    kind = (b"content-type", CHUNKED_REQUEST_TYPE.encode())
    async with world.enclave() as enclave:
        app = create_app(enclave)
        for lines in (
            [kind, (b"content-length", b"5"), (b"transfer-encoding", b"chunked")],
            [kind, (b"content-length", b"5"), (b"content-length", b"6")],
            [kind, (b"content-length", b"+5")],
            [kind, (b"content-length", b"\xb2")],
        ):
            assert (await drive(app, [b"12345"], raw_headers=lines))[0] == 400


@asynchronous
async def test_metrics_say_how_long_exchanges_took_and_what_the_lease_allows_and_no_more(world: World) -> None:
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        sealed, opener = await consumer.seal(asked(consumer))
        assert opened(await consumer.post(sealed), opener).status == 200
        await drive(create_app(enclave), [b"noise"])
        enclave.measure()
        text = prometheus_text(enclave.metrics)
        assert "\ncloister_exchange_seconds_count 2\n" in text
        assert "\ncloister_lease_used_units 1\n" in text
        limit = enclave.metering.snapshot().limits[LOAN_METER]
        assert f"\ncloister_lease_ceiling_units {limit}\n" in text


@asynchronous
async def test_a_body_that_does_not_come_is_not_waited_for(world: World) -> None:
    """Bad input 52."""
    async with world.enclave(limits={"body_timeout_s": 1}) as enclave:
        status, _, _ = await drive(create_app(enclave), [b"\x00"], endless=True)
        assert status == 408
        assert enclave.metrics.value("cloister_exchanges_running") == 0


@asynchronous
async def test_a_reader_that_does_not_read_is_not_waited_for(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": spreader(60_000)})
    async with world.enclave(limits={"send_timeout_s": 1}) as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        sealed, _ = await consumer.seal(asked(consumer, [[1.5]]))

        async def never(count: int) -> None:
            if count == 2:
                await asyncio.sleep(3600)

        _, _, ended = await drive(create_app(enclave), [sealed], on_chunk=never)
        assert not ended
        assert enclave.metrics.value("cloister_exchanges_total", "cut") == 1


@asynchronous
async def test_too_many_exchanges_at_once_are_told_to_come_back(world: World) -> None:
    async with world.enclave(limits={"max_exchanges": 1}) as enclave:
        app = create_app(enclave)
        holding = asyncio.create_task(drive(app, [b"x"], endless=True))
        await asyncio.sleep(0.05)
        assert (await drive(app, [b"x"]))[0] == 429
        holding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holding
        assert (await drive(app, [b"x"]))[0] == 400


@asynchronous
async def test_t82_unfinished_bodies_do_not_fill_the_memory_together(world: World) -> None:
    async with world.enclave(limits={"max_waiting_bytes": 10_000}) as enclave:
        app = create_app(enclave)
        holding = [asyncio.create_task(drive(app, [bytes(4000)], endless=True)) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert (await drive(app, [bytes(4000)], endless=True))[0] == 429
        for task in holding:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        consumer = ConsumerSide(enclave, world.clock)
        assert (await consumer.infer([ROW])).status == 200


@asynchronous
async def test_a_full_replay_cache_is_closed_and_strangers_cannot_fill_it(world: World) -> None:
    async with world.enclave(limits={"replay_capacity": 2}) as enclave:
        stranger = ConsumerSide(enclave, world.clock, b"stranger-0123456789")
        for _ in range(5):
            assert (await stranger.infer([ROW])).status == 401
            assert (await stranger.get("/v2/health/ready")).status == 200
        consumer = ConsumerSide(enclave, world.clock)
        assert [(await consumer.infer([ROW])).outer for _ in range(3)] == [200, 200, 429]
        for _ in range(3):
            world.clock.advance(55)
            await enclave.renewal.once()
            assert (await consumer.infer([ROW])).outer == 429
        world.clock.advance(20)
        assert (await consumer.infer([ROW])).status == 200


@asynchronous
async def test_answers_come_in_few_sizes(world: World) -> None:
    """Bad input 48."""
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        sizes = {len((await consumer.infer([ROW] * rows)).body) for rows in range(1, 21)}
        assert len(sizes) <= 8


@asynchronous
async def test_no_compression_is_offered(world: World) -> None:
    """Bad input 49."""
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        answer = await consumer.infer([ROW], accept_encoding="gzip, br")
        assert answer.field("content-encoding") is None
        assert answer.json["outputs"][0]["data"] == [2.0, 4.0, 6.0]


@asynchronous
async def test_what_the_gateway_answers_outside(world: World) -> None:
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        configs = await consumer.plain(GATEWAY_PATH)
        assert (configs.headers["content-type"], configs.headers["cache-control"]) == (KEYS_TYPE, "no-store")
        assert configs.content == (await consumer.keyset()).ohttp_keys
        sealed, _ = await consumer.seal(asked(consumer))
        answer = await consumer.post(sealed)
        assert answer.headers["content-type"] == CHUNKED_RESPONSE_TYPE
        assert (answer.headers["incremental"], answer.headers["cache-control"]) == ("?1", "no-store")


@asynchronous
async def test_an_inner_message_that_does_not_parse_is_answered_sealed(world: World) -> None:
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        config = (await consumer.keyset()).configs[0]
        sealed, opener = seal_request(config, b"\x07 not binary http")
        answer = opened(await consumer.post(sealed), opener)
        assert (answer.status, answer.json["code"]) == (400, "malformed")


async def answers(enclave: EnclaveInstance, world: World) -> Answer:
    return await ConsumerSide(enclave, world.clock).infer([ROW])


@asynchronous
async def test_a_draining_gateway_takes_nothing_new_and_finishes_what_runs(world: World) -> None:
    async with world.enclave() as enclave:
        assert (await answers(enclave, world)).status == 200
        await enclave.admission.drain(1)
        assert (await answers(enclave, world)).outer == 503
        assert (await ConsumerSide(enclave, world.clock).plain("/readyz")).json()["reasons"] == ["draining"]
