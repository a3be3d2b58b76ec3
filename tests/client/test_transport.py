"""Transports for httpx2 and httpx: an ordinary client, encrypted to a verified enclave."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import httpx2
import pytest
from client_town import ENCLAVE, TOKEN, Town

from cloister.client import AsyncClient, TruncatedResponse
from cloister.errors import UsageError

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
