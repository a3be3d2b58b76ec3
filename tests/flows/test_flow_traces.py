"""Traces of all three parties at a real collector: what took how long, and nothing of what it was about (T64, T85)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2
import numpy as np
import pytest
from flow_house import ENCLAVE, brightest, open_house
from otlp_receiver import Receiver, attributes

from cloister.channel.keyset import GATEWAY_PATH
from cloister.errors import Rejected
from cloister.telemetry.otlp import OtlpSpans, parse_traces_place
from loops import asynchronous

if TYPE_CHECKING:
    from pathlib import Path

    from flow_house import House

INPUT = np.frombuffer(b"CANARY-INPUT-9f3a1c7e55aa00ff" + bytes(3), dtype="<f4").reshape(2, 4)
WEIGHTS = "canary-weights-name-5d1e"
OUTER = "00-11111111111111111111111111111111-1111111111111111-01"


def made(receiver: Receiver, service: str) -> OtlpSpans:
    return OtlpSpans(parse_traces_place(receiver.url, 100), service=service, version="1")


def secrets(house: House, instance: str, answer: bytes) -> dict[str, bytes]:
    """Return what no span may hold."""
    return {
        "input": b"CANARY-INPUT",
        "weights": WEIGHTS.encode(),
        "consumer": b"clinic",
        "consumer's token": house.tokens["clinic"].encode(),
        "borrower's token": str(house.loan_file["token"]).encode(),
        "loan": house.loan.encode(),
        "instance": instance.encode(),
        "digest": house.digests["digits"].encode(),
        "answer": answer,
    }


@asynchronous
async def test_spans_of_a_whole_story_hold_no_content_no_token_and_nobody(tmp_path: Path) -> None:
    with Receiver() as receiver:
        custodian, enclave = made(receiver, "cloister-custodian"), made(receiver, "cloister-enclave")
        async with open_house(tmp_path, models={"digits": brightest(WEIGHTS)}) as house:
            house.service.context.spans = custodian
            await house.lend(10)
            async with house.enclave(spans=enclave) as instance, await house.client() as client:
                answer = await client.infer("digits", {WEIGHTS: INPUT})
                with pytest.raises(Rejected):
                    await client.infer("digits", np.concatenate([INPUT] * 40))
                await instance.renewal.once()
                kept = secrets(house, instance.metering.instance, answer.response)
        enclave.close()
        custodian.close()
        seen = b"".join(receiver.raw)
        assert [what for what, secret in kept.items() if secret in seen] == []
        names = {span.name for span in receiver.spans}
        assert names >= {
            "enclave.attest", "enclave.load", "lease.renew", "infer digits", "evidence.verify", "key.release",
            "POST /v1/loans/{loan}/attest",
        }  # fmt: skip
        first, refused = receiver.named("infer digits")
        assert attributes(first) == {
            "gen_ai.operation.name": "infer", "gen_ai.provider.name": "cloister", "gen_ai.request.model": "digits",
            "cloister.units": 2,
        }  # fmt: skip
        assert attributes(refused)["error.type"] == "allowance_exhausted"
        attest = receiver.named("POST /v1/loans/{loan}/attest")[0]
        assert attributes(attest)["http.response.status_code"] == 200
        for name in ("evidence.verify", "key.release"):
            assert receiver.named(name)[0].parent_span_id == attest.span_id
        assert attributes(receiver.named("evidence.verify")[0]) == {"cloister.tee": "simulated"}


@asynchronous
async def test_t64_a_traceparent_outside_steers_nothing(tmp_path: Path) -> None:
    with Receiver() as receiver:
        custodian, enclave = made(receiver, "cloister-custodian"), made(receiver, "cloister-enclave")
        async with open_house(tmp_path) as house:
            house.service.context.spans = custodian
            await house.lend(10)
            outer = {"traceparent": OUTER, "tracestate": "a=b", "baggage": "consumer=clinic"}
            async with house.enclave(spans=enclave), await house.client() as client:
                send = house.wires.apps[8440].handle_async_request

                async def marked(request: httpx2.Request) -> httpx2.Response:
                    request.headers.update(outer)
                    return await send(request)

                house.wires.apps[8440].handle_async_request = marked  # type: ignore[method-assign]  # a meddling proxy
                await client.infer("digits", INPUT)
                async with httpx2.AsyncClient(transport=house.wires.apps[8440], base_url=ENCLAVE) as stranger:
                    assert (await stranger.post(GATEWAY_PATH, headers=outer)).status_code == 415
            answer = await house.admin.get("/v1/loans", headers=outer)
            assert answer.status_code == 200
        enclave.close()
        custodian.close()
        assert receiver.named("infer digits")
        assert receiver.named("GET /v1/loans")
        for span in receiver.spans:
            assert span.trace_id.hex() != "1" * 32
            assert span.parent_span_id.hex() != "1" * 16
            assert not span.trace_state
        assert b"clinic" not in b"".join(receiver.raw)
