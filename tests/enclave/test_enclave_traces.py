"""A consumer may name the trace that its request is part of, inside the encryption; and health that tells the truth."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from enclave_models import doubler
from enclave_parties import ConsumerSide, infer_body, make_world
from otlp_receiver import Receiver

from cloister.enclave.clock import SystemClock
from cloister.enclave.evidence import EvidenceSource
from cloister.enclave.measure import measure_software
from cloister.enclave.serve import Ending, Ready, Surroundings, serve_async
from cloister.errors import CloisterError, UsageError
from cloister.journal import EventLog
from cloister.telemetry.otlp import OtlpSpans, parse_traces_place
from cloister.testing.simulated import simulated_policy
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path

SEALED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
OUTER = "00-11111111111111111111111111111111-1111111111111111-01"


@asynchronous
async def test_t64_what_is_sealed_names_the_trace_and_what_is_outside_does_not(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()})
    with Receiver() as receiver:
        spans = OtlpSpans(parse_traces_place(receiver.url, 100), service="cloister-enclave", version="1")
        async with world.enclave() as enclave:
            enclave.api._spans = spans
            consumer = ConsumerSide(enclave, world.clock)
            inner = consumer.request("POST", "/v2/models/m/infer", infer_body([[1.0, 2.0, 3.0]]), traceparent=SEALED)
            sealed, _ = await consumer.seal(inner)
            assert (await consumer.post(sealed, traceparent=OUTER)).status_code == 200
            sealed, _ = await consumer.seal(
                consumer.request("POST", "/v2/models/m/infer", infer_body([[1.0, 2.0, 3.0]]))
            )
            assert (await consumer.post(sealed, traceparent=OUTER)).status_code == 200
        spans.close()
        first, second = receiver.named("infer m")
        assert first.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
        assert second.trace_id.hex() not in {first.trace_id.hex(), "1" * 32}
        assert not second.parent_span_id


async def ready(enclave: Any, world: Any) -> tuple[int, dict[str, tuple[str, str]], str]:
    """Return status and checks of ``/readyz``, and the word of ``/healthz``, which is 200 whatever happens."""
    consumer = ConsumerSide(enclave, world.clock)
    answer, health = await consumer.plain("/readyz"), await consumer.plain("/healthz")
    assert health.status_code == 200
    checks = {check["name"]: (check["state"], check["code"]) for check in answer.json()["checks"]}
    return answer.status_code, checks, health.json()["status"]


@asynchronous
async def test_an_expired_lease_is_said_and_a_custodian_that_is_gone_before_it(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, ttl=6)
    async with world.enclave() as enclave:
        status, checks, word = await ready(enclave, world)
        assert (status, {state for state, _ in checks.values()}, word) == (200, {"ok"}, "ok")
        world.custodian.cut = True
        world.clock.advance(3)
        with pytest.raises(CloisterError):
            await enclave.renewal.once()
        status, checks, word = await ready(enclave, world)
        assert (status, checks["custodian"], word) == (200, ("degraded", "renewal_failing"), "degraded")
        assert checks["lease"] == ("ok", "ok")
        world.clock.advance(10)
        status, checks, word = await ready(enclave, world)
        assert (status, checks["lease"], word) == (503, ("failed", "no_lease"), "degraded")
        enclave.wipe()
        status, checks, _ = await ready(enclave, world)
        assert (status, checks["models"], checks["serving"]) == (
            503, ("failed", "unloaded"), ("failed", "draining"),
        )  # fmt: skip


@asynchronous
async def test_a_served_enclave_shows_metrics_at_their_own_address_and_sends_spans(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()}, clock=SystemClock())
    with Receiver() as receiver:
        config = world.config(port=0, metrics="127.0.0.1:0", traces=receiver.url)
        assert isinstance(measured := config.measured(), dict)
        assert measured["traces"] is True
        around = Surroundings(
            clock=world.clock,
            log=EventLog(world.clock.wall, world.log),
            transport=httpx2.ASGITransport(app=world.custodian.app()),
        )
        world.custodian.trust(simulated_policy(measure_software(config)))
        source, stop = EvidenceSource(attester=world.attester(config)), asyncio.Event()
        found: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve_async(config, source, around=around, stop=stop, on_ready=found.set_result))
        ready = await asyncio.wait_for(found, 20)
        assert ready.metrics is not None
        async with httpx2.AsyncClient(trust_env=False) as client:
            text = (await client.get(ready.metrics)).text
            assert "cloister_lease_active 1\n" in text
            assert (await client.get(ready.url + "/metrics")).status_code == 404
        stop.set()
        assert await asyncio.wait_for(serving, 20) is Ending.DRAINED
        names = {span.name for span in receiver.spans}
        assert {"enclave.attest", "enclave.load", "lease.renew"} <= names
        async with httpx2.AsyncClient(trust_env=False) as client:
            with pytest.raises(httpx2.ConnectError):
                await client.get(ready.metrics)


def test_a_place_that_is_none_is_said_before_anything_is_attested(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"m": doubler()})
    around = Surroundings(clock=world.clock, log=EventLog(world.clock.wall, world.log))
    for settings in ({"metrics": "0.0.0.0:9464"}, {"traces": "http://collector.example:4318"}):
        config = world.config(port=0, **settings)
        source = EvidenceSource(attester=world.attester(config))
        with pytest.raises(UsageError):
            asyncio.run(serve_async(config, source, around=around))
