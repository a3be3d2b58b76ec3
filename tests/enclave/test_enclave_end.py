"""How serving ends: by time, by count, by a stop, by a lying clock; and what is left in memory."""

from __future__ import annotations

import asyncio
import gc
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx2
import pytest
from enclave_engines import WatchedEngine
from enclave_models import doubler
from enclave_parties import ConsumerSide, World, make_world

from cloister.enclave.custodian_link import CustodianLink
from cloister.enclave.renew import Ending
from cloister.errors import Rejected, Unavailable
from cloister.heap import settle_heap
from cloister.lending import usage_chain
from cloister.lending.clock import GAP, lifetime
from cloister.lending.lease import LeaseState
from cloister.lending.messages import Lease
from cloister.lending.terms import LOAN_METER
from loops import asynchronous

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from enclave_parties import FakeClock

    from cloister.enclave.instance import EnclaveInstance

ROW = [1.0, 2.0, 3.0]
T = 60


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path, {"m": doubler()}, ttl=T)


@asynchronous
async def test_after_the_network_is_cut_serving_ends_at_t(world: World) -> None:
    """T36: a kill switch that cannot be reached still works, by time."""
    engine = WatchedEngine()
    async with world.enclave(engine=engine) as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        world.custodian.cut = True
        world.custodian.block(loan=True)
        last = 0
        for second in range(0, 2 * T, 5):
            if (await consumer.infer([ROW])).status == 200:
                last = second
            with pytest.raises(Unavailable):
                await enclave.renewal.once()
            world.clock.advance(5)
        assert last == T - 5
        answer = await consumer.infer([ROW])
        assert (answer.status, answer.json["code"]) == (409, "lease_expired")


@asynchronous
async def test_after_the_network_is_cut_serving_ends_by_count(tmp_path: Path) -> None:
    """T36: whichever comes first."""
    world = make_world(tmp_path, {"m": doubler()}, max_ceiling=3, allowance=100)
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        world.custodian.cut = True
        statuses = [(await consumer.infer([ROW])).status for _ in range(5)]
        assert statuses == [200, 200, 200, 402, 402]


@pytest.mark.parametrize("step", ["challenge", "attest", "lease"])
@asynchronous
async def test_a_cut_at_any_step_of_boot_serves_nothing(tmp_path: Path, step: str) -> None:
    """T36: cut at every protocol step."""
    world = make_world(tmp_path, {"m": doubler()})
    calls = {"challenge": 1, "attest": 2, "lease": 3}[step]

    class Cutting(httpx2.AsyncBaseTransport):
        """Lets some calls through and cuts the rest."""

        def __init__(self) -> None:
            self.left = calls
            self.real = httpx2.ASGITransport(app=world.custodian.app())

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            """Count and cut."""
            self.left -= 1
            if self.left <= 0:
                msg = "cut"
                raise httpx2.ConnectError(msg)
            return await self.real.handle_async_request(request)

    cutting = Cutting()
    world.transport = cutting
    with pytest.raises(Unavailable):
        async with world.enclave():
            pass


@asynchronous
async def test_a_renewal_held_back_is_worth_nothing(world: World) -> None:
    """T35: time runs from the sending of the request."""
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)

        async def hold() -> None:
            await asyncio.sleep(0)
            world.clock.advance(2 * T - 1)

        world.custodian.before_answer = hold
        answer = await enclave.renewal.once()
        assert isinstance(answer, Lease)
        assert enclave.metering.snapshot().state is LeaseState.EXPIRED
        assert (await consumer.infer([ROW])).json["code"] == "lease_expired"


@asynchronous
async def test_a_lost_answer_is_asked_for_again_with_the_same_bytes(world: World) -> None:
    """Bad input 78: no second debit for a retry."""
    async with world.enclave() as enclave:
        before = dict(world.custodian.balances)

        async def lose() -> None:
            await asyncio.sleep(0)
            msg = "lost"
            raise httpx2.ReadError(msg)

        consumer = ConsumerSide(enclave, world.clock)
        await consumer.infer([ROW])
        world.custodian.before_answer = lose
        for _ in range(3):
            with pytest.raises(Unavailable):
                await enclave.renewal.once()
        world.custodian.before_answer = None
        await enclave.renewal.once()
        assert world.custodian.served == 2
        assert world.custodian.alarms == []
        assert before[LOAN_METER] - world.custodian.balances[LOAN_METER] <= 1


@pytest.mark.parametrize("step", [-55, -2, 2, 55])
@asynchronous
async def test_a_stepped_wall_clock_voids_the_lease(tmp_path: Path, step: int) -> None:
    """T37 and E7: forward or back, the count stays and the time is gone."""
    world = make_world(tmp_path, {"m": doubler()})
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        assert (await consumer.infer([ROW])).status == 200
        world.clock.step_wall(step)
        answer = await consumer.infer([ROW])
        assert (answer.status, answer.json["code"]) == (409, "clock_step")
        assert '"event": "clock_step"' in world.log.getvalue()
        await enclave.renewal.once()
        assert (await consumer.infer([ROW])).status == 200


@asynchronous
async def test_a_clock_set_far_back_serves_no_replay(world: World) -> None:
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        assert (await consumer.infer([ROW])).status == 200
        world.clock.step_wall(-3600)
        await enclave.renewal.once()
        assert (await consumer.infer([ROW])).outer == 429


@asynchronous
async def test_a_frozen_clock_still_ends_by_count(tmp_path: Path) -> None:
    """T37: when time cannot be trusted at all, N further units is the bound."""
    world = make_world(tmp_path, {"m": doubler()}, max_ceiling=4)
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        world.custodian.cut = True
        served = [(await consumer.infer([ROW])).status for _ in range(20)].count(200)
        assert served == 4


@asynchronous
async def test_a_monotonic_clock_run_back_voids_the_lease(world: World) -> None:
    """T37: a restored or paused machine."""
    async with world.enclave() as enclave:
        world.clock.step_boot(-30)
        consumer = ConsumerSide(enclave, world.clock)
        assert (await consumer.infer([ROW])).json["code"] == "clock_step"


@asynchronous
async def test_a_slept_machine_finds_its_lease_expired(world: World) -> None:
    async with world.enclave() as enclave:
        world.clock.advance(T)
        consumer = ConsumerSide(enclave, world.clock)
        assert (await consumer.infer([ROW])).json["code"] == "lease_expired"
        world.clock.advance(T)
        assert enclave.metering.must_end()


@asynchronous
async def test_a_signed_stop_ends_the_loop_at_once(world: World) -> None:
    async with world.enclave() as enclave:
        world.custodian.block(loan=True)
        world.clock.advance(T / 3)
        assert await asyncio.wait_for(enclave.renewal.until_end(), 10) is Ending.STOPPED
        assert enclave.metrics.value("cloister_renewals_total", "stop") == 1


@asynchronous
async def test_without_renewal_the_loop_ends_at_two_t(world: World) -> None:
    async with world.enclave() as enclave:
        world.custodian.cut = True
        ending = asyncio.create_task(enclave.renewal.until_end())
        for _ in range(60):
            await asyncio.sleep(0.05)
            if ending.done():
                break
            _live(world, enclave, 5)
        assert await asyncio.wait_for(ending, 10) is Ending.EXPIRED
        assert enclave.metrics.value("cloister_renewals_total", "unavailable") >= 1


@asynchronous
async def test_the_loop_renews_at_a_third_and_tolerates_lost_renewals(world: World) -> None:
    async with world.enclave() as enclave:
        loop = asyncio.create_task(enclave.renewal.until_end())
        served = world.custodian.served
        await asyncio.sleep(0)
        _live(world, enclave, T / 3 - 1)
        await asyncio.sleep(0.3)
        assert world.custodian.served == served
        world.clock.advance(1.1)
        await _until(lambda: world.custodian.served == served + 1)
        await _until(lambda: _left(enclave, world) > timedelta(seconds=T - 2))  # its answer has been taken too
        world.custodian.cut = True
        for _ in range(4):
            _live(world, enclave, T / 6)
            await asyncio.sleep(0.25)
        assert enclave.metering.snapshot().state is LeaseState.ACTIVE
        world.custodian.cut = False
        _live(world, enclave, T / 8)  # the latest that a retry every T/10 may come, with its jitter
        await _until(lambda: world.custodian.served >= served + 2)
        await _until(lambda: _left(enclave, world) > timedelta(seconds=T / 2))
        loop.cancel()


@asynchronous
async def test_a_busy_instance_reports_between_two_renewals(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what it can serve in T/3 would be what it may have unreported (U2a)."""
    monkeypatch.setattr(usage_chain, "MAX_RECORDS", 4)
    async with world.enclave() as enclave:
        loop = asyncio.create_task(enclave.renewal.until_end())
        served, consumer = world.custodian.served, ConsumerSide(enclave, world.clock)
        for _ in range(10):
            assert (await consumer.infer([ROW])).status == 200
        await _until(lambda: enclave.metering.snapshot().unreported == 2)
        assert world.custodian.served == served
        loop.cancel()


@asynchronous
async def test_a_report_that_hangs_does_not_hold_the_renewal_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_chain, "MAX_RECORDS", 4)
    given: list[timedelta] = []

    async def report(_link: CustodianLink, _instance: str, _statement: bytes, *, within: timedelta) -> bytes:
        given.append(within)
        msg = "nothing came in that time"
        raise Unavailable(msg)

    monkeypatch.setattr(CustodianLink, "report", report)
    async with world.enclave() as enclave:
        loop = asyncio.create_task(enclave.renewal.until_end())
        served, consumer = world.custodian.served, ConsumerSide(enclave, world.clock)
        _live(world, enclave, T / 3 - 1.5)
        for _ in range(4):
            assert (await consumer.infer([ROW])).status == 200
        await _until(lambda: bool(given))
        assert timedelta(0) < given[0] <= timedelta(seconds=1.5)
        _live(world, enclave, 2)
        await _until(lambda: world.custodian.served > served and enclave.metering.snapshot().unreported == 0)
        loop.cancel()


@asynchronous
async def test_who_cannot_be_reached_gets_no_reports_until_a_renewal_got_through(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_chain, "MAX_RECORDS", 4)
    async with world.enclave() as enclave:
        world.custodian.cut = True
        loop = asyncio.create_task(enclave.renewal.until_end())
        consumer = ConsumerSide(enclave, world.clock)
        for _ in range(9):
            assert (await consumer.infer([ROW])).status == 200
        await _until(lambda: enclave.renewal.failing)
        failures = enclave.metrics.value("cloister_renewals_total", "unavailable")
        await asyncio.sleep(0.7)
        assert enclave.metrics.value("cloister_renewals_total", "unavailable") == failures
        world.custodian.cut = False
        await asyncio.sleep(0.5)
        assert enclave.metering.snapshot().unreported == 9
        _live(world, enclave, T / 3 + 1)
        await _until(lambda: enclave.metering.snapshot().unreported == 0)
        loop.cancel()


def _live(world: World, enclave: EnclaveInstance, seconds: float) -> None:
    """Let time pass for a process that goes on living: with its heartbeats."""
    while seconds > 0:
        world.clock.advance(min(seconds, 4))
        enclave.metering.beat()
        seconds -= 4


@asynchronous
async def test_t37_a_process_that_was_stopped_asks_before_it_serves_again(world: World) -> None:
    """A paused machine: its lease still has time, but what was decided meanwhile is not known to it."""
    async with world.enclave() as enclave:
        enclave.metering.beat()
        world.clock.advance(GAP.total_seconds())
        consumer = ConsumerSide(enclave, world.clock)
        assert (await consumer.infer([ROW])).status == 200
        enclave.metering.beat()
        world.custodian.block(consumer="alice")
        world.clock.advance(GAP.total_seconds() + 0.1)
        assert (await consumer.infer([ROW])).json["code"] == "clock_step"
        assert enclave.metering.anomalies == {"clock_gap": 1}
        await enclave.renewal.once()
        assert (await consumer.infer([ROW])).json["code"] == "blocked"


@asynchronous
async def test_t37_every_clock_slowed_alike_is_found_out_at_the_next_renewal(world: World) -> None:
    """The custodian's clock stands outside the machine, and each lease says when it was committed."""
    async with world.enclave(clock=Slowed(world.clock, 100)) as enclave:
        world.clock.advance(30)
        assert enclave.metering.next_renewal(0.5).total_seconds() > 0, "by its own clock nothing is due"
        await enclave.renewal.once()
        assert enclave.metering.anomalies == {"clock_slow": 1}
        consumer = ConsumerSide(enclave, world.clock)
        assert (await consumer.infer([ROW])).json["code"] == "clock_step"


class Slowed:
    """A machine whose hypervisor slows every clock."""

    def __init__(self, clock: FakeClock, factor: int) -> None:
        self._clock, self._factor = clock, factor
        self._boot, self._wall = clock.monotonic(), clock.wall()

    def monotonic(self) -> timedelta:
        """Return time since boot."""
        return self._boot + (self._clock.monotonic() - self._boot) / self._factor

    def wall(self) -> datetime:
        """Return the time of day."""
        return self._wall + (self._clock.wall() - self._wall) / self._factor


async def _until(holds: Callable[[], bool]) -> None:
    """Wait for something that the loop does by itself."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - the loop under test sets no event
            await asyncio.sleep(0.02)


def _left(enclave: EnclaveInstance, world: World) -> timedelta:
    deadline = enclave.metering.snapshot().deadline
    assert deadline is not None
    return deadline - world.clock.wall()


def test_after_the_end_keys_and_models_are_gone_and_requests_refused(world: World) -> None:
    """T26: what can be shown in software. Only a real TEE proves the rest."""

    async def body() -> None:
        engine = WatchedEngine()
        async with world.enclave(engine=engine) as enclave:
            consumer = ConsumerSide(enclave, world.clock)
            sealed, _ = await consumer.seal(consumer.request("GET", "/v2"))
            world.custodian.cut = True
            world.clock.advance(2 * T)
            assert enclave.metering.must_end()
            enclave.wipe()
            assert engine.closed == 1
            assert (await consumer.post(sealed)).status_code == 503
            with pytest.raises(Unavailable):
                _ = enclave.publisher.keys
            with pytest.raises(Rejected):
                enclave.metering.request(bytes(16))
            assert enclave.not_ready() == ["draining", "unloaded", "no_lease", "no_keyset"]
            enclave.wipe()

    earlier = _keepers()  # what other tests of this process still hold
    asyncio.run(body())
    gc.collect()
    assert not [item for item in _keepers() if not any(item is other for other in earlier)]


def test_keys_and_models_go_without_the_collector_for_a_settled_heap_is_not_walked_again(world: World) -> None:
    """T26: what was set aside when serving began is freed by counting references, or never."""

    async def body() -> None:
        async with world.enclave(engine=WatchedEngine()) as enclave:
            settle_heap()
            consumer = ConsumerSide(enclave, world.clock)
            assert (await consumer.infer([ROW])).status == 200
            sealed, _ = await consumer.seal(consumer.request("GET", "/v2"))
            for damaged in (sealed[:-1], sealed[:40], sealed[:-1] + bytes([sealed[-1] ^ 1]), sealed + b"x"):
                assert (await consumer.post(damaged)).status_code == 400
            enclave.wipe()

    earlier = _keepers()
    gc.disable()
    try:
        asyncio.run(body())
    finally:
        gc.enable()
        gc.unfreeze()  # else they would not be listed
    assert not [item for item in _keepers() if not any(item is other for other in earlier)]


def _keepers() -> list[object]:
    """Return every object alive that holds keys or a model."""
    names = {"KemPrivateKey", "GatewayKeys", "OnnxModel"}
    return [item for item in gc.get_objects() if type(item).__name__ in names]


@asynchronous
async def test_the_last_count_is_sent_and_fits(world: World) -> None:
    async with world.enclave() as enclave:
        consumer = ConsumerSide(enclave, world.clock)
        await consumer.infer([ROW] * 7)
        enclave.wipe()
        await enclave.send_close()
        assert world.custodian.closed == [7]
        assert world.custodian.alarms == []


def test_the_bound_that_is_printed_holds_for_this_t() -> None:
    assert lifetime(timedelta(seconds=T)) == timedelta(seconds=61.06)
