"""A consumer may name the trace that its request is part of, inside the encryption; and health that tells the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from enclave_models import doubler
from enclave_parties import ConsumerSide, asynchronous, infer_body, make_world
from otlp_receiver import Receiver

from cloister.errors import CloisterError
from cloister.telemetry.otlp import OtlpSpans, parse_traces_place

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
            enclave._api._spans = spans
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
