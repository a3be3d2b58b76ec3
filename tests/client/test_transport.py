"""Transports for httpx2 and httpx: an ordinary client, encrypted to a verified enclave."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import httpx2
import pytest
from client_town import ENCLAVE, TOKEN, Reply, Town, scan

from cloister.channel.keyset import CHUNKED_RESPONSE_TYPE, OHTTP_KEY_PROBLEM
from cloister.client import AsyncClient, TruncatedResponse
from cloister.client.tensors import dump_inputs
from cloister.errors import UsageError
from cloister.wire import dump_json

httpx = pytest.importorskip("httpx", reason="httpx is an optional dependency")

HEADERS = {"Authorization": f"Bearer {TOKEN}", "X-Note": "a note nobody outside reads"}


@pytest.fixture
def town() -> Town:
    return Town()


def test_httpx2_talks_to_the_enclave_as_to_any_server(town: Town) -> None:
    with town.client() as client, httpx2.Client(transport=client.transport(), base_url=client.url) as http:
        answer = http.get("/v2/models/digits", headers=HEADERS)
        assert answer.status_code == 200
        assert answer.json()["name"] == "digits"
        assert answer.extensions["cloister_enclave"].instance == town.enclave.instance
        assert http.get("/v2/models/digits").status_code == 401
    assert b"a note nobody" not in town.wire
    assert TOKEN.encode() not in town.wire


def test_httpx_does_too(town: Town) -> None:
    from cloister.client.transport_httpx import EnclaveTransport  # noqa: PLC0415 - wants httpx

    with (
        town.client() as client,
        httpx.Client(transport=EnclaveTransport(client._session, client._wire), base_url=client.url) as http,
    ):
        assert http.get("/v2/models/digits", headers=HEADERS).json()["platform"] == "onnxruntime_onnx"


def test_both_do_so_asynchronously(town: Town) -> None:
    from cloister.client.transport_httpx import AsyncEnclaveTransport  # noqa: PLC0415 - wants httpx

    async def body() -> None:
        options = {"schemes": town.schemes, "transport": town, "clock": town.clock}
        async with await AsyncClient.verify(ENCLAVE, town.trust(), **options) as client:
            async with httpx2.AsyncClient(transport=client.transport(), base_url=client.url) as http:
                assert (await http.get("/v2/models/digits", headers=HEADERS)).json()["name"] == "digits"
            other = AsyncEnclaveTransport(client._session, client._wire)
            async with httpx.AsyncClient(transport=other, base_url=client.url) as http:
                assert (await http.get("/v2/models/digits", headers=HEADERS)).json()["name"] == "digits"

    asyncio.run(body())


def test_trailers_are_there_once_the_body_was_read(town: Town) -> None:
    head = json.dumps(
        {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 64], "parameters": {"binary_data_size": 256}}]}
    ).encode()
    fields = {**HEADERS, "Inference-Header-Content-Length": str(len(head))}
    with town.client() as client, httpx2.Client(transport=client.transport(), base_url=client.url) as http:
        request = http.build_request("POST", "/v2/models/digits/infer", content=head + bytes(256), headers=fields)
        answer = http.send(request, stream=True)
        answer.read()
        names = [name for name, _ in answer.extensions["cloister_trailers"]()]
        answer.close()
    assert "cloister-receipt" in names


def test_t58_a_cut_stream_raises_while_it_is_read(town: Town) -> None:
    with town.client() as client, httpx2.Client(transport=client.transport(), base_url=client.url) as http:
        town.reply_change = lambda reply: replace(reply, parts=[reply.parts[0][:-1]])
        with pytest.raises(TruncatedResponse):
            http.get("/v2/models/digits", headers=HEADERS)


def test_a_request_for_somebody_else_is_refused(town: Town) -> None:
    with town.client() as client, httpx2.Client(transport=client.transport()) as http:
        with pytest.raises(UsageError, match="verified for"):
            http.get("https://mallory.test/v2")
        with pytest.raises(UsageError, match="verified for"):
            http.get("http://enclave.test/v2")


def test_a_restarted_enclave_is_verified_again_under_a_transport(town: Town) -> None:
    with town.client() as client, httpx2.Client(transport=client.transport(), base_url=client.url) as http:
        http.get("/v2/models/digits", headers=HEADERS)
        town.restart()
        answer = http.get("/v2/models/digits", headers=HEADERS)
        assert answer.extensions["cloister_enclave"].instance == town.enclave.instance


def test_outer_fields_say_nothing_and_steer_nothing(town: Town) -> None:
    """T64: model, path and cookies exist inside only."""
    with town.client() as client, httpx2.Client(transport=client.transport(), base_url=client.url) as http:
        http.get("/v2/models/digits", headers={**HEADERS, "Cookie": "session=abc", "X-Model": "digits"})
    assert b"session=abc" not in town.wire
    assert b"x-model" not in bytes(town.wire).lower()
    inner = dict(town.enclave.seen[-1].headers)
    assert inner["x-model"] == "digits"
    assert "accept-encoding" not in inner
    assert town.enclave.seen[-1].authority == "enclave.test"


def test_cookies_of_the_operator_are_not_kept(town: Town) -> None:
    town.reply_change = lambda reply: replace(reply, headers={"set-cookie": "track=consumer-1"})
    with town.client() as client:
        client.model("digits", token=TOKEN)
        client.model("digits", token=TOKEN)
    assert b"consumer-1" not in town.wire


def serve_once_and_deny_it(town: Town) -> None:
    """Be an operator that lets the enclave answer, throws the answer away, and says that it had not the key."""
    denied: list[Reply] = []

    def change(reply: Reply) -> Reply:
        if reply.kind != CHUNKED_RESPONSE_TYPE or denied:
            return reply
        denied.append(reply)
        problem = dump_json({"type": OHTTP_KEY_PROBLEM})
        return Reply(status=400, kind="application/problem+json", parts=[problem])

    town.reply_change = change


def test_an_operator_that_denies_having_answered_cannot_make_a_question_cost_twice(town: Town) -> None:
    with town.client() as client:
        info = client.model("digits")
        serve_once_and_deny_it(town)
        assert client.infer("digits", scan(3)).remaining == 9
        assert town.enclave.allowance == 9
        body = dump_inputs(info, {"image": scan(4)})
        headers = {**HEADERS, "inference-header-content-length": str(body.head_bytes)}
        serve_once_and_deny_it(town)
        with httpx2.Client(transport=client.transport(), base_url=client.url) as http:
            answer = http.post("/v2/models/digits/infer", headers=headers, content=body.data)
    assert answer.status_code == 200
    assert town.enclave.allowance == 8


@pytest.mark.parametrize("path", ["/v2/models/other", "/v2/models/other/infer", "/v2/models/other/ready?x=1"])
def test_a_transport_asks_no_model_that_the_trust_does_not_pin(town: Town, path: str) -> None:
    with (
        town.client() as client,
        httpx2.Client(transport=client.transport(), base_url=client.url) as http,
        pytest.raises(UsageError, match="not in the trust"),
    ):
        http.post(path, headers=HEADERS, content=b"{}")
    assert not town.enclave.seen
